"""A machine that hostile apps run on: the limits they meet, and what must be as it was after each of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from docker import DockerClient

from protocol.results.error_result import UNCLEAR_END, Failure, cause_code, error_digest
from protocol.wire import Step
from tests.integration.workers import syscalls
from tests.integration.workers.conftest import IMAGE, ReportingPool
from tests.integration.workers.hostile import ATTACKS, DOCKERFILE, GOOD, PROBE
from tests.integration.workers.hostile import IMAGE as HOSTILE
from tests.integration.workers.scripts import built
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.waiting import wait_until
from workers.context import WorkerContext
from workers.sandbox import disk
from workers.sandbox.engine import host_config
from workers.task import disk_limits
from workers.task.compute import compute
from workers.task.replicate import Replicate, ReplicateStage

GOOD_DIGEST = "0x" + hashlib.sha256(GOOD).hexdigest()
PIDS = 64
#: Bytes that no app may read, in the machine's own folder.
SECRET = b"of the machine's owner"
#: Of no process of a container, whatever this one has.
FORBIDDEN = syscalls.forbidden(max(os.getpid(), 1_000))
#: Words that must be in the cause of a declined task, by what the app has done.
TRUE_WORDS = {
    Failure.APP: r"exit code \d+|held more than",
    Failure.OUT_OF_MEMORY: "bytes of memory",
    Failure.APP_TIMEOUT: "time was over",
    Failure.OUTPUT_ZIP: r"held more than|bytes of results|no UTF-8|leads elsewhere|folders",
    Failure.FILE_NAME: "more than 31 characters",
    Failure.RESULT_DIGEST: "deterministic-output-path does not exist",
    "missing": r"computed\.json|deterministic-output-path",
    UNCLEAR_END: r"\(SIGKILL\), neither by us nor for its memory|exit code 143",
}
#: Is allowed, and leaves what no result may hold.
SOCKET = syscalls.Call("socket as a file", 133, (b"/iexec_out/socket\0", stat.S_IFSOCK | 0o777, 0))


def build_hostile_image(engine_host: str) -> str:
    """Have the engine make HOSTILE; the program that makes the forbidden calls is in it as well."""
    probe = syscalls.program([*FORBIDDEN, SOCKET], "/iexec_out/r")
    scripts = {f"a/{number}": attack.script.encode() for number, attack in enumerate(ATTACKS.values())}
    built(engine_host, HOSTILE, DOCKERFILE, **scripts, **{"a/probe": probe, "a/limits": PROBE.encode()})
    return HOSTILE


def lower_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are reached in a moment, on any machine."""
    monkeypatch.setattr(host_config, "PIDS", PIDS)
    monkeypatch.setattr(host_config, "LOG_FILE_BYTES", 2**20)
    monkeypatch.setattr(disk, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(disk, "WORKING_FACTOR", 1)
    monkeypatch.setattr(disk, "WORKING_ENTRIES", 2_000)
    monkeypatch.setattr(disk, "SCRATCH_ENTRIES", 2_000)
    monkeypatch.setattr(disk_limits, "SCRATCH_BYTES", 8 * 2**20)


@contextmanager
def unharmed(context: WorkerContext, engine_host: str) -> Iterator[WorkerContext]:
    """The machine, with a secret; it must be as it was after whatever has run on it."""
    secret = context.layout.root / "secret"
    secret.write_bytes(SECRET)
    with closing(DockerClient(base_url=engine_host)) as client:
        volumes = {volume.name for volume in client.volumes.list()}
        yield context
        wait_until(lambda: not context.engine.containers_of(WORKER_KEY.wallet), 20, what="the containers' removal")
        assert {volume.name for volume in client.volumes.list()} <= volumes
    assert secret.read_bytes() == SECRET
    tasks = context.layout.root / "tasks"
    wait_until(lambda: {path.name for path in tasks.glob("*/*")} <= {"result.zip"}, 20, what="tidying up")
    for result in tasks.glob("*/result.zip"):
        _require_harmless(result)
    for number in (1, 2):
        context.layout.task(task_id(number)).remove()
    assert not list(tasks.iterdir())


def _require_harmless(result: Path) -> None:
    with zipfile.ZipFile(result) as archive:
        assert not any(SECRET in archive.read(entry) for entry in archive.infolist())
        assert {entry.external_attr >> 16 & 0o7777 for entry in archive.infolist()} <= {0o644, 0o755}


def run(context: WorkerContext, number: int, command: str, image: str = HOSTILE, seconds: int = 3600) -> Replicate:
    params = json.dumps({"iexec_args": command})
    compute(context, assignment(number, image=image, params=params, category_seconds=seconds))
    found = context.journal.find(task_id(number))
    assert found is not None
    return found


def require_next_task_runs(context: WorkerContext) -> None:
    computed = 'echo {\\"deterministic-output-path\\": \\"/iexec_out/r\\"} > /iexec_out/computed.json'
    assert run(context, 2, f"sh -c 'echo x > /iexec_out/r; {computed}'", IMAGE).digest == GOOD_DIGEST


def processes() -> list[str]:
    """Command lines on this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines


def confine(context: WorkerContext, profile: str) -> None:
    """Have the machine run apps by this profile."""
    settings = context.machine.settings.model_copy(update={"sandbox": profile})
    object.__setattr__(context.machine, "settings", settings)


def attack(
    machine: WorkerContext,
    pool: ReportingPool,
    profile: str,
    name: str,
    marker: str,
    ends: Failure | str | None,
    seconds: int | None = None,
) -> Replicate:
    """Run the hostile app of this name, which has to end as `ends` says; the next task runs, and none of its processes
    is left: they have `marker` in their command line.
    """
    confine(machine, profile)
    script = f"sh /a/{list(ATTACKS).index(name)} {marker}"
    found = run(machine, 1, script, seconds=seconds or ATTACKS[name].seconds)
    wanted = Failure.COMPUTED_FILE if ends == "missing" else ends
    if wanted == UNCLEAR_END:
        assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
        assert pool.wait_for(Step.FAILED).cause == found.cause
    else:
        if ATTACKS[name].or_memory and found.cause == Failure.OUT_OF_MEMORY:
            wanted = Failure.OUT_OF_MEMORY
        expected = GOOD_DIGEST if wanted is None else error_digest(Failure(wanted))
        assert (found.stage, found.cause, found.digest) == (ReplicateStage.COMPUTED, wanted, expected)
        assert pool.wait_for(Step.COMPUTED).cause == wanted
    assert "\x1b" not in str(found.cause)
    require_next_task_runs(machine)
    assert not [line for line in processes() if marker in line]
    return found


def require_true_cause(found: Replicate, ends: Failure | str, *, or_memory: bool) -> None:
    """The cause of a declined task says what its app has done. `or_memory`: memory may have run out before."""
    true = [TRUE_WORDS[ends], *([TRUE_WORDS[Failure.OUT_OF_MEMORY]] if or_memory else [])]
    assert re.search("|".join(true), str(found.cause)), found.cause


def answers_of_kernel(machine: WorkerContext) -> tuple[list[int], list[str]]:
    """What an app was answered to each of FORBIDDEN and to SOCKET, and the words that `a/limits` printed."""
    found = run(machine, 1, "sh /a/limits")
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)
    with zipfile.ZipFile(machine.layout.task(task_id(1)).zip) as archive:
        answers = syscalls.read_answers(archive.read("r"))
        printed = archive.read("stdout.txt").decode().split()
        assert "socket" not in archive.namelist()
    assert len(answers) == len(FORBIDDEN) + 1
    assert answers[-1] == 0
    return answers, printed
