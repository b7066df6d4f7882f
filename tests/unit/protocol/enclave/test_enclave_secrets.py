"""Names, keys and signed hashes of secrets at the secret service, against iExec's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.enclave.secrets import (
    MOST_VALUE_BYTES,
    STORE_NAME,
    SecretId,
    app_secret,
    dataset_key,
    requester_secret,
    require_value,
    storing_hash,
    wallet_secret,
)
from protocol.errors import BadMessage, TooLarge
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.poco.authorization import authorization_hash
from protocol.poco.enclave import challenge_request
from tests.unit.protocol import vectors

OWNER = vectors.WORKER_WALLET
DOMAIN = keccak(b"IEXEC_SMS_DOMAIN")
ADDRESSES = st.binary(min_size=20, max_size=20).map(to_hex)
NAMES = st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True)
SECRETS = st.one_of(
    ADDRESSES.map(dataset_key),
    ADDRESSES.map(app_secret),
    st.builds(requester_secret, ADDRESSES, NAMES),
    st.builds(wallet_secret, ADDRESSES, NAMES),
)


def test_the_documented_hash_to_store_a_token_is_ours() -> None:
    assert storing_hash(wallet_secret(OWNER, STORE_NAME), b"tok") == (
        "0x88083051ccbce6040eb2dd0fb9860eb6b66615451740b47ed320e5234c0623c2"
    )


def test_a_datasets_hash_has_no_part_for_a_name_and_an_apps_is_named_1() -> None:
    address = to_bytes(OWNER)
    assert storing_hash(dataset_key(OWNER), b"v") == to_hex(keccak(DOMAIN + address + keccak(b"v")))
    assert storing_hash(app_secret(OWNER), b"v") == to_hex(keccak(DOMAIN + address + keccak(b"1") + keccak(b"v")))


def test_the_case_of_an_address_makes_no_difference() -> None:
    mixed = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
    assert dataset_key(mixed) == dataset_key(mixed.lower())
    assert storing_hash(app_secret(mixed), b"v") == storing_hash(app_secret(mixed.lower()), b"v")


@given(one=SECRETS, other=SECRETS)
def test_different_secrets_have_different_keys(one: SecretId, other: SecretId) -> None:
    assert (one.key == other.key) == (one == other)


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "a/b", "a:b", "é", "a\n"])
def test_a_name_that_no_secret_may_have_is_refused(name: str) -> None:
    with pytest.raises(BadMessage, match="64 characters"):
        requester_secret(OWNER, name)
    with pytest.raises(BadMessage, match="64 characters"):
        wallet_secret(OWNER, name)


@pytest.mark.parametrize("address", ["", "0x", "0x1234", OWNER[2:], OWNER + "00", "0x" + "g" * 40])
def test_a_secret_belongs_to_an_address(address: str) -> None:
    for named in (dataset_key, app_secret):
        with pytest.raises(BadMessage):
            named(address)


def test_a_value_is_as_large_as_iexecs_own_service_takes() -> None:
    require_value(b"v" * MOST_VALUE_BYTES)
    with pytest.raises(TooLarge):
        require_value(b"v" * (MOST_VALUE_BYTES + 1))


@pytest.mark.parametrize("value", [b"", b"a\0b", b"\xff"])
def test_a_value_that_no_variable_can_hold_is_refused_without_being_repeated(value: bytes) -> None:
    with pytest.raises(BadMessage) as refused:
        require_value(value)
    assert "a\\0" not in str(refused.value)
    assert "xff" not in str(refused.value)


def test_a_challenge_is_asked_for_by_the_hash_of_the_task_alone() -> None:
    assert challenge_request(vectors.TASK) == to_hex(keccak(to_bytes(vectors.TASK)))
    assert challenge_request(vectors.TASK) != authorization_hash(vectors.WORKER_WALLET, vectors.TASK)
