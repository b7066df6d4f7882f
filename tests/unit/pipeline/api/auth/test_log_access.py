"""Signatures by which a requester reads its tasks' logs, in the SDK's form."""

from __future__ import annotations

import base64

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from pipeline.api.auth.log_access import WINDOW_SECONDS, LogDomain, log_challenge, log_reader
from protocol.errors import NotSignedIn
from protocol.ethereum.signing import Key
from protocol.types import Contract, Wallet

KEY = b"k" * 32
READER = Key(b"\x11" * 32)
POOL = LogDomain(134, Contract("0x" + "ac" * 20))
NOW = 1_800_000_000.0
HASH = "0x" + "00" * 32


def header(now: float = NOW, signer: Key = READER, wallet: str = READER.wallet) -> str:
    return f"{HASH}_{signer.sign_typed_data(log_challenge(KEY, POOL, Wallet(wallet), now))}_{wallet}"


def test_the_challenge_has_the_form_that_the_sdk_signs() -> None:
    data = log_challenge(KEY, POOL, READER.wallet, NOW)
    assert data["domain"] == {
        "name": "iExec Core",
        "version": "1",
        "chainId": 134,
        "verifyingContract": POOL.workerpool,
    }
    assert data["primaryType"] == "Challenge"
    assert len(base64.b64decode(str(data["message"]["challenge"]))) == 32


def test_a_signature_made_by_eth_account_over_the_whole_document_is_accepted() -> None:
    message = encode_typed_data(full_message=dict(log_challenge(KEY, POOL, READER.wallet, NOW)))
    signature = Account.from_key(b"\x11" * 32).sign_message(message).signature.to_0x_hex()
    assert log_reader([KEY], POOL, f"{HASH}_{signature}_{READER.wallet}", NOW) == READER.wallet


def test_an_address_in_mixed_case_is_the_same_reader() -> None:
    checksummed = Account.from_key(b"\x11" * 32).address
    authorization = header().replace(READER.wallet, checksummed)
    assert log_reader([KEY], POOL, authorization, NOW) == READER.wallet


def test_a_challenge_is_good_for_at_least_half_an_hour_and_less_than_one() -> None:
    assert log_reader([KEY], POOL, header(), NOW + WINDOW_SECONDS) == READER.wallet
    with pytest.raises(NotSignedIn):
        log_reader([KEY], POOL, header(), NOW + 2 * WINDOW_SECONDS)


def test_another_wallets_signature_is_refused() -> None:
    with pytest.raises(NotSignedIn):
        log_reader([KEY], POOL, header(signer=Key(b"\x22" * 32)), NOW)


def test_a_signature_for_another_pool_is_refused() -> None:
    with pytest.raises(NotSignedIn):
        log_reader([KEY], LogDomain(134, Contract("0x" + "ad" * 20)), header(), NOW)


def test_a_signature_over_a_challenge_of_an_older_key_is_good_while_that_key_verifies() -> None:
    assert log_reader([b"new" * 11, KEY], POOL, header(), NOW) == READER.wallet


def test_a_signature_for_another_chain_is_refused() -> None:
    with pytest.raises(NotSignedIn):
        log_reader([KEY], LogDomain(135, POOL.workerpool), header(), NOW)


@pytest.mark.parametrize(
    "authorization",
    ["", "nonsense", f"{HASH}_0x12_{READER.wallet}", f"{HASH}_0x{'00' * 65}_{READER.wallet}", f"Bearer {HASH}"],
)
def test_a_malformed_authorization_is_refused(authorization: str) -> None:
    with pytest.raises(NotSignedIn):
        log_reader([KEY], POOL, authorization, NOW)
