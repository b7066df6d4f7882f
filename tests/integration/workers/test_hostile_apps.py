"""What apps that mean harm can do to the machine that runs them: nothing that outlives them, and the next app runs."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from docker import DockerClient

from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END, Failure, cause_code, error_digest
from protocol.wire import Step
from tests.integration.workers import syscalls
from tests.integration.workers.conftest import IMAGE, ReportingPool
from tests.integration.workers.hostile import ATTACKS, DOCKERFILE, GOOD, IN_STRICT, PROBE
from tests.integration.workers.hostile import IMAGE as HOSTILE
from tests.integration.workers.test_compute import built
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.waiting import wait_until
from workers.context import WorkerContext
from workers.sandbox import disk, host_config, spec
from workers.task import disk_limits
from workers.task.compute import compute
from workers.task.replicate import Replicate, ReplicateStage

GOOD_DIGEST = "0x" + hashlib.sha256(GOOD).hexdigest()
PIDS = 64
#: Bytes that no app may read, in the machine's own folder.
SECRET = b"of the machine's owner"
#: Of no process of a container, whatever this one has.
FORBIDDEN = syscalls.forbidden(max(os.getpid(), 1_000))
#: Is allowed, and leaves what no result may hold.
SOCKET = syscalls.Call("socket as a file", 133, (b"/iexec_out/socket\0", stat.S_IFSOCK | 0o777, 0))


@pytest.fixture(scope="module")
def hostile_image(engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The engine has HOSTILE; the program that makes the forbidden calls is in it as well."""
    probe = syscalls.program([*FORBIDDEN, SOCKET], "/iexec_out/r")
    scripts = {f"a/{number}": attack.script.encode() for number, attack in enumerate(ATTACKS.values())}
    built(engine_host, HOSTILE, DOCKERFILE, **scripts, **{"a/probe": probe, "a/limits": PROBE.encode()})
    return HOSTILE


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are reached in a moment, on any machine."""
    monkeypatch.setattr(host_config, "PIDS", PIDS)
    monkeypatch.setattr(host_config, "LOG_FILE_BYTES", 2**20)
    monkeypatch.setattr(disk, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(disk, "WORKING_FACTOR", 1)
    monkeypatch.setattr(disk, "WORKING_ENTRIES", 2_000)
    monkeypatch.setattr(disk, "SCRATCH_ENTRIES", 2_000)
    monkeypatch.setattr(disk_limits, "SCRATCH_BYTES", 8 * 2**20)


@pytest.fixture
def machine(context: WorkerContext, hostile_image: str, engine_host: str) -> Iterator[WorkerContext]:
    """A machine with a secret, which is as it was after whatever has run on it."""
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


@pytest.mark.parametrize(
    ("profile", "name"), [*(("compat", name) for name in ATTACKS), *(("strict", name) for name in IN_STRICT)]
)
def test_a_hostile_app_gets_the_cause_that_is_true_and_the_next_task_runs(
    machine: WorkerContext, pool: ReportingPool, tmp_path: Path, profile: str, name: str
) -> None:
    confine(machine, profile)
    attack, marker = ATTACKS[name], f"{abs(hash(tmp_path))}"
    found = run(machine, 1, f"sh /a/{list(ATTACKS).index(name)} {marker}", seconds=attack.seconds)
    wanted = Failure.COMPUTED_FILE if attack.ends == "missing" else attack.ends
    if profile == "strict" and wanted is not None:
        # It may have failed for what a strict machine keeps from it.
        wanted = UNCLEAR_END
    if wanted == UNCLEAR_END:
        assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
        assert pool.wait_for(Step.FAILED).cause == found.cause
    else:
        if attack.or_memory and found.cause == Failure.OUT_OF_MEMORY:
            wanted = Failure.OUT_OF_MEMORY
        expected = GOOD_DIGEST if wanted is None else error_digest(Failure(wanted))
        assert (found.stage, found.cause, found.digest) == (ReplicateStage.COMPUTED, wanted, expected)
        assert pool.wait_for(Step.COMPUTED).cause == wanted
    assert "\x1b" not in str(found.cause)
    require_next_task_runs(machine)
    assert not [line for line in processes() if marker in line]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for x86-64")
@pytest.mark.parametrize("profile", ["compat", "strict"])
def test_the_kernel_refuses_an_app_all_that_reaches_beyond_its_container(machine: WorkerContext, profile: str) -> None:
    confine(machine, profile)
    found = run(machine, 1, "sh /a/limits")
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)
    with zipfile.ZipFile(machine.layout.task(task_id(1)).zip) as archive:
        answers = syscalls.read_answers(archive.read("r"))
        printed = archive.read("stdout.txt").decode().split()
        assert "socket" not in archive.namelist()
    assert len(answers) == len(FORBIDDEN) + 1
    assert answers[-1] == 0
    allowed = [call.name for call, answer in zip(FORBIDDEN, answers, strict=False) if answer >= 0]
    assert not allowed
    open_files, core, shared, pids, covered, _ = map(int, printed)
    assert (open_files, core, shared, pids, covered) == (
        spec.OPEN_FILES,
        0,
        spec.SHARED_MEMORY_BYTES // 1024,
        PIDS,
        0,
    )
    require_next_task_runs(machine)


def test_an_app_on_a_disk_that_others_fill_is_killed_and_nobody_votes(
    machine: WorkerContext, pool: ReportingPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(*_: object) -> float:
        return 0.5 if machine.engine.containers_of(WORKER_KEY.wallet) else 2.0

    with monkeypatch.context() as full:
        full.setattr(disk, "free_share", share)
        found = run(machine, 1, "sh -c 'sleep 3600'")
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, MACHINE_FAILED)
    assert "free" in str(pool.wait_for(Step.FAILED).cause)
    require_next_task_runs(machine)
