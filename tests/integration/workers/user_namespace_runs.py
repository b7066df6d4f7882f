"""Apps on an engine with user namespaces (`userns-remap`), where root in a container is an ordinary user outside:
`make test-userns`, since it needs an engine of its own, and Docker adds a user `dockremap` to this machine for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ops.stack.servers import docker
from protocol.results.error_result import UNCLEAR_END, cause_code
from tests.integration.workers.conftest import IMAGE, ReportingPool, prepared
from tests.integration.workers.hostile import ATTACKS
from tests.integration.workers.hostile_machine import attack, require_true_cause
from tests.integration.workers.scripts import built, done, result, serving, sha256, shell, zipped
from tests.integration.workers.test_hostile_apps import hostile_image, machine
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.waiting import ample, wait_until
from workers.context import WorkerContext
from workers.fitness import doctor
from workers.sandbox.engine.given_folders import container_root
from workers.sandbox.rehearsal import rehearse
from workers.task.compute import compute
from workers.task.replicate import ReplicateStage

__all__ = ["hostile_image", "machine"]

USER_IMAGE = "sluice-test/user:1"


@pytest.fixture(scope="session")
def engine_host() -> Iterator[str]:
    """An engine of its own, with IMAGE; nothing of it is left afterwards."""
    with TemporaryDirectory(prefix="sluice-engine-") as name:
        folder = Path(name)
        # Its root in containers must get to its folder.
        folder.chmod(0o711)
        found, run_folder = docker.program(folder)
        program = replace(found, command=[*found.command, "--userns-remap=default"])
        process = docker.ensure(program, run_folder, seconds=ample(docker.START_SECONDS))
        try:
            yield prepared(docker.address(folder))
        finally:
            docker.Docker(docker.address(folder), process, folder).stop()


def test_the_doctor_and_a_start_say_what_such_an_engine_means(context: WorkerContext) -> None:
    found = doctor.sandbox(context.machine.settings)
    assert (found.ok, found.numbers["user_namespaces"], found.numbers["votes_failures"]) == (True, True, False)
    assert "an ordinary user outside" in found.says
    assert "from inside a container" in rehearse(context.machine).network


def test_root_of_an_app_is_nobody_of_this_machines_and_its_output_becomes_the_result(context: WorkerContext) -> None:
    found = done(
        context, result("cat /proc/self/uid_map > /iexec_out/r; mkdir -m 700 /iexec_out/d; id > /iexec_out/d/x")
    )
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)
    inside, outside, _ = map(int, zipped(context)["r"].split())
    assert inside == 0
    assert (outside, outside) == container_root(context.engine.data_folder)
    assert outside > 0
    assert zipped(context)["d/x"].startswith(b"uid=0")
    # What it left, also closed folders, goes like any other.
    wait_until(lambda: not context.engine.containers_of(WORKER_KEY.wallet), 20, what="the container's removal")
    folder = context.layout.task(task_id(1)).root
    wait_until(lambda: [path.name for path in folder.iterdir()] == ["result.zip"], 20, what="tidying up")


def test_an_app_may_hand_its_output_folder_to_a_user_of_its_own(context: WorkerContext) -> None:
    script = "stat -c %u /iexec_out > /u; chown 1234 /iexec_out; chmod 700 /iexec_out; cat /u > /iexec_out/r"
    found = done(context, result(f"{script}; stat -c %u /iexec_out >> /iexec_out/r"))
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)
    assert zipped(context)["r"] == b"0\n1234\n"


def test_an_app_of_any_user_reads_its_inputs_and_writes_its_output(
    context: WorkerContext, engine_host: str, tmp_path: Path
) -> None:
    built(engine_host, USER_IMAGE, f"FROM {IMAGE}\nUSER 4321\n")
    files = tmp_path / "www"
    files.mkdir()
    (files / "input").write_bytes(b"input file")
    with serving(files) as url:
        script = result(
            "cat $IEXEC_IN/$IEXEC_INPUT_FILE_NAME_1 > /iexec_out/r; touch $IEXEC_IN/n || id -u >> /iexec_out/r"
        )
        params = json.dumps({"iexec_args": f"sh -c '{script}'", "iexec_input_files": [f"{url}/input"]})
        compute(context, assignment(1, image=USER_IMAGE, params=params))
    found = context.journal.find(task_id(1))
    assert found is not None
    assert found.digest == sha256(b"input file4321\n")


@pytest.mark.parametrize("script", ["exit 3", "chown 70000 /iexec_out || exit 1"])
def test_an_app_that_fails_there_is_declined_and_nobody_votes(context: WorkerContext, script: str) -> None:
    found = done(context, script)
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "user namespaces" in str(found.cause)


def test_an_app_whose_user_the_engine_cannot_have_is_declined(context: WorkerContext, engine_host: str) -> None:
    built(engine_host, USER_IMAGE, f"FROM {IMAGE}\nUSER 70000\n")
    compute(context, assignment(1, **shell("true", image=USER_IMAGE)))
    found = context.journal.find(task_id(1))
    assert found is not None
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "Docker refuses to run the container" in str(found.cause)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_app_there_is_declined_for_what_is_true_and_the_next_task_runs(
    machine: WorkerContext, pool: ReportingPool, tmp_path: Path, name: str
) -> None:
    ends = ATTACKS[name].ends
    found = attack(machine, pool, "compat", name, f"{abs(hash(tmp_path))}", ends and UNCLEAR_END)
    if ends is not None:
        require_true_cause(found, ends, or_memory=ATTACKS[name].or_memory)
