"""`sluice restore`: an archive in the place of the scheduler's database.

    archive checked: pool, release, every byte ─► no scheduler at work ─► staged ─► put in place ─► indexes made
                     any of it wrong: nothing was changed

What happened on chain since the backup is read from the chain when the scheduler starts. Its lane learns from
the chain which nonces are spent; a deposit or withdrawal that was under way is not sent again, since no contract
refuses it the second time. Orders that were signed since the backup are known to nobody but the market: where there may
be some, nothing new is offered until the operator publishes again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chain.contracts.hub import Hub
from chain.lane.store.mongo import MongoStore
from chain.rpc.pool import connect
from config.connections.mongodb import while_indexing
from config.settings import Settings
from config.whole_files import move_whole, replace_whole
from ops.archive import Archive, Member, open_archive
from ops.at_work import require_stopped
from ops.backup.contents import DATABASE, KEYS, SETTINGS, Pool, key_files, require_usable
from ops.in_flight import wait_for_mined
from pipeline.store import orders
from pipeline.store.client import Store, answering, database
from pipeline.store.database.activity import Activity
from pipeline.store.database.copies import Copies, split
from pipeline.store.money import transfer_wish
from protocol.counts import count
from protocol.errors import BadBackup, NotPossible
from protocol.types import Contract, Wallet

#: Called with what is done, as a sentence.
Progress = Callable[[str], None]

_SUFFIX = ".bson"
#: The setting that names what is offered, as a line of `settings.env` begins.
_ORDERS_FILE = "SLUICE_ORDERS_FILE"


@dataclass(frozen=True, slots=True)
class Restored:
    """A backup that was put back, or would be. `block`: the last one whose events are in it."""

    path: str
    made_at: float
    block: int | None
    collections: int
    documents: int
    #: Key files written, by place.
    keys: tuple[str, ...]
    #: Key files of the backup that no setting has a place for: they were not written.
    keys_left: tuple[str, ...]
    #: Whether a deposit or withdrawal was under way, which is not sent again.
    transfer_given_up: bool
    #: Whether nothing is offered until `sluice orders publish`: orders may have been signed since.
    orders_held: bool
    #: The wallet's transactions that no block holds yet: they may take nonces that the lane claims anew.
    pending: int
    dry_run: bool


def put_back(
    settings: Settings,
    path: Path,
    *,
    replace: bool,
    keys: bool,
    dry_run: bool,
    wait: float,
    progress: Progress = lambda _: None,
) -> Restored:
    """Put a backup in the place of the database. `replace`: also if that holds something; `keys`: write the archive's
    key files too; `wait`: seconds for transactions that the lost scheduler sent to be mined. With `dry_run` everything
    is checked and nothing changed. `progress`: called with what is done.

    Raises BadBackup, NotPossible, BadSetting, WrongChain, Unavailable, RpcUnavailable.
    """
    pool = Pool.of(settings)
    with open_archive(path) as archive, answering():
        require_usable(archive, pool)
        progress("Checking every byte of the backup …")
        archive.check()
        places = key_places(archive, settings, replace=replace) if keys else {}
        left = without_place(archive, settings) if keys else ()
        progress("Looking for transactions that are on their way …")
        pending = _settle(settings, pool, archive.about["wallets"], 0.0 if dry_run else wait)
        db = database(settings)
        copies = Copies(db)
        if not copies.is_empty():
            if not replace:
                what = f"The database {settings.mongodb_database} is not empty: add --replace to lose what it holds"
                raise NotPossible(what=f"{what}, or name another one in SLUICE_MONGODB_DATABASE.")
            activity = Activity(db)
            require_stopped(activity, settings, {*activity.wallets(), *archive.about["wallets"]})
        collections = [member for member in archive.members if member.name.startswith(DATABASE)]
        held = may_have_sold(archive, settings)
        given_up = False
        if not dry_run:
            with keys_in_place({place: b"".join(archive.pieces(member)) for member, place in places.items()}):
                given_up = _replace(archive, copies, collections, progress, hold=held)
                progress("Making the indexes …")
                Store.of(db).ensure_indexes()
                with while_indexing():
                    MongoStore(db).ensure_indexes()
    return Restored(
        path=str(path),
        made_at=archive.about["made_at"],
        block=archive.about["block"],
        collections=len(collections),
        documents=sum(member.items for member in collections),
        keys=tuple(str(place) for place in places.values()),
        keys_left=left,
        transfer_given_up=given_up,
        orders_held=held,
        pending=pending,
        dry_run=dry_run,
    )


def may_have_sold(archive: Archive, settings: Settings) -> bool:
    """Whether orders may have been signed since the backup: it has orders, or settings, then or now, that name what is
    offered. Raises BadBackup.
    """
    members = {member.name: member for member in archive.members}
    had, then = members.get(f"{DATABASE}orders{_SUFFIX}"), members.get(SETTINGS)
    if settings.orders_file is not None or (had is not None and had.items > 0):
        return True
    return then is not None and f"\n{_ORDERS_FILE}=".encode() in b"\n" + b"".join(archive.pieces(then))


def _replace(archive: Archive, copies: Copies, collections: list[Member], progress: Progress, *, hold: bool) -> bool:
    """Stage every collection, then put all in place. `hold`: have nothing offered. Whether a transfer was given up.

    Raises BadBackup.
    """
    copies.forget_stage()
    for place, member in enumerate(collections, start=1):
        name = member.name.removeprefix(DATABASE).removesuffix(_SUFFIX)
        progress(f"Collection {place} of {len(collections)}, {name}: {count(member.items, 'document')} …")
        try:
            number = copies.stage(name, split(archive.pieces(member)))
        except ValueError as error:
            why = f"{member.name} in it is not BSON: {error}"
            raise BadBackup(path=archive.path, why=why, fix="Take an older backup.") from error
        if number != member.items:
            why = f"{member.name} in it holds {number} documents, not {member.items}"
            raise BadBackup(path=archive.path, why=why, fix="Take an older backup.")
    given_up = transfer_wish.give_up(copies.staged("pool"), copies.staged("intents"))
    if hold:
        orders.hold(copies.staged("orders"), time.time())
    progress("Putting all in place …")
    copies.put_in_place()
    return given_up


def key_places(archive: Archive, settings: Settings, *, replace: bool) -> dict[Member, Path]:
    """The archive's key files that are to be written, and where. A keystore is never overwritten.

    Raises BadBackup if there are none, NotPossible for another file in the place of one, or one that cannot be read.
    """
    known, found = key_files(settings), _keys_in(archive)
    if not found:
        why, fix = "it holds no keys", "Leave --keys out: the scheduler makes new tokens, and machines sign in again."
        raise BadBackup(path=archive.path, why=why, fix=fix)
    places: dict[Member, Path] = {}
    for member, name in found.items():
        place = known.get(name)
        if place is None:
            continue
        with _named(place, "read"):
            there = place.read_bytes() if place.exists() else None
        if there == b"".join(archive.pieces(member)):
            continue
        if there is not None and (name.startswith("keystore") or not replace):
            kept = "a keystore is never overwritten" if name.startswith("keystore") else "it is kept without --replace"
            raise NotPossible(what=f"{place} is another file than the backup's, and {kept}: move it away first.")
        places[member] = place
    return places


def without_place(archive: Archive, settings: Settings) -> tuple[str, ...]:
    """Names of the archive's key files that no setting has a place for: its keystore, if SLUICE_KEYSTORE is unset."""
    return tuple(sorted({*_keys_in(archive).values()} - key_files(settings).keys()))


def _keys_in(archive: Archive) -> dict[Member, str]:
    """The archive's key files, each with its name."""
    return {member: member.name.removeprefix(KEYS) for member in archive.members if member.name.startswith(KEYS)}


@contextmanager
def keys_in_place(contents: Mapping[Path, bytes]) -> Iterator[None]:
    """Write key files beside their places, and have them take these once the block ends; not if it raises. They belong
    to the owners of the files before, or of the folders, whoever restores them.

    Raises NotPossible before the block begins for a place where none can be written.
    """
    beside = {place: place.with_name(f"{place.name}.restored") for place in contents}
    try:
        for place, written in beside.items():
            with _named(place, "written"):
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_whole(written, contents[place], like=place)
        yield
        for place, written in beside.items():
            with _named(place, "written"):
                move_whole(written, place)
    finally:
        for written in beside.values():
            with suppress(OSError):
                written.unlink(missing_ok=True)


@contextmanager
def _named(place: Path, done: str) -> Iterator[None]:
    """Within the block, raise an OSError as NotPossible: `place` cannot be `done` (read, written)."""
    try:
        yield
    except OSError as error:
        raise NotPossible(what=f"{place} cannot be {done}: {error.strerror or error}.") from error


def _settle(settings: Settings, pool: Pool, wallets: Sequence[Wallet], wait: float) -> int:
    """The number of these wallets' transactions that no block holds, once there are none or `wait` seconds are over.

    Raises WrongChain if the node is of another chain than the settings say, or has no such contracts.
    """
    with closing(connect(settings)) as rpc:
        Hub(rpc, Contract(pool.hub)).check_chain(settings.model_copy(update={"workerpool": pool.workerpool}))
        return wait_for_mined(rpc, wallets, wait)
