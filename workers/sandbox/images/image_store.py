"""Images that this machine fetched for deals: a record of each, the engine's copy, and which of them are removed when
they take too much space.

<root>/images/<sha256 of the deal's name>.json     one name: what it stands for; the file's time is its last use
<root>/images/fetch-<sha256>/                      layers on their way to the engine

On the engine each is called `sluice-image:<sha256 of its configuration>`, a name that no deal can lead to. Nothing
that the machine's owner keeps on the engine is run, overwritten or removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
from pydantic_core import from_json

from config.whole_files import write_whole
from protocol.errors import BadMessage
from workers.data.registry import Blob
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.layer_entries import LayerEntries

log = structlog.get_logger(__name__)

#: Repository of all our images at an engine.
REPOSITORY = "sluice-image"
#: Bytes read from a layer at a time, and unpacked at a time at most: a bomb is stopped long before it is large.
_CHUNK_BYTES = 2**18
_UNPACKED_CHUNK_BYTES = 2**20
#: Of zlib: a gzip header comes first.
_GZIP_BITS = 31


@dataclass(frozen=True, slots=True)
class StoredImage:
    """The record of one fetched image: which image of the engine stands for the name in a deal."""

    #: As the deal has it, with the app's checksum.
    wanted: str
    #: Its name on the engine.
    name: str
    #: Of the manifest, `sha256:…`.
    digest: str
    #: Unpacked.
    size: int
    #: When its registry last said that the name stands for this, Unix seconds.
    confirmed: float
    #: Whether the engine has it whole on disk; False while it is taken, and if that was cut off.
    whole: bool = True


class ImageStore:
    """One record (JSON file) for each image that this machine fetched, below `root/images`."""

    def __init__(self, root: Path) -> None:
        self._root = root / "images"

    def find(self, wanted: str) -> StoredImage | None:
        """The record of a whole image by its key (name and checksum of the deal), marked as used now; None if
        there is none.
        """
        path = self._path(wanted)
        found = _read(path)
        if found is not None and not found.whole:
            return None
        if found is not None:
            # Another process may have removed it just now: then the engine lacks it.
            with suppress(FileNotFoundError):
                os.utime(path)
        return found

    def put(self, image: StoredImage) -> None:
        """Write a record, whole or not at all. Of a name that stood for another image until now, that one's stays under
        a name that no deal has, as the least recently used: the engine has it yet.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._path(image.wanted)
        before = _read(path)
        if before is not None and before.name != image.name:
            superseded = self._path(f"{image.wanted} {before.name}")
            write_whole(superseded, json.dumps(asdict(before)))
            os.utime(superseded, (0, 0))
        write_whole(path, json.dumps(asdict(image)))

    def cut_off(self, wanted: str) -> StoredImage | None:
        """The record of an image that was being taken when the worker was killed, or the power lost; None if it is not
        so.
        """
        found = _read(self._path(wanted))
        return found if found is not None and not found.whole else None

    def forget(self, wanted: str) -> None:
        """Delete the record of an image that the engine did not take."""
        self._path(wanted).unlink(missing_ok=True)

    def used_since(self, moment: float) -> int:
        """How many names in deals this machine had an image for at Unix time `moment` or later."""
        return sum(_used_at(path) >= moment for path in self._root.glob("*.json"))

    def fetch_folder(self, wanted: str) -> Path:
        """The folder for the layers of an image while it is fetched, until the engine has them."""
        return self._root / f"fetch-{_key(wanted)}"

    def fetch_folders(self) -> Iterator[Path]:
        """All folders of fetches that run now or were killed."""
        return self._root.glob("fetch-*")

    def shrink(self, engine: Engine, budget: int, keep: str) -> None:
        """Remove the images used least recently until all together are within `budget` bytes; `keep` (a name on the
        engine) stays, as does what a container uses. Raises EngineUnavailable.
        """
        by_name: dict[str, list[Path]] = {}
        sizes: dict[str, int] = {}
        for path in sorted(self._root.glob("*.json"), key=_used_at):
            found = _read(path)
            if found is not None:
                # Sorted by use: a name that was used again moves to the end.
                by_name[found.name] = [*by_name.pop(found.name, []), path]
                sizes[found.name] = found.size
        total = sum(sizes.values())
        for name, paths in by_name.items():
            if total <= budget:
                return
            if name == keep or not engine.remove_image(name):
                continue
            for path in paths:
                path.unlink(missing_ok=True)
            total -= sizes[name]
            log.info("Removed an image to free disk space.", action="image_evicted", name=name, bytes=sizes[name])

    def _path(self, wanted: str) -> Path:
        """The file about a stored image."""
        return self._root / f"{_key(wanted)}.json"


def _key(wanted: str) -> str:
    """An image's name as the name of a file."""
    return hashlib.sha256(wanted.encode()).hexdigest()


def _read(path: Path) -> StoredImage | None:
    """The record in a file; None if it cannot be read."""
    try:
        return StoredImage(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        # Absent, or not of this version: the image is fetched again.
        return None


def _used_at(path: Path) -> float:
    """When the image was used last, Unix seconds; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def engine_name(config_digest: str) -> str:
    """The name on the engine of an image with this configuration."""
    return f"{REPOSITORY}:{config_digest.removeprefix('sha256:')}"


def read_config(content: bytes) -> tuple[tuple[str, str], tuple[str, ...]]:
    """Platform and `diff_ids` of an image's configuration. Raises BadMessage."""
    try:
        read = from_json(content)
        platform = str(read["os"]), str(read["architecture"])
        return platform, tuple(str(diff) for diff in read["rootfs"]["diff_ids"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadMessage(why="the image's configuration cannot be read") from error


def unpacked_size(
    file: Path, blob: Blob, diff_id: str, most: int, meanwhile: Callable[[], None], entries: LayerEntries
) -> int | None:
    """Bytes of a layer unpacked; None as soon as they are more than `most`. `entries` reads them as well.

    Raises BadMessage if it is not `diff_id`: what the engine may have under that id already is then not asked for
    either; and for what `entries` refuses.
    """
    digest, size = hashlib.sha256(), 0
    try:
        for piece in _unpacked(file) if blob.gzip else _pieces(file):
            size += len(piece)
            if size > most:
                return None
            digest.update(piece)
            entries.feed(piece)
            meanwhile()
        entries.end()
    except (zlib.error, EOFError) as error:
        raise BadMessage(why="a layer of the image is no gzip") from error
    if diff_id != f"sha256:{digest.hexdigest()}":
        raise BadMessage(why="a layer of the image is another than its configuration says")
    return size


def _unpacked(file: Path) -> Iterator[bytes]:
    """The unpacked bytes of a gzip file, piece by piece. Raises EOFError, zlib.error."""
    unpack = zlib.decompressobj(_GZIP_BITS)
    for chunk in _pieces(file):
        left = chunk
        while left:
            if unpack.eof:
                # A gzip file may have several parts.
                unpack = zlib.decompressobj(_GZIP_BITS)
            yield unpack.decompress(left, _UNPACKED_CHUNK_BYTES)
            left = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    while not unpack.eof:
        rest = unpack.decompress(b"", _UNPACKED_CHUNK_BYTES)
        if not rest:
            raise EOFError
        yield rest


def _pieces(file: Path) -> Iterator[bytes]:
    """The bytes of a file, piece by piece."""
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK_BYTES):
            yield chunk


def archive(name: str, config: bytes, layers: Iterable[Blob], files: Mapping[str, Path]) -> Iterator[bytes]:
    """The image as the tar archive that `docker load` takes, piece by piece. `files`: the compressed
    layers, by digest.
    """
    config_file = f"{name.partition(':')[2]}.json"
    digests = [blob.digest for blob in layers]
    members = [f"{digest.removeprefix('sha256:')}.tar" for digest in digests]
    index = json.dumps([{"Config": config_file, "RepoTags": [name], "Layers": members}]).encode()
    for member, content in (("manifest.json", index), (config_file, config)):
        yield from _member(member, len(content), [content])
    for digest, path in files.items():
        yield from _member(f"{digest.removeprefix('sha256:')}.tar", path.stat().st_size, _pieces(path))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, size: int, content: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of one file in a tar archive."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    yield entry.tobuf(tarfile.GNU_FORMAT)
    yield from content
    yield bytes(-size % tarfile.BLOCKSIZE)
