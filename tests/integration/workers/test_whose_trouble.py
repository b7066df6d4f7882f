"""No trouble of this machine, its engine, its registry or its network becomes a vote: real parts that misbehave."""

from __future__ import annotations

import gc
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from config.settings import Settings
from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END, Failure, cause_code, error_digest
from protocol.wire import Dataset
from tests.faulty import Answer, Fault, HangUp
from tests.faulty.docker_proxy import docker_proxy
from tests.faulty.file_server import file_server
from tests.faulty.registry import error, registry
from tests.integration.workers.conftest import IMAGE, ReportingPool, open_bench
from tests.integration.workers.scripts import done, result, sha256, shell
from tests.unit.workers.assignments import LATER, assignment, task_id
from workers.context import WorkerContext
from workers.fitness import doctor
from workers.sandbox import run_app
from workers.sandbox.images.images_refused import Obstacle, RefusedImages
from workers.task.compute import compute, remove_container
from workers.task.replicate import Replicate, ReplicateStage

#: docker-py leaves a socket to the garbage collector when an answer breaks off.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

GOOD = result("echo x > /iexec_out/r")
GOOD_DIGEST = sha256(b"x\n")


def soon() -> int:
    """A contribution deadline that leaves no time to try a download again."""
    return int(time.time()) + 25


@contextmanager
def fresh(settings: Settings, home: Path) -> Iterator[WorkerContext]:
    """A machine without any past."""
    context = open_bench(settings.model_copy(update={"home": home / f"{time.monotonic_ns()}"}))
    try:
        yield context
    finally:
        context.close()
        context.machine.api.close()


def state(context: WorkerContext, number: int = 1) -> Replicate:
    found = context.journal.find(task_id(number))
    assert found is not None
    return found


# -- the engine -------------------------------------------------------------------------------------------------------

#: What a Docker engine's errors look like, in its words; the last ones are no words at all.
WORDS = st.sampled_from(
    [
        "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        "Minimum memory limit allowed is 6MB",
        "container is marked for removal and cannot be started",
        "OCI runtime create failed: runc create failed: unable to start container process: error setting cgroup config",
        'unable to retrieve OCI runtime error: exec: "runc": executable file not found in $PATH: unknown',
        "no space left on device",
        "driver failed programming external connectivity",
        "device or resource busy",
        "server is misbehaving",
        "",
    ]
)
STATUSES = st.sampled_from([400, 403, 404, 405, 409, 418, 429, 500, 501, 502, 503, 504])
BODIES = st.one_of(
    WORDS.map(lambda words: json.dumps({"message": words}).encode()),
    st.sampled_from([b"", b"null", b"[]", b"{}", b"<html>busy</html>", b'{"message": null}', b"\xff"]),
)
FAULTS = st.one_of(
    st.builds(Answer, STATUSES, BODIES),
    st.builds(Answer, st.just(200), st.sampled_from([b"", b"null", b"[]", b"{}", b"<html>", b'{"State": {}}', b'"x"'])),
    st.builds(HangUp, st.integers(0, 3)),
)
#: Requests of one run, by what their path holds.
REQUESTS = st.sampled_from(
    [
        ("GET", "/images/"),
        ("POST", "/create"),
        ("POST", "/start"),
        ("POST", "/wait"),
        ("GET", "/json"),
        ("GET", "/logs"),
    ]
)


class Faults:
    """The first `times` requests of a kind are answered wrongly."""

    def __init__(self, request: tuple[str, str], fault: Fault, times: int) -> None:
        self._method, self._part = request
        self._fault, self.left = fault, times

    def __call__(self, method: str, path: str) -> Fault | None:
        if method != self._method or self._part not in path or self.left == 0:
            return None
        self.left -= 1
        return self._fault


@contextmanager
def through_proxy(settings: Settings, engine_host: str, home: Path, faults: Faults) -> Iterator[WorkerContext]:
    """A machine whose engine answers with these faults."""
    with (
        docker_proxy(engine_host, home / f"{time.monotonic_ns()}.sock", faults) as host,
        fresh(settings.model_copy(update={"docker_host": host}), home) as context,
    ):
        yield context
    gc.collect()


@pytest.mark.timeout(900)  # each of the drawn runs is a container or two, slow on a busy machine
@drawn(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=REQUESTS, fault=FAULTS, times=st.integers(1, 3))
def test_whatever_an_engine_answers_no_good_app_is_voted_to_have_failed(
    settings: Settings,
    engine_host: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, str],
    fault: Fault,
    times: int,
) -> None:
    # An engine that says no for good is given up at once.
    monkeypatch.setattr(run_app, "ENGINE_SECONDS", 0.0 if times == 3 else 60.0)
    with through_proxy(settings, engine_host, tmp_path, Faults(asked, fault, times)) as context:
        done(context, GOOD, contribution_deadline=soon())
        found = state(context)
    if found.stage is ReplicateStage.COMPUTED:
        assert (found.digest, found.cause) == (GOOD_DIGEST, None)
    else:
        assert found.stage is ReplicateStage.FAILED
        assert cause_code(found.cause) in {MACHINE_FAILED, UNCLEAR_END}


@pytest.mark.parametrize("moment", ["/start", "/logs"])
def test_a_container_that_a_pruning_timer_takes_is_run_anew(
    settings: Settings, engine_host: str, tmp_path: Path, moment: str
) -> None:
    removed = Answer(409, json.dumps({"message": "container is marked for removal and cannot be started"}).encode())
    faults = Faults(("POST" if moment == "/start" else "GET", moment), removed, 2)
    with through_proxy(settings, engine_host, tmp_path, faults) as context:
        assert done(context, GOOD).digest == GOOD_DIGEST


def test_an_image_that_a_pruning_timer_takes_before_the_container_is_made_is_asked_for_again(
    settings: Settings, engine_host: str, tmp_path: Path
) -> None:
    gone = Answer(404, b'{"message": "No such image: sluice-test/shell:1"}')
    with through_proxy(settings, engine_host, tmp_path, Faults(("POST", "/containers/create"), gone, 2)) as context:
        assert done(context, GOOD).digest == GOOD_DIGEST


def test_a_container_that_cannot_be_removed_is_reported_once_and_the_others_are_swept(
    settings: Settings, engine_host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = Answer(500, b'{"message": "device or resource busy"}')
    with through_proxy(settings, engine_host, tmp_path, Faults(("DELETE", "/containers/"), busy, -1)) as context:
        for _ in range(3):
            remove_container(context, "sluice-test-absent")
        remove_container(context, "sluice-test-other")
    # On either stream: a command that ran in this process before may have moved the log.
    assert "".join(capsys.readouterr()).count("container_left") == 2


# -- the registry -----------------------------------------------------------------------------------------------------

ABSENT = {
    "manifest unknown": error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    "name unknown": error(404, "NAME_UNKNOWN", "repository name not known to registry"),
}


def with_image(context: WorkerContext, host: str, number: int = 1, deadline: int | None = None) -> Replicate:
    """Compute a task whose image is at this registry, by a tag that was never used."""
    image = f"{host}/app:{time.monotonic_ns()}"
    compute(context, assignment(number, image=image, contribution_deadline=deadline or soon()))
    return state(context, number)


@pytest.mark.parametrize("words", ABSENT)
def test_an_image_that_is_certainly_absent_is_the_tasks_failure(context: WorkerContext, words: str) -> None:
    with registry(lambda *_: ABSENT[words]) as host:
        assert with_image(context, host).digest == error_digest(Failure.APP_IMAGE)


NOT_ABSENT = st.one_of(
    st.builds(
        Answer,
        st.sampled_from([429, 500, 502, 503, 504, 418, 400]),
        st.sampled_from(
            [b"", b"busy", b"{}", b"null", b"<html>", b'{"errors":[{"code":"TOOMANYREQUESTS","message":"x"}]}']
        ),
    ),
    st.builds(
        Answer, st.just(404), st.sampled_from([b"<html>no such page</html>", b'{"errors":[{"code":"UNKNOWN"}]}'])
    ),
    st.builds(HangUp, st.integers(0, 3)),
)


@drawn(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fault=NOT_ABSENT)
def test_whatever_else_a_registry_answers_is_no_vote(settings: Settings, tmp_path: Path, fault: Fault) -> None:
    with registry(lambda *_: fault) as host, fresh(settings, tmp_path) as context:
        found = with_image(context, host)
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)


def test_a_registry_that_refuses_for_a_while_is_asked_again(context: WorkerContext) -> None:
    limit = error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
    with registry(lambda _, number: limit if number < 3 else None, program=b"#!/absent\n") as host:
        found = with_image(context, host, deadline=LATER)
    # The image came, and its program has no interpreter: the app's own failure.
    assert found.digest == error_digest(Failure.APP)


def test_a_registrys_rate_limit_is_no_vote_and_the_doctor_knows_it(context: WorkerContext) -> None:
    limit = error(429, "TOOMANYREQUESTS", "You have reached your pull rate limit.")
    with registry(lambda *_: limit) as host:
        found = with_image(context, host)
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    known = doctor.images(context.machine, time.time())
    assert not known.ok
    assert f"the rate limit of {host} is reached" in known.says


def test_an_image_for_another_processor_is_declined_by_its_own_word(
    context: WorkerContext, pool: ReportingPool
) -> None:
    with registry(lambda *_: None, program=b"x", architecture="arm64") as host:
        found = with_image(context, host)
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "arm64" in str(found.cause)
    (kept,) = RefusedImages(context.layout.root).met_since(0.0)
    assert (kept.obstacle, "arm64" in kept.why) == (Obstacle.PLATFORM, True)


# -- files ------------------------------------------------------------------------------------------------------------


def with_input(context: WorkerContext, host: str, deadline: int) -> Replicate:
    params = json.loads(str(shell(GOOD)["params"])) | {"iexec_input_files": [f"http://{host}/file"]}
    compute(context, assignment(1, image=IMAGE, params=json.dumps(params), contribution_deadline=deadline))
    return state(context)


@pytest.mark.parametrize("status", [404, 410])
def test_a_file_that_is_certainly_absent_is_the_tasks_failure(context: WorkerContext, status: int) -> None:
    with file_server(lambda _: Answer(status)) as host:
        assert with_input(context, host, soon()).digest == error_digest(Failure.INPUT_FILES)


BROKEN = st.one_of(
    st.builds(
        Answer, st.sampled_from([400, 401, 403, 405, 408, 425, 429, 451, 500, 502, 503, 504, 204, 206, 304, 302])
    ),
    st.builds(Answer, st.just(200)),
    st.builds(HangUp, st.integers(0, 3)),
    st.just(Answer(302, headers=(("location", "gopher://x/"),))),
    st.just(Answer(302, headers=(("location", "/file"),))),
)


@drawn(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fault=BROKEN)
def test_whatever_else_a_file_server_answers_is_no_vote(settings: Settings, tmp_path: Path, fault: Fault) -> None:
    with file_server(lambda _: fault) as host, fresh(settings, tmp_path) as context:
        found = with_input(context, host, soon())
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)


def test_a_file_that_comes_late_comes(context: WorkerContext) -> None:
    busy = Answer(503, headers=(("retry-after", "1"),))
    with file_server(lambda number: busy if number < 2 else Answer(200, b"input")) as host:
        assert with_input(context, host, LATER).digest == GOOD_DIGEST


def test_a_file_is_fetched_from_the_second_address_if_the_first_is_dead(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def two(host: str, port: int, *args: object, **options: object) -> list[object]:
        if host != "files.test":
            return list(resolve(host, port, *args, **options))  # type: ignore[arg-type] # passed on as given
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("127.0.0.99", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    with file_server(lambda _: Answer(200, b"input")) as host:
        assert with_input(context, f"files.test:{host.partition(':')[2]}", soon()).digest == GOOD_DIGEST


def test_a_dataset_that_is_spoilt_once_is_fetched_again(context: WorkerContext) -> None:
    with file_server(lambda number: Answer(200, b"spoilt" if number == 0 else b"dataset")) as host:
        dataset = Dataset(address="0x" + "ab" * 20, url=f"http://{host}/data", checksum=sha256(b"dataset"))
        assert done(context, GOOD, dataset=dataset).digest == GOOD_DIGEST
