"""A result of an enclave that a contract gets: the enclave signs the digest of its callback data."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.poco.enclave import recover_enclave
from protocol.results.digest import callback_digest
from protocol.results.error_result import Failure, cause_code
from protocol.types import Contract
from protocol.wire import ResultLink, Stored
from tests.unit.sms.world import TASK, WORKER
from tests.unit.workers.assignments import CHAIN_ID
from tests.unit.workers.enclave.machine import Bench
from workers.data import outputs
from workers.data.outputs import PackedResult
from workers.enclave import brought
from workers.task import steps, votes
from workers.task.replicate import ReplicateStage

CONTRACT, DATA = Contract("0x" + "cc" * 20), "0x" + "00" * 31 + "2a"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    made.callback, made.computed = CONTRACT, json.dumps({"callback-data": DATA})
    made.deal()
    yield made
    made.journal.close()


def test_its_vote_carries_the_data_and_the_enclaves_signature_of_their_digest(bench: Bench) -> None:
    found = bench.replicate()
    assert found.stage is ReplicateStage.COMPUTED, found.cause
    assert (found.callback_data, found.digest) == (DATA, callback_digest(DATA))
    assert found.attestation is not None
    signer = recover_enclave(found.attestation.signature, WORKER.wallet, TASK, found.attestation.digest)
    assert signer == found.assignment.enclave_challenge
    # The pool keeps the files too, in clear: what a contract gets is public.
    with zipfile.ZipFile(bench.layout.task(TASK).zip) as archive:
        assert sorted(archive.namelist()) == ["answer.txt", "computed.json"]
    stored = Stored(link=ResultLink(storage="ipfs", location="/ipfs/Qm"), digest=callback_digest(DATA))
    bench.context.pool = SimpleNamespace(put_result=lambda *_: stored)
    assert steps.upload(bench.context, TASK)
    found = bench.replicate()
    args = votes.contribute_and_finalize(found, CHAIN_ID, 1.0).args
    assert args["callback"] == DATA
    assert args["enclave_signature"] == found.enclave_signature


def test_an_app_that_leaves_no_data_for_the_contract_is_declined(bench: Bench) -> None:
    bench.computed = json.dumps({"deterministic-output-path": "/iexec_out/answer.txt"})
    found = bench.replicate()
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, Failure.COMPUTED_FILE)
    assert found.enclave_signature is None


def test_post_compute_that_signs_another_digest_than_that_of_the_data_is_not_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pack(*given: Any, **more: Any) -> PackedResult:
        other = json.dumps({"callback-data": "0x" + "11" * 32})
        (bench.layout.task(TASK).outputs / "computed.json").write_text(other)
        return outputs.pack(*given, **more)

    monkeypatch.setattr(brought, "outputs", SimpleNamespace(require_fit=outputs.require_fit, pack=pack))
    found = bench.replicate()
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, "MACHINE_FAILED")
    assert "its digest is" in (found.cause or "")
