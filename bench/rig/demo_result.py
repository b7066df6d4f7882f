"""What the demo's app leaves behind, for machines that run no container."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from protocol.results.computed import read_computed, result_digest
from protocol.types import Hash32


def honest_files(index: int, count: int, args: str = "noop") -> dict[str, bytes]:
    """What the demo's app leaves for these arguments in task `index` of `count`, by path below /iexec_out."""
    text = f"args: {args}\ntask index: {index} of {count}\n"
    return {"result.txt": text.encode(), "computed.json": b'{"deterministic-output-path": "/iexec_out/result.txt"}\n'}


def digest_of(files: Mapping[str, bytes]) -> Hash32:
    """The digest that an honest machine votes for."""
    sums = {path: sha256(content).digest() for path, content in files.items()}
    return result_digest(read_computed(files["computed.json"], callback=False), sums, {""})
