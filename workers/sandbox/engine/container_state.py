"""A container's state as the Docker engine reports it, read strictly: BadMessage if a part is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from protocol.errors import BadMessage
from workers.sandbox.spec import LABEL_BOOT

#: Docker's year for "never".
_NEVER = 1
#: States of a container that is being removed; Docker's words.
_BEING_REMOVED = frozenset({"dead", "removing"})


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """How a container ended."""

    exit_code: int
    out_of_memory: bool
    timed_out: bool
    #: What it printed, at most `container.STREAM_BYTES` each.
    stdout: bytes = b""
    stderr: bytes = b""
    #: Of one that ran out of memory: whether it had reached its own limit, as far as anything shows that.
    own_limit: bool = True

    @property
    def clean(self) -> bool:
        """Exit 0 in time and within its memory."""
        return self.exit_code == 0 and not self.out_of_memory and not self.timed_out


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container at one moment. Times by the engine's clock."""

    #: Its id: a name is taken again as soon as the container is removed.
    container: str
    status: str
    running: bool
    paused: bool
    exit_code: int
    out_of_memory: bool
    #: None: it never started, or has not ended.
    started: datetime | None
    finished: datetime | None
    #: Id of its first process on the engine's machine; 0 if it does not run.
    process: int = 0
    #: Name of the time since its machine was started when it was made (`verified`); None: it does not say.
    boot: str | None = None

    @property
    def being_removed(self) -> bool:
        """Whether another request is removing it."""
        return self.status in _BEING_REMOVED

    def ran(self, now: datetime) -> float:
        """Seconds it ran, or has been running until `now` (the engine's clock); 0 if it never started."""
        if self.started is None:
            return 0.0
        end = now if self.running or self.finished is None else self.finished
        return max((end - self.started).total_seconds(), 0.0)


def read_state(answer: object) -> ContainerState:
    """The state in the engine's answer to `inspect`. Raises BadMessage if a part is missing or of another type."""
    container, state = (answer.get("Id"), answer.get("State")) if isinstance(answer, Mapping) else (None, None)
    if not isinstance(container, str) or not isinstance(state, Mapping):
        raise BadMessage(why="it has no id or no state of the container")
    status, exit_code = state.get("Status"), state.get("ExitCode")
    running, paused, killed = state.get("Running"), state.get("Paused", False), state.get("OOMKilled", False)
    if not isinstance(status, str) or type(exit_code) is not int:
        raise BadMessage(why="it has neither status nor exit code of the container")
    if not isinstance(running, bool) or not isinstance(paused, bool) or not isinstance(killed, bool):
        raise BadMessage(why="a flag of the container's state is neither true nor false")
    started, finished = _moment(state.get("StartedAt")), _moment(state.get("FinishedAt"))
    process, config = state.get("Pid"), answer.get("Config") if isinstance(answer, Mapping) else None
    labels = config.get("Labels") if isinstance(config, Mapping) else None
    return ContainerState(
        container,
        status,
        running,
        paused,
        exit_code,
        killed,
        started,
        finished,
        process=process if type(process) is int else 0,
        boot=(str(labels.get(LABEL_BOOT) or "") or None) if isinstance(labels, Mapping) else None,
    )


def read_moment(text: object) -> datetime:
    """An engine's time (RFC 3339, up to nine decimals, any offset). Raises BadMessage."""
    if not isinstance(text, str):
        raise BadMessage(why="it has no time")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadMessage(why="a time in it is malformed") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _moment(text: object) -> datetime | None:
    """A moment in the engine's answer; None for its "never"."""
    moment = read_moment(text)
    return None if moment.year == _NEVER else moment
