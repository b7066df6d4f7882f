"""What the worker takes from the programs around an app, and what a program's end says of its task."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.enclave.session import POST_COMPUTE, PRE_COMPUTE, Service
from protocol.errors import (
    BadInput,
    BadMessage,
    EngineUnavailable,
    NotSignedIn,
    Refused,
    TaskDeclined,
    TaskFailure,
    TooLarge,
)
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.enclave import session_message, sign_result
from protocol.results.error_result import EnclaveFailure, Failure
from protocol.types import ZERO_HASH, Hash32, TaskId
from tests.unit.sms.world import TASK, WORKER
from tests.unit.workers.enclave.programs import model
from workers.data.layout import Layout
from workers.enclave import images, surrounding
from workers.enclave.door import Door
from workers.sandbox import disk
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.images.image import ImageRules

CHALLENGE, OTHER = Key.from_hex("0x" + "33" * 32), Key.from_hex("0x" + "44" * 32)
DIGEST = Hash32("0x" + "5d" * 32)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    layout = Layout(tmp_path)
    layout.task(TASK).make()
    assignment = SimpleNamespace(
        task_id=TASK, wallet=WORKER.wallet, enclave_challenge=CHALLENGE.wallet, category_seconds=300
    )
    work: Any = SimpleNamespace(task_id=TASK, assignment=assignment, folders=layout.task(TASK))
    return Door(work, {"0xdataset": tmp_path / "dataset"}, most_bytes=100)


def signed(key: Key = CHALLENGE, task: TaskId = TASK) -> str:
    return key.sign_message(to_bytes(session_message(WORKER.wallet, task)))


def computed(digest: Hash32 = DIGEST, key: Key = CHALLENGE, task: TaskId = TASK) -> bytes:
    signature = sign_result(key, WORKER.wallet, TASK, digest)
    return json.dumps({"task-id": task, "result-digest": digest, "enclave-signature": signature}).encode()


def test_what_the_challenge_key_has_signed_is_taken(door: Door) -> None:
    door.take_result(signed(), computed())
    assert door.result is not None
    assert door.result.result_digest == DIGEST
    assert door.take_exit_causes(POST_COMPUTE, signed(), b'[{"cause": "A_CAUSE"}]')
    assert not door.take_exit_causes(POST_COMPUTE, signed(), b'[{"cause": "ANOTHER"}]')
    assert door.exit_causes[POST_COMPUTE].cause == "A_CAUSE"


@pytest.mark.parametrize("authorization", ["", "0x", "0x" + "00" * 65, signed(OTHER), signed(task=TaskId(DIGEST))])
def test_nothing_is_taken_from_who_has_not_the_challenge_key(door: Door, authorization: str) -> None:
    with pytest.raises(NotSignedIn):
        door.take_result(authorization, computed())
    with pytest.raises(NotSignedIn):
        door.take_exit_causes(PRE_COMPUTE, authorization, b'[{"cause": "A_CAUSE"}]')
    assert (door.result, door.exit_causes) == (None, {})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (computed(ZERO_HASH), NotSignedIn),
        (computed(key=OTHER), NotSignedIn),
        (computed(task=TaskId(DIGEST)), BadMessage),
        (b"{}", BadMessage),
    ],
    ids=["no digest", "another key", "another task", "nothing"],
)
def test_a_result_that_the_contract_would_refuse_is_refused_here(
    door: Door, body: bytes, error: type[BadInput]
) -> None:
    with pytest.raises(error):
        door.take_result(signed(), body)
    assert door.result is None


def test_the_first_result_counts(door: Door) -> None:
    door.take_result(signed(), computed())
    with pytest.raises(NotSignedIn):
        door.take_result(signed(), computed(Hash32("0x" + "6e" * 32)))
    assert door.result is not None
    assert door.result.result_digest == DIGEST


def test_a_program_that_is_run_again_is_heard_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what an attempt said whose end the engine did not see would count for the next."""
    work: Any = door.work
    work.deadline = SimpleNamespace(wait_before_retry=lambda *_: None)
    ends: list[ContainerExit | None] = [None, ContainerExit(0, False, False)]

    def run(*_: object) -> ContainerExit:
        assert door.take_exit_causes(POST_COMPUTE, signed(), b'[{"cause": "A_CAUSE"}]')
        door.take_result(signed(), computed())
        end = ends.pop(0)
        if end is None:
            raise EngineUnavailable(what="the engine", why="gone")
        return end

    monkeypatch.setattr(surrounding, "_run", run)
    host: Any = None
    surrounding.run(named(POST_COMPUTE), door.work, host, door)
    assert ends == []


def test_a_zip_is_taken_by_its_token_as_a_whole_or_not_at_all(door: Door) -> None:
    target = door.work.folders.zip
    for token, content, error in (("another", b"zip", NotSignedIn), (door.token, bytes(101), TooLarge)):
        with pytest.raises(error):
            door.take_zip(token, model(content))
        assert [path.name for path in target.parent.iterdir() if path.is_file()] == []
    door.take_zip(door.token, model(b"zip"))
    assert target.read_bytes() == b"zip"
    assert door.token not in repr(door)


def test_only_what_was_promised_is_served(door: Door) -> None:
    assert door.file("0xdataset").name == "dataset"
    for name in ("", "../journal.db", "0xother"):
        with pytest.raises(Refused):
            door.file(name)


@pytest.mark.parametrize(
    ("service", "ended", "told", "cause", "kind"),
    [
        (PRE_COMPUTE, ContainerExit(1, False, False), "PRE_COMPUTE_A", "PRE_COMPUTE_A", TaskDeclined),
        (PRE_COMPUTE, ContainerExit(1, False, False), None, "PRE_COMPUTE_FAILED_UNKNOWN_ISSUE", TaskDeclined),
        (POST_COMPUTE, ContainerExit(2, False, False), None, "POST_COMPUTE_EXIT_REPORTING_FAILED", TaskDeclined),
        (POST_COMPUTE, ContainerExit(3, False, False), None, "POST_COMPUTE_TASK_ID_MISSING", TaskDeclined),
        (POST_COMPUTE, ContainerExit(137, False, True), None, "POST_COMPUTE_FAILED_UNKNOWN_ISSUE", TaskDeclined),
        (POST_COMPUTE, ContainerExit(137, True, False), None, "MACHINE_FAILED", TaskDeclined),
        # This machine has fetched and checked them itself.
        (PRE_COMPUTE, ContainerExit(1, False, False), EnclaveFailure.DATASET_FILE, "MACHINE_FAILED", TaskDeclined),
        (PRE_COMPUTE, ContainerExit(1, False, False), EnclaveFailure.DATASET_CHECKSUM, "MACHINE_FAILED", TaskDeclined),
        (PRE_COMPUTE, ContainerExit(1, False, False), EnclaveFailure.INPUT_FILES, "MACHINE_FAILED", TaskDeclined),
        (POST_COMPUTE, ContainerExit(1, False, False), Failure.OUTPUT_ZIP, "MACHINE_FAILED", TaskDeclined),
        (POST_COMPUTE, ContainerExit(1, False, False), Failure.FILE_NAME, "MACHINE_FAILED", TaskDeclined),
        (
            PRE_COMPUTE,
            ContainerExit(1, False, False),
            EnclaveFailure.DATASET_KEY,
            EnclaveFailure.DATASET_KEY,
            TaskDeclined,
        ),
        # What every honest machine would say of the app, as without an enclave.
        (
            POST_COMPUTE,
            ContainerExit(1, False, False),
            "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND",
            "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND",
            TaskFailure,
        ),
    ],
    ids=[
        "told",
        "not told",
        "not heard",
        "no task",
        "no time",
        "no memory",
        "a dataset",
        "its bytes",
        "inputs",
        "a zip",
        "a name",
        "its key",
        "the app's",
    ],
)
def test_a_program_that_fails_has_the_cause_that_iexecs_worker_has_for_it(
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    ended: ContainerExit,
    told: str | None,
    cause: str,
    kind: type[TaskFailure],
) -> None:
    def run(*_: object) -> ContainerExit:
        if told is not None:
            door.take_exit_causes(service, signed(), json.dumps([{"cause": told, "message": "why"}]).encode())
        return ended

    monkeypatch.setattr(surrounding, "_run", run)
    host: Any = None
    with pytest.raises(TaskFailure) as failed:
        surrounding.run(named(service), door.work, host, door)
    assert (type(failed.value), failed.value.cause) == (kind, cause)


def named(service: str, **fields: str) -> Service:
    return Service(name=service, environment={}, **({"image_name": "", "fingerprint": ""} | fields))


def test_a_program_whose_engine_went_away_is_started_again_and_given_up_in_the_end(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[str] = []
    work: Any = door.work
    work.deadline = SimpleNamespace(wait_before_retry=lambda _, why: waits.append(why))

    def away(*_: object) -> ContainerExit:
        raise EngineUnavailable(what="the engine", why="gone")

    monkeypatch.setattr(surrounding, "_run", away)
    host: Any = None
    with pytest.raises(TaskDeclined) as failed:
        surrounding.run(named(PRE_COMPUTE), door.work, host, door)
    assert failed.value.cause == "MACHINE_FAILED"
    assert len(waits) == 4


def test_an_engine_that_is_away_for_a_moment_keeps_no_container_with_secrets_and_costs_no_task(door: Door) -> None:
    waits, removed = list[str](), list[str]()
    work: Any = door.work
    work.deadline = SimpleNamespace(wait_before_retry=lambda _, why: waits.append(why))

    def remove(name: str) -> None:
        if not waits:
            raise EngineUnavailable(what="the engine", why="starting")
        removed.append(name)

    host: Any = SimpleNamespace(engine=SimpleNamespace(remove=remove), worker_name="test")
    surrounding.clear(named(PRE_COMPUTE), work, host)
    assert len(waits) == 1
    assert [name.partition(TASK)[2] for name in removed] == ["-pre-compute", "-pre-compute-network"]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, ("sluice/pre-compute:1", "0x" + "0" * 64)),
        (
            {"image_name": "docker-regis.iex.ec/tee-worker-pre-compute:9", "fingerprint": "ab" * 32},
            ("docker-regis.iex.ec/tee-worker-pre-compute:9", "0x" + "ab" * 32),
        ),
        ({"image_name": "other:1", "fingerprint": "mrenclave|of|scone"}, ("other:1", "0x" + "0" * 64)),
    ],
    ids=["ours", "iExec's by its digest", "by its tag"],
)
def test_the_session_says_which_image_runs_and_ours_do_where_it_names_none(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], wanted: tuple[str, str]
) -> None:
    asked: list[Any] = []

    class Found:
        def __init__(self, *given: Any) -> None:
            asked.append(given)

        def known(self) -> str:
            return "on-the-engine"

    monkeypatch.setattr(images, "AppImage", Found)
    assignment = SimpleNamespace(model_copy=lambda update: SimpleNamespace(**update))
    work: Any = SimpleNamespace(assignment=assignment, task_id=TASK, layout=None, deadline=None)
    policy: Any = None
    rules = ImageRules(policy, frozenset({"kept:1"}))
    host: Any = SimpleNamespace(engine=SimpleNamespace(has_image=lambda _: True), images=rules)
    assert images.provide(named(PRE_COMPUTE, **fields), work, host) == "on-the-engine"
    ((_, _, given, found, _),) = asked
    assert (found.image, found.image_checksum) == wanted
    assert given.local == {"kept:1", *images.OWN.values()}


def test_an_image_that_another_program_has_removed_from_the_engine_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a timer that prunes, for example: else each task for an enclave would be declined from then on."""
    monkeypatch.setattr(
        images, "AppImage", lambda *_: SimpleNamespace(known=lambda: "gone", fetch=lambda: "fetched again")
    )
    assignment = SimpleNamespace(model_copy=lambda update: SimpleNamespace(**update))
    work: Any = SimpleNamespace(assignment=assignment, task_id=TASK, layout=None, deadline=None)
    policy: Any = None
    engine = SimpleNamespace(has_image=lambda _: False)
    host: Any = SimpleNamespace(engine=engine, images=ImageRules(policy, frozenset()))
    assert images.provide(named(PRE_COMPUTE, image_name="other:1"), work, host) == "fetched again"


@pytest.mark.parametrize("how", ["too much", "too many", "a full disk"])
def test_a_program_that_fills_the_disk_is_ended_and_says_nothing_of_the_task(
    door: Door, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folders, killed = door.work.folders, threading.Event()
    monkeypatch.setattr(disk, "CHECK_SECONDS", 0.01)
    match how:
        case "too much":
            monkeypatch.setattr(surrounding, "_SCRATCH_BYTES", 2**16)
        case "too many":
            monkeypatch.setattr(disk, "SCRATCH_ENTRIES", 0)
        case _:
            monkeypatch.setattr(disk, "free_share", lambda *_: 0.5)
    door.files.clear()
    (folders.inputs / "endless").write_bytes(bytes(2**20))
    engine = SimpleNamespace(
        data_folder=None,
        wait=lambda _, __: killed.wait(60),
        kill=lambda _: killed.set(),
        state=lambda _: SimpleNamespace(exit_code=137, out_of_memory=False),
    )
    work: Any = door.work
    work.layout, work.deadline = Layout(folders.root), SimpleNamespace(check=lambda: None)
    spec: Any = SimpleNamespace(inputs=str(folders.inputs), outputs=str(folders.outputs))
    host: Any = SimpleNamespace(engine=engine)
    with pytest.raises(TaskDeclined) as declined:
        surrounding._ended(spec, work, host, door, "container")
    assert declined.value.cause == "MACHINE_FAILED"
    assert killed.is_set()
