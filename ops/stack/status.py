"""What runs now: pid files tell whose a server is, the servers themselves whether they answer."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from config.settings import Settings, read_settings
from config.values.stack_settings import StackSettings
from ops.stack import stack
from ops.stack.clusters import cluster
from ops.stack.clusters.members import Member
from ops.stack.parts import Choice, StackPart, choose
from ops.stack.process import find
from ops.stack.servers import docker


@dataclass(frozen=True, slots=True)
class State:
    """One part now, or one member of its cluster (`member`: from 1; 0 for a single server).

    `pid` and `memory_bytes`: of our own server, None if it is not ours or does not run.
    """

    part: StackPart
    ours: bool
    answers: bool
    endpoint: str
    pid: int | None
    memory_bytes: int | None
    source: str
    member: int = 0


def of(settings: Settings, ports: StackSettings, parts: Collection[StackPart]) -> list[State]:
    """The state of these parts, asked side by side; of a cluster that of each member."""
    ports = cluster.as_it_runs(ports, settings.home)
    with ThreadPoolExecutor(len(parts) or 1) as pool:
        return [state for states in pool.map(lambda part: _states(part, settings, ports), parts) for state in states]


def _states(part: StackPart, settings: Settings, ports: StackSettings) -> list[State]:
    """The state of a part: of its one server, or of each member of a cluster."""
    choice = choose(part, settings, ports)
    if not (cluster.has_members(part, ports) and choice.ours):
        return [_state(part, settings, ports)]
    given = _leading_to(choice, settings, choice.endpoint)
    return [_member(part, member, given, ports) for member in cluster.of_part(part, settings.home, ports)]


def _member(part: StackPart, member: Member, given: Settings, ports: StackSettings) -> State:
    """The state of one member of a cluster."""
    process = cluster.process(part, member)
    port = ports.mongodb_port if part is StackPart.MONGODB else ports.rabbitmq_port
    return State(
        part=part,
        ours=True,
        answers=cluster.answers(part, member, given, ports),
        endpoint=f"{member.host}:{port}",
        pid=process.pid if process else None,
        memory_bytes=memory_bytes(process.pid) if process else None,
        source="started by us" if process else "not started",
        member=member.number,
    )


def _state(part: StackPart, settings: Settings, ports: StackSettings) -> State:
    """The state of a part with one server."""
    choice = choose(part, settings, ports)
    folder = settings.home.absolute() / "stack" / part
    process = find(part.label, folder / "pid") if choice.ours else None
    endpoint = choice.endpoint
    if part is StackPart.DOCKER and choice.ours:
        endpoint = docker.address(folder) if process else docker.running() or ""
    where = _leading_to(choice, settings, endpoint)
    return State(
        part=part,
        ours=choice.ours and (process is not None or part is not StackPart.DOCKER),
        answers=stack.answers(part, where),
        endpoint=endpoint,
        pid=process.pid if process else None,
        memory_bytes=memory_bytes(process.pid) if process else None,
        source=_source(choice, own_runs=process is not None),
    )


def _leading_to(choice: Choice, settings: Settings, endpoint: str) -> Settings:
    """Settings whose addresses are those of this choice."""
    names = {name.removeprefix("SLUICE_").lower(): value for name, value in choice.settings.items()}
    if choice.part is StackPart.DOCKER:
        names["docker_host"] = endpoint or docker.SYSTEM_ENGINE
    return read_settings(**(settings.model_dump(include=settings.model_fields_set) | names))


def _source(choice: Choice, *, own_runs: bool) -> str:
    """Where a part's server comes from, in words."""
    if not choice.ours:
        return f"named by {choice.because}"
    if own_runs:
        return "started by us"
    return "the machine's own, if any" if choice.part is StackPart.DOCKER else "not started"


def memory_bytes(pid: int) -> int | None:
    """Resident memory of a process; None if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = next((line.split()[1] for line in lines if line.startswith("VmRSS:")), None)
    return int(found) * 1024 if found else None
