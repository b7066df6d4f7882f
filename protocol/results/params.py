"""The requester's deal params, read exactly as Java workers read them: two workers that differ lose their stakes.

    a JSON object whose keys are all known and whose values fit   ──► its values
    anything else: no JSON, an array, an unknown key, a bad type  ──► the whole text is the argument line
    the literal `null`                                            ──► BadMessage (Java workers die on it)

Numbers are good as text, and text and numbers as booleans; what follows a whole object is ignored; of equal keys the
last counts. Source: iexec-worker 9.2 (Jackson 2.17, run on a JVM).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from protocol.errors import BadMessage
from protocol.nesting import nests_deeper

_JSON_SPACE = " \t\n\r"
#: The literal, and not the beginning of a word like `nullable`.
_NULL = re.compile(r"null(?!\w)")
#: Levels of brackets in the deepest params that fit: the object, and a list or an object in it.
_DEEPEST = 2
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE", "null", ""})


@dataclass(frozen=True, slots=True)
class DealParams:
    """What a requester asks for besides app and dataset."""

    #: Argument line for `protocol.results.args`; None or blank: the image's own command.
    args: str | None = None
    #: URLs to download into `/iexec_in`.
    input_files: tuple[str, ...] = ()
    #: Only for enclaves.
    result_encryption: bool = False
    #: `ipfs` or `dropbox`; None unless the requester asks for one.
    storage_provider: str | None = None
    #: URL of another result store than the pool's.
    storage_proxy: str | None = None
    #: Index the app asks for → name of the requester's secret. Names, not secrets; only for enclaves.
    secrets: Mapping[str, str] = field(default_factory=dict)
    #: IPFS id of a bulk of datasets; only for enclaves.
    bulk_cid: str = ""

    def unserved(self, *, enclave: bool = False) -> str | None:
        """The demand that this pool does not serve, outside of enclaves or in one, in words; None if there is none.

        A result proxy of the requester's choice is one: it would receive files from workers' machines at an address
        that the requester chose.
        """
        if (self.storage_proxy or "").strip():
            return "results go to this pool's own IPFS node, so iexec_result_storage_proxy cannot be honoured"
        if (self.storage_provider or "ipfs").strip() != "ipfs":
            return "results go to IPFS, so another iexec_result_storage_provider cannot be honoured"
        if self.result_encryption and not enclave:
            return "iexec_result_encryption needs an enclave"
        return None


class _Number(str):
    """A JSON number as it was written: read as text, 1.50 is `1.50`."""

    __slots__ = ()


class _Object(tuple[tuple[str, object], ...]):
    """A JSON object with every pair in its place, repeated keys too."""

    __slots__ = ()


def read_params(text: str) -> DealParams:
    """The params behind `deal.params`; BadMessage only for the literal `null`."""
    content = text.lstrip(_JSON_SPACE)
    if _NULL.match(content):
        raise BadMessage(why="deal params are the JSON literal null")
    try:
        return _parse_params(content)
    except (ValueError, BadMessage):
        return DealParams(args=text)


def _parse_params(content: str) -> DealParams:
    """The params in a JSON object. Raises BadMessage for unknown keys and wrong types."""
    if not content.startswith("{") or nests_deeper(content, _DEEPEST):
        raise BadMessage(why="not an object of plain values")
    value, _ = _DECODER.raw_decode(content)
    found: dict[str, Any] = {}
    for key, item in value:
        if key not in _READERS:
            raise BadMessage(why=f"unknown key {key!r}")
        # Read where it stands: a bad value is bad even if a good one with the same key follows.
        name, read = _READERS[key]
        found[name] = read(item)
    return DealParams(**found)


def _read_text_or_none(value: object) -> str | None:
    """A JSON value as text, as Java reads it: booleans and numbers too. Raises BadMessage."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
    raise BadMessage(why="not a text")


def _read_text(value: object) -> str:
    """A JSON value as text; null is empty. Raises BadMessage."""
    return _read_text_or_none(value) or ""


def _read_text_list(value: object) -> tuple[str, ...]:
    """A JSON list as texts; null is empty. Raises BadMessage."""
    match value:
        case None:
            return ()
        case list():
            return tuple(_read_text(item) for item in value)
    raise BadMessage(why="not a list")


def _read_text_map(value: object) -> Mapping[str, str]:
    """A JSON object as text by key; null is empty. Raises BadMessage."""
    match value:
        case None:
            return {}
        case _Object():
            return {key: _read_text(item) for key, item in value}
    raise BadMessage(why="not an object")


def _read_boolean(value: object) -> bool:
    """A JSON value as a boolean, as Java reads it: numbers and words too; null is False. Raises BadMessage."""
    match value:
        case None:
            return False
        case bool():
            return value
        case _Number() if value.lstrip("-").isdecimal():
            return value != "0"
        case str() if not isinstance(value, _Number) and value.strip() in _TRUE:
            return True
        case str() if not isinstance(value, _Number) and value.strip() in _FALSE:
            return False
    raise BadMessage(why="not a boolean")


def _refuse_constant(name: str) -> NoReturn:
    """Raise BadMessage for NaN and Infinity, which Python's JSON reader would accept."""
    raise BadMessage(why=f"{name} is not JSON")


_READERS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "iexec_args": ("args", _read_text_or_none),
    "iexec_input_files": ("input_files", _read_text_list),
    "iexec_result_encryption": ("result_encryption", _read_boolean),
    "iexec_result_storage_provider": ("storage_provider", _read_text_or_none),
    "iexec_result_storage_proxy": ("storage_proxy", _read_text_or_none),
    "iexec_secrets": ("secrets", _read_text_map),
    "bulk_cid": ("bulk_cid", _read_text),
}
_DECODER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant
)
