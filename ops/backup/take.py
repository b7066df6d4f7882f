"""`sluice backup`: the database at one moment, while the scheduler works, in one archive."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bson

from chain.lane.store.documents import lane_from
from chain.lane.store.mongo import LEASES
from config.settings import Settings
from ops.archive import ArchiveWriter, require_new, write_archive
from ops.backup.contents import DATABASE, FORMAT, KEYS, KIND, SETTINGS, Pool, key_files
from ops.settings_table import env_lines
from pipeline.store.blocks import CURSOR
from pipeline.store.client import Store, answering, database
from pipeline.store.database.copies import Copies, Disturbed, Snapshot
from pipeline.store.database.migrations import VERSION
from protocol.counts import count
from protocol.errors import BadInput, NotPossible, Unavailable

#: Times that a backup is started again because collections were made meanwhile, as at a scheduler's first start.
ATTEMPTS = 5

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Taken:
    """A backup that was made, or would be. `block`: the last one whose events are in it; None before the first."""

    path: str
    block: int | None
    documents: int
    bytes: int
    made_at: float
    keys: tuple[str, ...]
    dry_run: bool = False


def take(settings: Settings, path: Path, *, keys: bool, secrets: bool, progress: Progress = lambda _: None) -> Taken:
    """Write a backup of the scheduler's database to `path`. `keys`: with the files of `key_files`; `secrets`: with the
    settings that are secret.

    Raises BadInput where the file exists or cannot be written, NotPossible in the middle of a restore, Unavailable,
    BadSetting.
    """
    pool = Pool.of(settings)
    lines = env_lines(settings, secrets=secrets)
    files = {name: _content(place) for name, place in key_files(settings).items() if place.exists()} if keys else {}
    for _ in range(ATTEMPTS):
        about: dict[str, Any] = {
            "kind": KIND,
            "format": FORMAT,
            "sluice": version("sluice"),
            "pool": asdict(pool),
            "made_at": time.time(),
            "database": settings.mongodb_database,
        }
        try:
            with answering(), write_archive(path, about) as archive:
                copies = Copies(database(settings))
                _require_whole(copies, settings)
                with copies.snapshot() as snapshot:
                    about.update(_copy(archive, snapshot, progress))
                    if not any(member.items for member in archive.members):
                        raise BadInput(what=f"The database {settings.mongodb_database} is empty: nothing to back up.")
                archive.add(SETTINGS, (f"{line}\n".encode() for line in lines))
                for name, content in files.items():
                    archive.add(KEYS + name, [content])
        except Disturbed:
            continue
        documents = sum(member.items for member in archive.members if member.name.startswith(DATABASE))
        return Taken(str(path), about["block"], documents, path.stat().st_size, about["made_at"], tuple(files))
    raise Unavailable(what="MongoDB", why="its collections change all the time: take the backup once it has started")


def preview(settings: Settings, path: Path, *, keys: bool) -> Taken:
    """What `take` would back up; nothing is written. Sizes are about, and unpacked. Raises as `take` does."""
    Pool.of(settings)
    require_new(path)
    names = tuple(name for name, place in key_files(settings).items() if place.exists()) if keys else ()
    with answering():
        db = database(settings)
        copies = Copies(db)
        _require_whole(copies, settings)
        cursor, (documents, size) = Store.of(db).chain.cursor(), copies.size()
    block = None if cursor is None else cursor.number
    return Taken(str(path), block, documents, size, time.time(), names, dry_run=True)


def _require_whole(copies: Copies, settings: Settings) -> None:
    """Raise NotPossible for a database that a restore has left part old, part new."""
    if copies.is_half_replaced():
        what = f"The database {settings.mongodb_database} is part old, part new: no backup is made of that"
        raise NotPossible(what=f"{what}. {copies.cut_off()}")


def _copy(archive: ArchiveWriter, snapshot: Snapshot, progress: Progress) -> dict[str, Any]:
    """Write every collection; returns what the manifest says of them."""
    marks = _Marks()
    for name in snapshot.names:
        documents = snapshot.documents(name)
        member = archive.add(f"{DATABASE}{name}.bson", marks.seen(documents) if name == "cursors" else documents)
        progress(f"{name}: {count(member.items, 'document')}")
    return {"block": marks.block, "block_hash": marks.block_hash, "schema": marks.schema, "wallets": marks.wallets}


@dataclass(slots=True)
class _Marks:
    """What the manifest says of the database, noted from the documents of `cursors`.

    A database without a schema version is of release 0.1.
    """

    block: int | None = None
    block_hash: str | None = None
    schema: int = 1
    #: Wallets with a lane: the scheduler's, and those that it had before.
    wallets: list[str] = field(default_factory=list)

    def seen(self, documents: Iterator[bytes]) -> Iterator[bytes]:
        """Pass documents on, and note what the manifest tells of them: block, schema version, wallets."""
        for document in documents:
            row = bson.decode(document)
            if row["_id"] == CURSOR:
                self.block, self.block_hash = row.get("number"), row.get("hash")
            elif row["_id"] == VERSION:
                self.schema = int(row.get("version") or 1)
            elif str(row["_id"]).startswith(LEASES):
                self.wallets.append(lane_from(row["_id"].removeprefix(LEASES)).wallet)
            yield document


def _content(place: Path) -> bytes:
    """A key file's bytes. Raises BadInput."""
    try:
        return place.read_bytes()
    except OSError as error:
        raise BadInput(what=f"{place} cannot be read: {error.strerror or error}.") from error
