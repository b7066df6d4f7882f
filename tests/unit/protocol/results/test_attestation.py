"""An enclave's word for a result, as it comes with an upload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocol.errors import BadMessage, Refused
from protocol.ethereum.signing import Key
from protocol.poco.enclave import sign_result
from protocol.results.attestation import Attestation
from protocol.types import Hash32, Signature, TaskId, Wallet

ENCLAVE, OTHER = Key.from_hex("0x" + "33" * 32), Key.from_hex("0x" + "44" * 32)
WALLET, TASK = Wallet("0x" + "aa" * 20), TaskId("0x" + "01" * 32)
DIGEST = Hash32("0x" + "ab" * 32)
ATTESTATION = Attestation(DIGEST, sign_result(ENCLAVE, WALLET, TASK, DIGEST))


def test_headers_are_read_back_as_they_were_written() -> None:
    assert Attestation.of(ATTESTATION.headers()) == ATTESTATION


@pytest.mark.parametrize("name", ["Result-Digest", "Enclave-Signature"])
@pytest.mark.parametrize("value", ["", "0x12", "ab" * 32])
def test_an_upload_without_one_of_the_headers_or_with_a_malformed_one_is_not_understood(name: str, value: str) -> None:
    with pytest.raises(BadMessage, match="Enclave-Signature"):
        Attestation.of(ATTESTATION.headers() | {name: value})


def test_the_challenges_key_answers_for_one_digest_of_one_wallet_and_task() -> None:
    ATTESTATION.require_by(ENCLAVE.wallet, WALLET, TASK)
    for attestation, wallet, task in (
        (replace(ATTESTATION, digest=Hash32("0x" + "ac" * 32)), WALLET, TASK),
        (ATTESTATION, Wallet("0x" + "ab" * 20), TASK),
        (ATTESTATION, WALLET, TaskId("0x" + "02" * 32)),
        (Attestation(DIGEST, sign_result(OTHER, WALLET, TASK, DIGEST)), WALLET, TASK),
    ):
        with pytest.raises(Refused, match="the task's challenge"):
            attestation.require_by(ENCLAVE.wallet, wallet, task)


def test_what_is_no_signature_is_refused() -> None:
    with pytest.raises(Refused):
        Attestation(DIGEST, Signature("0x" + "00" * 65)).require_by(ENCLAVE.wallet, WALLET, TASK)
