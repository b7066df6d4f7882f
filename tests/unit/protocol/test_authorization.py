"""Authorizations of workers for tasks, against iExec's documented and published ones."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import BadInput
from protocol.ethereum.signing import Key
from protocol.poco.authorization import authorization_hash, recover_authorization, sign_authorization
from protocol.types import Hash32, Signature, TaskId, Wallet
from tests.unit.protocol import vectors

ZERO_CHALLENGE_HASH = Hash32("0x1e49e673d6a40d549c460a9185aae4200e385b75ff5908e2b464cd165f4b102f")


@pytest.mark.parametrize("case", vectors.cases("authorization"))
def test_authorizations_are_those_of_iexec(case: dict[str, Any]) -> None:
    subject = (case["worker"], case["task"], case["enclave"])
    key = Key.from_hex(case["scheduler_key"])
    assert authorization_hash(*subject) == case["hash"]
    assert sign_authorization(key, *subject) == case["signature"]
    assert recover_authorization(case["signature"], *subject) == case["signer"] == key.wallet


def test_the_documented_authorization_is_signed_by_the_pools_owner() -> None:
    assert authorization_hash(vectors.WORKER_WALLET, vectors.TASK) == ZERO_CHALLENGE_HASH
    assert sign_authorization(vectors.POOL_OWNER, vectors.WORKER_WALLET, vectors.TASK) == (
        "0x042a912a014f3b97ab7e5ad2b2747e782ea4da845815c180517b93b0f95ce53f"
        "0fd3a214c8866eb49b93428f2b807629f33c37564786180752f361722f62890f1c"
    )


def test_the_documented_authorization_is_signed_by_the_worker_as_the_result_proxy_wants_it() -> None:
    assert sign_authorization(vectors.WORKER, vectors.WORKER_WALLET, vectors.TASK) == (
        "0xbf1ef80488b82fcf416d006786b38a36c68070fcdadb5beab141d37f419e65f4"
        "06599a0448c249449c45b7f090518b2407234ac2347da2cc1030895fad3bb1ee1c"
    )


def test_the_documented_authorization_with_an_enclave_has_its_own_hash() -> None:
    assert authorization_hash(vectors.WORKER_WALLET, vectors.TASK, vectors.ENCLAVE_WALLET) == (
        "0xb56ae1b1a6d94bf693033f595ec08471414aee27c99023f6cb11fca1d404c1ed"
    )


def test_a_published_authorization_recovers_to_its_signer() -> None:
    subject = (
        Wallet("0x748e091bf16048cb5103E0E10F9D5a8b7fBDd860"),
        TaskId("0xd94b63fc2d3ec4b96daf84b403bbafdc8c8517e8e2addd51fec0fa4e67801be8"),
        Wallet("0x9a43BB008b7A657e1936ebf5d8e28e5c5E021596"),
    )
    signature = Signature(
        "0x99f6b19da6aeb2133763a11204b9895c5b7d0478d08ae3d889a6bd6c820b612f"
        "0b64b1f9ceb8472f4944da55d3b75947a04618bae5ddd57a7a2a2d14c3802b7e1b"
    )
    assert authorization_hash(*subject) == "0x54a76d209e8167e1ffa3bde8e3e7b30068423ca9554e1d605d8ee8fd0f165562"
    assert recover_authorization(signature, *subject) == "0xef678007d18427e6022059dbc264f27507cd1ffc"


def test_an_authorization_is_good_for_one_wallet_and_one_task_only() -> None:
    signature = sign_authorization(vectors.POOL_OWNER, vectors.WORKER_WALLET, vectors.TASK)
    other_task = TaskId("0x" + "00" * 32)
    assert recover_authorization(signature, vectors.WORKER_WALLET, vectors.TASK) == vectors.POOL_OWNER_WALLET
    assert recover_authorization(signature, vectors.ENCLAVE_WALLET, vectors.TASK) != vectors.POOL_OWNER_WALLET
    assert recover_authorization(signature, vectors.WORKER_WALLET, other_task) != vectors.POOL_OWNER_WALLET


def test_a_broken_signature_is_refused() -> None:
    with pytest.raises(BadInput):
        recover_authorization(Signature("0x1234"), vectors.WORKER_WALLET, vectors.TASK)
