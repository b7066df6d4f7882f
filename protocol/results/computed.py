"""What an app says of its result: `computed.json`, and the digest of the files it points to (iexec-worker 9.2).

    deal without callback   deterministic-output-path: a file or folder below /iexec_out; other keys count for nothing
    deal with callback      callback-data: `0x` hex; the path counts for nothing

Worker and scheduler both use it, each on bytes it does not trust: the worker on a container's output folder, the
scheduler on an uploaded zip. A path that leaves the folder is refused; a `result-digest` written by the app is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_bytes_leniently
from protocol.nesting import nests_deeper
from protocol.results.digest import callback_digest, directory_digest, file_digest
from protocol.types import Hash32

#: The output folder as the app sees it.
OUTPUT_FOLDER = "/iexec_out"
COMPUTED_FILE = "computed.json"
#: Characters in a file's name at most; longer ones fail the task, as with Java workers.
NAME_CHARACTERS = 31
#: Bytes of computed.json at most; only callback data is long, and it has to fit into a transaction.
COMPUTED_BYTES = 256 * 1024
#: Bytes of callback data at most: finalize writes them into storage, 700 gas a byte and more, and one transaction may
#: use 16.7 million gas (EIP-7825). What no transaction can carry must fail before the vote, not after it.
CALLBACK_BYTES = 12 * 1024
#: Folders in folders of a result at most, the file itself counted.
PATH_LEVELS = 32
#: Levels of brackets at most; what counts is on the first.
LEVELS = 20

_PATH_KEY = "deterministic-output-path"
_CALLBACK_KEY = "callback-data"


@dataclass(frozen=True, slots=True)
class Computed:
    """What counts of a computed.json: exactly one of the two."""

    #: Path below the output folder, `/` between its parts; empty: the folder itself.
    output_path: str | None = None
    #: `0x` hex for the deal's callback contract.
    callback_data: str | None = None


def read_computed(content: bytes, *, callback: bool) -> Computed:
    """Read computed.json. `callback`: whether the deal has a callback contract. Raises BadMessage."""
    if len(content) > COMPUTED_BYTES:
        raise BadMessage(why=f"computed.json is larger than {COMPUTED_BYTES} bytes")
    try:
        text = content.decode()
        value = None if nests_deeper(text, LEVELS) else json.loads(text)
    except ValueError as error:
        raise BadMessage(why="computed.json is not JSON") from error
    key = _CALLBACK_KEY if callback else _PATH_KEY
    match value:
        case {"callback-data": str(data)} if callback and data:
            if len(to_bytes_leniently(data)) > CALLBACK_BYTES:
                raise BadMessage(why=f"callback-data is longer than {CALLBACK_BYTES} bytes")
            return Computed(callback_data=data)
        case {"deterministic-output-path": str(path)} if not callback:
            return Computed(output_path=relative_path(path))
    raise BadMessage(why=f"computed.json has no {key}")


def relative_path(path: str) -> str:
    """`path`, as the app sees it, relative to the output folder. Raises BadMessage if it lies outside."""
    inside = path.removeprefix(OUTPUT_FOLDER)
    parts = [part for part in inside.split("/") if part not in {"", "."}]
    if inside == path or not (inside == "" or inside.startswith("/")) or ".." in parts or "\0" in path:
        raise BadMessage(why=f"deterministic-output-path is not below {OUTPUT_FOLDER}")
    return "/".join(parts)


def result_digest(computed: Computed, files: Mapping[str, bytes], folders: AbstractSet[str]) -> Hash32:
    """The digest to vote for. Raises BadMessage if the path of `computed` is neither a file nor a folder.

    `files`: relative path → 32-byte sha256 of every regular file; `folders`: relative paths of every folder, the empty
    one included.
    """
    if computed.callback_data is not None:
        return callback_digest(computed.callback_data)
    path = computed.output_path
    if path is None:
        raise BadMessage(why="computed.json names no result")
    if path in files:
        return file_digest(files[path])
    if path in folders:
        return directory_digest((name, sha256) for name, sha256 in _files_directly_in(files, path))
    raise BadMessage(why="deterministic-output-path does not exist")


def _files_directly_in(files: Mapping[str, bytes], folder: str) -> list[tuple[str, bytes]]:
    """Name and sha256 of each file directly in `folder`."""
    children = []
    for path, sha256 in files.items():
        parent, _, name = path.rpartition("/")
        if parent == folder:
            children.append((name, sha256))
    return children
