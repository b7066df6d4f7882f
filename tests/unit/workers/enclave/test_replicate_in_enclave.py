"""One replicate for an enclave, from its assignment to what is uploaded, without an engine: the real secret service is
in memory, and the app is a function.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pkgutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chain.contracts.hub import Dataset as ChainDataset
from protocol.enclave.cipher import decrypted, encrypted
from protocol.enclave.secrets import dataset_key
from protocol.enclave.session import Session, SessionPlace
from protocol.poco.enclave import recover_enclave
from protocol.results.digest import file_digest
from protocol.results.error_result import LOST_CHALLENGE, SESSION_UNKNOWN, EnclaveFailure, Failure, cause_code
from protocol.types import ZERO_ADDRESS, Contract, Hash32
from protocol.wire import ResultLink, Step, Stored
from tests.unit.sms import test_bulk
from tests.unit.sms.world import DATASET, OWNER, REQUESTER, RESULT_KEY, TASK, WORKER
from tests.unit.workers.assignments import CHAIN_ID
from tests.unit.workers.enclave.machine import (
    ANSWER,
    ANSWER_SHA256,
    CHECKSUM,
    DEVELOPERS,
    ENDED,
    KEY,
    REQUESTERS,
    ROWS,
    SEALED,
    Bench,
    beneficiary,
)
from workers.enclave import named_inputs
from workers.sandbox.engine.container_state import ContainerExit, ContainerState
from workers.sandbox.run_app import ENGINE_LOST
from workers.task import steps, votes
from workers.task.compute import compute
from workers.task.replicate import ReplicateStage


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.journal.close()


def test_the_app_gets_the_sessions_secrets_and_the_enclave_signs_the_digest(bench: Bench) -> None:
    found = bench.replicate()
    assert found.stage is ReplicateStage.COMPUTED, found.cause
    (environment,) = bench.environments
    assert environment["IEXEC_APP_DEVELOPER_SECRET"] == DEVELOPERS
    assert environment["IEXEC_REQUESTER_SECRET_1"] == REQUESTERS
    assert environment["IEXEC_DATASET_FILENAME"] == DATASET
    assert "SIGN_TEE_CHALLENGE_PRIVATE_KEY" not in environment
    assert found.digest == file_digest(ANSWER_SHA256)
    assert found.attestation is not None
    signer = recover_enclave(found.attestation.signature, WORKER.wallet, TASK, found.attestation.digest)
    assert signer == found.assignment.enclave_challenge
    with zipfile.ZipFile(bench.layout.task(TASK).zip) as archive:
        assert archive.read("answer.txt") == ANSWER


def test_what_the_lane_sends_and_the_pool_gets_carry_the_enclaves_signature(bench: Bench) -> None:
    bench.replicate()
    put: list[object] = []

    def put_result(*given: object) -> Stored:
        put.extend(given)
        return Stored(link=ResultLink(storage="ipfs", location="/ipfs/Qm"), digest=file_digest(ANSWER_SHA256))

    bench.context.pool = SimpleNamespace(put_result=put_result)
    assert steps.upload(bench.context, TASK)
    found = bench.journal.find(TASK)
    assert found is not None
    assert put[2] == found.attestation
    args = votes.contribute_and_finalize(found, CHAIN_ID, 1.0).args
    assert args["enclave_challenge"] == found.assignment.enclave_challenge
    assert args["enclave_signature"] == found.enclave_signature


def test_a_result_that_is_to_be_encrypted_is_in_clear_nowhere_and_opens_with_the_beneficiarys_key(bench: Bench) -> None:
    public = beneficiary().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    bench.wire.world.keep(REQUESTER, RESULT_KEY, base64.b64encode(public))
    bench.deal(iexec_result_encryption=True)
    found = bench.replicate()
    # Of the files in clear: what is on chain does not depend on the encryption.
    assert found.digest == file_digest(ANSWER_SHA256)
    with zipfile.ZipFile(bench.layout.task(TASK).zip) as archive:
        assert sorted(archive.namelist()) == ["aes-key.rsa", "iexec_out.zip.aes"]
        key = beneficiary().decrypt(archive.read("aes-key.rsa"), PKCS1v15())
        content = b"".join(decrypted([archive.read("iexec_out.zip.aes")], key))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("answer.txt") == ANSWER
    assert ANSWER not in bench.left()


def bulk(bench: Bench, *wrong: bytes) -> None:
    """Give the deal a bulk; the task's slice has three datasets, two of them with the same bytes. `wrong`: what is
    served in place of the last.
    """
    world, content = bench.wire.world, [ROWS, ROWS, b"others' rows"]
    keys = [bytes([number]) * 32 for number in (1, 1, 2)]
    bench.served, bench.opened = {}, {}
    for number, (rows, key) in enumerate(zip(content, keys, strict=True)):
        address, url = Contract(f"0xda{number:038x}"), f"/ipfs/{number}"
        sealed = b"".join(encrypted([rows], key, b"\x01" * 16))
        checksum = Hash32("0x" + hashlib.sha256(sealed).hexdigest())
        world.chain.owners[address] = OWNER.wallet
        world.chain.datasets[address] = ChainDataset(address, OWNER.wallet, "data", url, checksum)
        world.keep(OWNER, dataset_key(address), base64.b64encode(key))
        bench.served[url], bench.opened[address] = sealed, rows
    for served in wrong:
        bench.served["/ipfs/2"] = served
    test_bulk.deal(world, test_bulk.slice_of(*(test_bulk.order(Contract(address)) for address in bench.opened)))


def test_each_dataset_of_a_slice_is_decrypted_by_its_own_key_and_lies_under_its_address(bench: Bench) -> None:
    bulk(bench)
    found = bench.replicate()
    assert found.stage is ReplicateStage.COMPUTED, found.cause
    (environment,) = bench.environments
    assert environment["IEXEC_BULK_SLICE_SIZE"] == "3"
    assert [environment[f"IEXEC_DATASET_{number}_FILENAME"] for number in (1, 2, 3)] == [*bench.opened]
    assert ROWS[:40] not in bench.left()


def test_datasets_lie_under_the_names_of_the_session_also_in_capitals_as_iexecs_service_writes_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk(bench)
    bench.opened = {Contract(capitals(name)): rows for name, rows in bench.opened.items()}
    service = bench.machine.framework.service
    take = service.take_session

    def in_capitals(place: SessionPlace) -> Session:
        session: Session = take(place)
        services = [
            each.model_copy(
                update={
                    "environment": {
                        name: capitals(value) if name.endswith("_FILENAME") else value
                        for name, value in each.environment.items()
                    }
                }
            )
            for each in session.services
        ]
        return Session(name=session.name, services=tuple(services))

    monkeypatch.setattr(service, "take_session", in_capitals)
    found = bench.replicate()
    assert found.stage is ReplicateStage.COMPUTED, found.cause


def test_a_variable_that_no_program_can_have_is_declined_and_its_value_told_to_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = bench.machine.framework.service
    take = service.take_session

    def with_zero_byte(place: SessionPlace) -> Session:
        session: Session = take(place)
        for each in session.services:
            each.environment["OWN"] = f"{DEVELOPERS}\0LD_PRELOAD=/evil.so"
        return session

    monkeypatch.setattr(service, "take_session", with_zero_byte)
    cause = str(bench.replicate().cause)
    assert cause_code(cause) == SESSION_UNKNOWN
    assert DEVELOPERS not in cause
    assert bench.environments == []


def capitals(address: str) -> str:
    return "0x" + address[2:].upper()


def test_a_slice_of_which_one_dataset_has_other_bytes_is_declined_and_no_app_runs(bench: Bench) -> None:
    bulk(bench, b"x")
    assert cause_code(bench.replicate().cause) == EnclaveFailure.DATASET_CHECKSUM
    assert bench.environments == []


@pytest.mark.parametrize(
    "spoilt",
    [
        {"IEXEC_BULK_SLICE_SIZE": "2"},
        {"IEXEC_BULK_SLICE_SIZE": "many"},
        {"IEXEC_BULK_SLICE_SIZE": "9" * 18},
        {"IEXEC_BULK_SLICE_SIZE": "1", "IEXEC_DATASET_1_FILENAME": "../../etc/passwd"},
        {"IEXEC_BULK_SLICE_SIZE": "1", "IEXEC_DATASET_1_CHECKSUM": "../0x"},
    ],
    ids=["one too few", "no number", "more than memory has names for", "a path", "a path for a checksum"],
)
def test_a_session_that_names_no_sound_slice_is_declined_without_its_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, spoilt: dict[str, str]
) -> None:
    bulk(bench)
    names = {"FILENAME": DATASET, "URL": "/ipfs/Qm", "CHECKSUM": CHECKSUM, "KEY": "the-key"}
    variables = {f"IEXEC_DATASET_1_{part}": value for part, value in names.items()} | spoilt
    whole = named_inputs.datasets_of
    monkeypatch.setattr(named_inputs, "datasets_of", lambda task, _: whole(task, variables))
    cause = bench.replicate().cause or ""
    assert cause_code(cause) == "TEE_SESSION_GENERATION_UNKNOWN_ISSUE"
    assert not [value for value in (*spoilt.values(), "the-key") if len(value) > 4 and value in cause]


def test_nothing_secret_is_left_on_the_machine_or_reported(bench: Bench) -> None:
    bench.replicate()
    said = json.dumps([report.model_dump(mode="json") for report in bench.sent]).encode()
    for place in (bench.left(), said):
        for secret in (DEVELOPERS.encode(), REQUESTERS.encode(), base64.b64encode(KEY), ROWS[:40]):
            assert secret not in place
    # Encrypted as it came, for the deal's next task.
    assert SEALED in bench.left()


def malformed(bench: Bench) -> None:
    bench.wire.world.keep(REQUESTER, RESULT_KEY, b"no key")
    bench.deal(iexec_result_encryption=True)


def another_key(bench: Bench) -> None:
    rows = bench.wire.world.store.rows
    rows.pop(dataset_key(DATASET).key)
    bench.wire.world.keep(OWNER, dataset_key(DATASET), base64.b64encode(bytes(32)))


def no_key(bench: Bench) -> None:
    bench.wire.world.store.rows.pop(dataset_key(DATASET).key)


def other_bytes(bench: Bench) -> None:
    bench.served["/ipfs/Qm"] = SEALED + b"x"


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (no_key, EnclaveFailure.NO_DATASET_KEY),
        (another_key, EnclaveFailure.DATASET_KEY),
        (other_bytes, EnclaveFailure.DATASET_CHECKSUM),
        (malformed, EnclaveFailure.RESULT_KEY),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_what_any_enclave_would_meet_is_declined_with_the_workers_name_for_it_and_nothing_is_voted_for(
    bench: Bench, spoil: Callable[[Bench], None], cause: EnclaveFailure
) -> None:
    spoil(bench)
    found = bench.replicate()
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, cause)
    assert bench.sent[-1].step is Step.FAILED
    assert not bench.layout.task(TASK).zip.exists()


def test_an_app_that_leaves_no_result_gets_no_error_result_that_an_enclave_would_have_to_sign(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(app: Any, *, resumed: bool) -> ContainerExit:
        app.created("container")
        return ContainerExit(1, False, resumed)

    monkeypatch.setattr("workers.sandbox.run_app.run_app", fails)
    found = bench.replicate()
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, Failure.APP)
    assert found.enclave_signature is None


def test_a_machine_without_enclaves_declines_what_it_should_not_have_been_given(bench: Bench) -> None:
    bench.machine.framework, bench.machine.tag = None, Hash32("0x" + "0" * 64)
    assert cause_code(bench.replicate().cause) == "TEE_NOT_SUPPORTED"
    assert bench.environments == []


def test_a_session_for_another_challenge_signs_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature would be refused by the contract, after gas was paid."""
    framework = bench.machine.framework

    def enter(work: Any, host: Any) -> Any:
        entered = framework.enter(work, host)
        other = work.assignment.model_copy(update={"enclave_challenge": ZERO_ADDRESS})
        return replace(entered, work=replace(work, assignment=other))

    bench.machine.framework = SimpleNamespace(enter=enter)
    assert cause_code(bench.replicate().cause) == "ENCLAVE_SIGNATURE_NOT_FOUND"


def test_a_task_whose_challenge_the_service_lost_fails_here_and_begins_anew_with_another(bench: Bench) -> None:
    lost = bench.assignment()
    world = bench.wire.world
    world.store.rows.pop(f"challenge:{TASK}")
    assert not compute(bench.context, lost)
    found = bench.journal.find(TASK)
    assert found is not None
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, LOST_CHALLENGE)
    # The same again is told how it ended; another pool's word begins nothing.
    assert not compute(bench.context, lost)
    assert bench.sent[-1].step is Step.FAILED
    forged = bench.assignment().model_copy(update={"signature": lost.signature})
    assert not compute(bench.context, forged)
    assert bench.journal.find(TASK) == found

    assert compute(bench.context, bench.assignment())
    again = bench.journal.find(TASK)
    assert again is not None
    assert again.stage is ReplicateStage.COMPUTED, again.cause
    assert again.assignment.enclave_challenge != found.assignment.enclave_challenge


class Killed(BaseException):
    """As `kill -9`: nothing runs after it."""


MOMENTS = [
    "workers.enclave.sms_api.SmsApi.open_session",
    "workers.enclave.sms_api.SmsApi.take_session",
    "workers.enclave.named_inputs.fetched_at",
    "tests.unit.workers.enclave.programs.fetch",
    "workers.sandbox.run_app.run_app",
    "tests.unit.workers.enclave.programs.seal",
    "workers.enclave.door.Door.take_zip",
    "workers.enclave.door.Door.take_result",
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda given: given.rpartition(".")[2])
def test_a_machine_that_is_killed_at_any_step_asks_for_another_session_and_ends_with_the_same_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, moment: str, after: bool
) -> None:
    public = beneficiary().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    bench.wire.world.keep(REQUESTER, RESULT_KEY, base64.b64encode(public))
    bench.deal(iexec_result_encryption=True)
    whole = pkgutil.resolve_name(moment)

    def killed(*given: Any, **more: Any) -> Any:
        if after:
            whole(*given, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(moment, killed)
        with pytest.raises(Killed):
            bench.replicate()
    assert bench.journal.find(TASK).stage in {ReplicateStage.TAKEN, ReplicateStage.RUNNING}  # type: ignore[union-attr]
    found = bench.replicate()
    assert found.stage is ReplicateStage.COMPUTED, found.cause
    assert found.digest == file_digest(ANSWER_SHA256)
    assert ROWS[:40] not in bench.left()
    assert ANSWER not in bench.left()


@pytest.mark.parametrize(
    ("container", "stage"),
    [
        (ENDED, ReplicateStage.COMPUTED),
        (replace(ENDED, exit_code=ENGINE_LOST), ReplicateStage.FAILED),
        (replace(ENDED, status="created"), ReplicateStage.FAILED),
    ],
    ids=["ended", "lost with the engine", "never started"],
)
def test_a_machine_whose_app_has_ended_before_asks_for_a_session_as_long_as_there_is_time_for_the_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, container: ContainerState, stage: ReplicateStage
) -> None:
    """Three minutes before the deadline."""
    bench.container = container
    bench.wire.api.store_token()
    deadline = int(time.time()) + 180
    given = {"contribution_deadline": deadline, "category_seconds": 3600}
    monkeypatch.setattr("workers.enclave.ask.backoff", lambda _: 0.0)

    def killed(app: Any, *, resumed: bool) -> None:
        bench._run(app, resumed=resumed)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("workers.sandbox.run_app.run_app", killed)
        with pytest.raises(Killed):
            bench.replicate(**given)
    bench.wire.instead = [503]
    assert bench.replicate(**given).stage is stage
