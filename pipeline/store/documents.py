"""Frozen records as MongoDB documents and back, through one mapping made of the record's own type hints.

    record ──dump──► names and texts changed ──► document {"schema": SCHEMA, …}
    row    ──names changed back, defaults for what is missing, every value checked (pydantic)──► record, or Unfit

A field that a release adds has a default, so rows of the release before are read as they are; keys that are not known
are ignored, so rows of the release after are too. What is written over a row is written by `over`, so that those keys
stay, and the schema version is never lowered: two releases may share a database. Only rows that say again what the
chain says (`blocks`, `logs`, movements) are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from protocol.errors import Unfit
from protocol.types import BlockHash, Contract, DealId, Hash32, TaskId, TxHash, Wallet

T = TypeVar("T")
Document = dict[str, Any]
Row = Mapping[str, Any]

#: Version that new documents carry; rows without one are of release 0.1 (`pipeline.store.database.migrations`).
SCHEMA = 6
VERSION = "schema"
#: How ids, hashes and addresses are written: to the type checker they are text.
_HASH, _ADDRESS = re.compile("0x[0-9a-f]{64}"), re.compile("0x[0-9a-f]{40}")
_SHAPES: dict[object, re.Pattern[str]] = {
    **dict.fromkeys((TaskId, DealId, Hash32, BlockHash, TxHash), _HASH),
    **dict.fromkeys((Wallet, Contract), _ADDRESS),
}
#: Problems of one row that are reported, and characters of each.
_PROBLEMS, _CHARACTERS = 3, 160


class Documents(Generic[T]):
    """How records of one type are stored."""

    def __init__(
        self,
        kind: type[T],
        *,
        names: Mapping[str, str] | None = None,
        text: Collection[str] = (),
        inner: Mapping[str, Documents[Any]] | None = None,
        versioned: bool = True,
    ) -> None:
        """`names`: field → key, where they differ. `text`: integers that may pass 64 bits, so stored as text. `inner`:
        lists of records in it.
        """
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)
        self._names, self._text, self._inner = dict(names or {}), tuple(text), dict(inner or {})
        self._versioned = versioned
        self._shapes = [(name, shape) for name, hint in get_type_hints(kind).items() if (shape := _SHAPES.get(hint))]

    def to_document(self, record: T) -> Document:
        """The record as the document that is stored, with its schema version. The collections call it before they
        write.
        """
        document = self.outward(self._adapter.dump_python(record, mode="json", warnings=False))
        if self._versioned:
            document[VERSION] = SCHEMA
        return document

    def to_record(self, row: Row) -> T:
        """The record that a stored row holds, every value checked. Raises Unfit; `quarantine.Reader` calls it for each
        row.
        """
        try:
            record = self._adapter.validate_python(self.inward(row))
        except ValidationError as error:
            raise Unfit(why=_why(error)) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise Unfit(why=f"it has another shape ({error!r})"[:_CHARACTERS]) from error

        for name, shape in self._shapes:
            if shape.fullmatch(getattr(record, name)) is None:
                raise Unfit(why=f"{name}: it is not written as {shape.pattern}")
        return record

    def outward(self, fields: Document) -> Document:
        """Put stored keys and values in place of field names in `fields`, for `to_document`; returns `fields`."""
        for name in self._text:
            fields[name] = str(fields[name])
        for name, inner in self._inner.items():
            fields[name] = [inner.outward(item) for item in fields[name]]
        for name, key in self._names.items():
            fields[key] = fields.pop(name)
        return fields

    def inward(self, row: Row) -> Document:
        """A copy of a stored row with field names in place of stored keys, also in its inner lists, for `to_record`."""
        fields = dict(row)
        for name, key in self._names.items():
            if key in fields:
                fields[name] = fields[key]
        for name, inner in self._inner.items():
            if name in fields:
                fields[name] = [inner.inward(item) for item in fields[name]]
        return fields


def over(document: Document, lists: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The update that writes `document` over a row and keeps what only the row has: a newer release may have stored it.

    `lists`: embedded rows that are written over too, if `document` has them: the list, and the key that tells which of
    them is which.
    """
    fields: dict[str, Any] = {key: {"$literal": value} for key, value in document.items() if key != "_id"}
    if VERSION in document:
        fields[VERSION] = {"$max": [f"${VERSION}", document[VERSION]]}
    for name, key in ((name, key) for name, key in (lists or {}).items() if name in document):
        same = {"input": f"${name}", "as": "before", "cond": {"$eq": [f"$$before.{key}", f"$$now.{key}"]}}
        both = {"$mergeObjects": [{"$first": {"$filter": same}}, "$$now"]}
        fields[name] = {"$map": {"input": {"$literal": document[name]}, "as": "now", "in": both}}
    return [{"$set": fields}]


def newer(row: Row) -> bool:
    """Whether a later release than this one stored the row."""
    version = row.get(VERSION)
    return isinstance(version, int) and version > SCHEMA


def _why(error: ValidationError) -> str:
    """A validation error in a line: the first problems, and how many more there are."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    outcome_changes = [
        f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"[:_CHARACTERS] for item in problems
    ]
    more = [f"and {len(outcome_changes) - _PROBLEMS} more"] if len(outcome_changes) > _PROBLEMS else []
    return "; ".join([*outcome_changes[:_PROBLEMS], *more])
