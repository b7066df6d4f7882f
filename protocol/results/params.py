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

    @property
    def unserved(self) -> str | None:
        """What it asks for that no task outside of an enclave gets from this pool, in words; None if there is nothing.

        Another result proxy would have to be sent files by strangers' machines, at an address that a stranger chose.
        """
        if (self.storage_proxy or "").strip():
            return "results go to this pool's own IPFS node, so iexec_result_storage_proxy cannot be honoured"
        if (self.storage_provider or "ipfs").strip() != "ipfs":
            return "results go to IPFS, so another iexec_result_storage_provider cannot be honoured"
        if self.result_encryption:
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
        return _from_object(content)
    except (ValueError, BadMessage):
        return DealParams(args=text)


def _from_object(content: str) -> DealParams:
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


def _text_or_none(value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str():
            return str(value)
    raise BadMessage(why="not a text")


def _text(value: object) -> str:
    return _text_or_none(value) or ""


def _texts(value: object) -> tuple[str, ...]:
    match value:
        case None:
            return ()
        case list():
            return tuple(_text(item) for item in value)
    raise BadMessage(why="not a list")


def _mapping(value: object) -> Mapping[str, str]:
    match value:
        case None:
            return {}
        case _Object():
            return {key: _text(item) for key, item in value}
    raise BadMessage(why="not an object")


def _boolean(value: object) -> bool:
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
    raise BadMessage(why=f"{name} is not JSON")


_READERS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "iexec_args": ("args", _text_or_none),
    "iexec_input_files": ("input_files", _texts),
    "iexec_result_encryption": ("result_encryption", _boolean),
    "iexec_result_storage_provider": ("storage_provider", _text_or_none),
    "iexec_result_storage_proxy": ("storage_proxy", _text_or_none),
    "iexec_secrets": ("secrets", _mapping),
    "bulk_cid": ("bulk_cid", _text),
}
_DECODER = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_refuse_constant
)
