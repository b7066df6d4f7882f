"""Keys, signatures and recovered signers, byte for byte as eth-account has them."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadInput, Refused
from protocol.ethereum.hexbytes import to_bytes, to_bytes_leniently, to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.signing import (
    Key,
    message_digest,
    recover_message_wallet,
    recover_typed_data_wallet,
    recover_wallet,
)
from protocol.ethereum.typed_data import TypedData, typed_data_digest
from protocol.types import Signature
from tests.unit.protocol import vectors

#: Order of secp256k1: the first number that is no private key.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECRETS = st.integers(1, ORDER - 1).map(lambda number: number.to_bytes(32, "big"))

LOG_CHALLENGE: TypedData = {
    "types": {
        "EIP712Domain": [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
        ],
        "Challenge": [{"name": "challenge", "type": "string"}],
    },
    "primaryType": "Challenge",
    "domain": {"name": "COMMON", "version": "1", "chainId": 15},
    "message": {"challenge": "challenge"},
}


def test_keys_have_the_wallets_of_the_documented_examples() -> None:
    assert vectors.WORKER.wallet == vectors.WORKER_WALLET
    assert vectors.POOL_OWNER.wallet == vectors.POOL_OWNER_WALLET
    assert vectors.ENCLAVE.wallet == vectors.ENCLAVE_WALLET


@pytest.mark.parametrize("text", ["11" * 32, "0x" + "11" * 32, "0x" + "11" * 32 + "\n"])
def test_a_key_is_read_from_hex_with_or_without_0x(text: str) -> None:
    assert Key.from_hex(text).wallet == vectors.WORKER_WALLET


@given(SECRETS, st.binary(max_size=200))
def test_messages_are_signed_byte_for_byte_like_eth_account(secret: bytes, message: bytes) -> None:
    key = Key(secret)
    signature = key.sign_message(message)
    assert signature == Account.sign_message(encode_defunct(message), secret).signature.to_0x_hex()
    assert recover_message_wallet(message, signature) == key.wallet


@given(SECRETS)
def test_typed_data_is_signed_byte_for_byte_like_eth_account(secret: bytes) -> None:
    key = Key(secret)
    signature = key.sign_typed_data(LOG_CHALLENGE)
    signed = Account.sign_message(encode_typed_data(full_message=dict(LOG_CHALLENGE)), secret)
    assert signature == signed.signature.to_0x_hex()
    assert recover_typed_data_wallet(LOG_CHALLENGE, signature) == key.wallet


def test_the_log_challenge_has_the_published_digest() -> None:
    digest = typed_data_digest(LOG_CHALLENGE)
    assert digest.hex() == "ea5ec041da81859f2c04a4876d5999ed8e66ad221b5b8699ca91f6814693a80e"


@pytest.mark.parametrize(
    ("secret", "challenge", "decoded", "signature"),
    [
        (
            "11" * 32,
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "aaec9fffafbfbfefdaffcf9fdfefefeffbfaeffdef7f",
            (
                "0x2bfdf7fb80f188c13b8a130f22a539bad66f2eb4ac90d062aac97f84903ea5e2"
                "06fd84e97ebb0a5a2076847df3fd8457ac2af81b7d765d720e1212c6516609461b"
            ),
        ),
        (
            "6dacd24b3d49d0c50c555aa728c60a57aa08beb363e3a90cce2e4e5d327c6ee2",
            "challenge",
            "0cfaefdffe",
            (
                "0x873c63aa363337dd2d5b3e7ca0659f62e1602116e199ba47bea3084fa8bad875"
                "2d054ba48a665448e87638a8228b666a20509425e7b7c411f9d3ed76e9db79da1b"
            ),
        ),
    ],
)
def test_a_raw_digest_is_signed_as_iexec_core_wants_it_at_login(
    secret: str, challenge: str, decoded: str, signature: str
) -> None:
    content = to_bytes_leniently(challenge)
    assert content.hex() == decoded
    key = Key.from_hex(secret)
    assert to_hex(key.sign_digest(keccak(content))) == signature
    assert recover_wallet(keccak(content), Signature(signature)) == key.wallet


def test_a_key_shows_its_bytes_neither_in_its_repr_nor_among_its_attributes() -> None:
    key = Key(b"\x11" * 32)
    assert repr(key) == str(key) == f"{key}" == f"Key({vectors.WORKER_WALLET})"
    assert not hasattr(key, "__dict__")


def test_a_key_is_neither_pickled_nor_copied() -> None:
    key = Key(b"\x11" * 32)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(Refused):
            pickle.dumps(key, protocol)
    with pytest.raises(Refused):
        copy.copy(key)
    with pytest.raises(Refused):
        copy.deepcopy([key])


@pytest.mark.parametrize(
    "secret", [b"", b"\xab" * 31, b"\xab" * 33, bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32]
)
def test_bytes_that_are_no_private_key_are_refused_without_being_quoted(secret: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        Key(secret)
    shown = "".join(traceback.format_exception(caught.value))
    assert not secret or (secret.hex() not in shown and repr(secret) not in shown)


def test_text_that_is_no_private_key_is_refused_without_being_quoted() -> None:
    passphrase = " ".join(("correct", "horse", "battery", "staple"))
    with pytest.raises(BadInput) as caught:
        Key.from_hex(passphrase)
    assert passphrase not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(64),
        bytes(65),
        bytes(64) + b"\x1b",
        b"\xff" * 64 + b"\x1b",
        vectors.WORKER.sign_digest(bytes(32))[:64] + b"\x00",
        vectors.WORKER.sign_digest(bytes(32))[:64] + b"\x1d",
        vectors.WORKER.sign_digest(bytes(32)) + b"\x00",
    ],
)
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(Refused):
        recover_wallet(bytes(32), signature)


@given(st.binary(min_size=65, max_size=65))
def test_random_bytes_never_recover_to_a_chosen_wallet(signature: bytes) -> None:
    try:
        assert recover_wallet(message_digest(b"hello"), signature) != vectors.WORKER_WALLET
    except Refused as refusal:
        assert "signature" in str(refusal)


def test_a_signature_of_other_bytes_recovers_to_another_wallet() -> None:
    signature = vectors.WORKER.sign_message(b"mine")
    assert recover_message_wallet(b"yours", signature) != vectors.WORKER_WALLET


def test_hex_and_bytes_are_two_ways_to_hand_over_a_signature() -> None:
    digest = keccak(b"x")
    raw = vectors.WORKER.sign_digest(digest)
    assert recover_wallet(digest, raw) == recover_wallet(digest, Signature(to_hex(raw))) == vectors.WORKER_WALLET
    assert to_bytes(to_hex(raw), 65) == raw
