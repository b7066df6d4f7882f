"""Signatures of enclaves over results and sessions, against iExec's documented ones."""

from __future__ import annotations

from protocol.poco.enclave import enclave_message, recover_enclave, session_message, sign_result
from protocol.types import Hash32
from tests.unit.protocol import vectors

SUBJECT = (vectors.WORKER_WALLET, vectors.TASK, vectors.DIGEST)


def test_the_documented_result_is_vouched_for_by_the_enclave() -> None:
    assert enclave_message(*SUBJECT) == "0xad1795157de71d3b334329b154f308f635d2a4c3d8304c167900ec4e55ca0cf7"
    assert sign_result(vectors.ENCLAVE, *SUBJECT) == (
        "0x8970e0d57f729c3344cf25a673d741360e6be083d85cbb6796a12d1470b54699"
        "605e5f77ba1545b2daed129bb591eeb9a8542e906ee487ddb2a0aa72f3f0b1251b"
    )


def test_an_enclaves_signature_recovers_to_its_challenge_address_for_that_digest_only() -> None:
    signature = sign_result(vectors.ENCLAVE, *SUBJECT)
    other = Hash32("0x" + "00" * 32)
    assert recover_enclave(signature, *SUBJECT) == vectors.ENCLAVE_WALLET
    assert recover_enclave(signature, vectors.WORKER_WALLET, vectors.TASK, other) != vectors.ENCLAVE_WALLET


def test_the_documented_session_message_is_ours() -> None:
    assert session_message(vectors.WORKER_WALLET, vectors.TASK) == (
        "0x3f22cd902dc28923780d47acac97a1bf4bbe7b46b1a0b52d7ae0a68cb145ad93"
    )
