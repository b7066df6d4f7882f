"""One item that cannot be handled never stops the others.

all at once ──fails──► each alone ──fails──► that one is quarantined with its reason
     └── a transient error (broker, database, node) ──► raised: the caller retries
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from pymongo.errors import BulkWriteError, PyMongoError, WriteError

from config.connections.mongodb import may_be_undone
from protocol.errors import LaneFull, RpcError, Unavailable, WrongChain

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: Errors that say nothing about the item itself: the caller may try again. Nodes that are all on another chain, as
#: after a reset or a provider's mistake, have to be corrected by people.
TRANSIENT_ERRORS = (Unavailable, RpcError, WrongChain, LaneFull, PyMongoError, SoftTimeLimitExceeded)


def is_transient(error: Exception) -> bool:
    """Whether the same call may succeed later: broker, database or node failed, other than by refusing its content."""
    if isinstance(error, BulkWriteError):
        return may_be_undone(error)
    return isinstance(error, TRANSIENT_ERRORS) and not isinstance(error, WriteError)


def each(items: Sequence[T], call: Callable[[Sequence[T]], None], on_failure: Callable[[T, Exception], None]) -> None:
    """Handle all items in one call; if that fails, each in a call of its own, and those that fail alone go to
    `on_failure`.

    `call` must be repeatable. Transient errors are raised.
    """
    try:
        call(items)
    except Exception as error:
        if is_transient(error):
            raise
        if len(items) == 1:
            log.exception("It cannot be handled.", action="isolated", what=repr(items[0])[:200])
            on_failure(items[0], error)
            return
        for item in items:
            each([item], call, on_failure)


def all_of(steps: Sequence[Callable[[], object]]) -> None:
    """Run every step even if some fail; raises the first transient error, after the last step."""
    first: Exception | None = None
    for step in steps:
        try:
            step()
        except Exception as error:
            if not is_transient(error):
                log.exception("A step failed; the others go on.", action="step_failed", step=_name(step))
            elif first is None:
                first = error
    if first is not None:
        raise first


def _name(step: Callable[[], object]) -> str:
    """The name of a step, for the log."""
    called = getattr(step, "func", step)
    return str(getattr(called, "__name__", type(called).__name__))
