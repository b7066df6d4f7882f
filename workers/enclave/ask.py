"""Asks for a task's session until there is one, or until it is clear that there will be none.

no answer, 429, 5xx, a session that was taken  ──► ask again, while the task has the time that its app needs yet
the task is not on chain yet                   ──► the same: work begins before its transaction is mined
this machine has no token at the service       ──► store one, ask again
any other word of the service                  ──► declined with that word
"""

from __future__ import annotations

from itertools import count
from typing import Final, Protocol, TypeVar

import structlog

from protocol.enclave.session import SessionError, SessionPlace
from protocol.errors import NoSession, TaskDeclined, Unavailable
from protocol.results.error_result import MACHINE_FAILED, NO_SESSION, SESSION_UNKNOWN
from protocol.types import TaskId
from protocol.wire import Assignment
from workers.task.deadline import TaskDeadline, backoff

log = structlog.get_logger(__name__)
#: What a machine gets of a session: its content, or what its enclaves need to fetch the content.
_Taken = TypeVar("_Taken")
_Given_co = TypeVar("_Given_co", covariant=True)

#: Refusals of the service that may change in a moment: by what it reads of the chain, and the attestation service.
TRANSIENT: Final = frozenset(
    {
        SessionError.TASK_UNKNOWN,
        SessionError.TASK_NOT_ACTIVE,
        SessionError.DEAL_UNKNOWN,
        SessionError.NOT_DELIVERED,
    }
)


class Sessions(Protocol[_Given_co]):
    """Where sessions come from."""

    def open_session(self, assignment: Assignment) -> SessionPlace:
        """A new session, in place of an earlier one. Raises NoSession, Unavailable."""

    def take_session(self, place: SessionPlace) -> _Given_co:
        """Take the session that `open_session` opened, which is possible once. Raises Unavailable."""

    def store_token(self) -> None:
        """Store at the service the token that it wants every worker to have. Raises Unavailable."""


def take_session(service: Sessions[_Taken], assignment: Assignment, deadline: TaskDeadline) -> _Taken:
    """Open and take a session for this replicate; a later attempt asks for another one. Raises TaskDeclined."""
    task_id, lacks_token, has_token = TaskId(assignment.task_id), False, False
    for failures in count(1):
        try:
            if lacks_token:
                service.store_token()
                has_token = True
            return service.take_session(service.open_session(assignment))
        except NoSession as refusal:
            word, why = SessionError(str(refusal.fields["error"])), str(refusal)
            cause = f"{NO_SESSION}{word}"
            lacks_token = word is SessionError.NO_STORAGE_TOKEN and not has_token
            if word not in TRANSIENT and not lacks_token:
                raise TaskDeclined(task=task_id, cause=cause, why=why) from refusal
        except Unavailable as away:
            cause, why = SESSION_UNKNOWN, str(away)
        log.info("No session yet; asking again.", action="session_awaited", task=task_id, tries=failures, why=why)
        _wait(task_id, deadline, failures, cause, why)
    raise AssertionError("counting does not end")


def _wait(task_id: TaskId, deadline: TaskDeadline, failures: int, cause: str, why: str) -> None:
    """Wait before the next try at the secret service. Raises TaskDeclined when no time is left."""
    try:
        deadline.wait_before_retry(backoff(failures), why)
    except TaskDeclined as over:
        if over.fields["cause"] != MACHINE_FAILED:
            raise
        # No time is left to ask again: the service is why, not this machine.
        raise TaskDeclined(task=task_id, cause=cause, why=str(over.fields["why"])) from over
