"""API tokens of machines: whom they prove, until when, and what is refused."""

from __future__ import annotations

import base64
import hmac
import json
from contextlib import suppress

import jwt
import pytest

from pipeline.api.auth.tokens import AUDIENCE, TOKEN_SECONDS, Token, issue_token, read_token
from protocol.errors import NotSignedIn
from protocol.types import Wallet

KEY = b"k" * 32
KEYS = {"a": KEY, "old": b"o" * 32}
WALLET = Wallet("0x" + "ab" * 20)
NOW = 1_800_000_000.5


def test_a_token_proves_its_wallet_until_it_expires() -> None:
    token, expires_at = issue_token("a", KEY, WALLET, NOW)
    assert expires_at == 1_800_000_000 + TOKEN_SECONDS
    assert read_token(KEYS, f"Bearer {token}", expires_at - 1) == Token(WALLET, NOW)
    with pytest.raises(NotSignedIn, match="expired"):
        read_token(KEYS, f"Bearer {token}", expires_at)


def test_a_token_of_another_key_is_refused() -> None:
    token, _ = issue_token("a", b"x" * 32, WALLET, NOW)
    with pytest.raises(NotSignedIn):
        read_token(KEYS, f"Bearer {token}", NOW)


def test_a_token_without_signature_is_refused() -> None:
    claims = {"sub": WALLET, "aud": AUDIENCE, "iat": 0, "exp": 2**40}
    token = jwt.encode(claims, "", algorithm="none")
    with pytest.raises(NotSignedIn):
        read_token(KEYS, f"Bearer {token}", NOW)


@pytest.mark.parametrize("missing", ["sub", "aud", "iat", "exp"])
def test_a_token_that_lacks_a_claim_is_refused(missing: str) -> None:
    claims = {"sub": WALLET, "aud": AUDIENCE, "iat": 0, "exp": 2**40}
    del claims[missing]
    with pytest.raises(NotSignedIn):
        read_token(KEYS, f"Bearer {jwt.encode(claims, KEY, algorithm='HS256')}", NOW)


def test_a_token_for_another_audience_is_refused() -> None:
    claims = {"sub": WALLET, "aud": "somebody", "iat": 0, "exp": 2**40}
    with pytest.raises(NotSignedIn):
        read_token(KEYS, f"Bearer {jwt.encode(claims, KEY, algorithm='HS256')}", NOW)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a.b.c"])
def test_a_header_without_a_token_is_refused(header: str) -> None:
    with pytest.raises(NotSignedIn):
        read_token(KEYS, header, NOW)


def test_a_token_of_a_key_that_still_verifies_is_good_and_of_one_that_was_dropped_is_not() -> None:
    token, _ = issue_token("old", KEYS["old"], WALLET, NOW)
    assert read_token(KEYS, f"Bearer {token}", NOW).wallet == WALLET
    with pytest.raises(NotSignedIn, match="replaced"):
        read_token({"a": KEY}, f"Bearer {token}", NOW)


def test_a_token_that_names_another_key_than_it_was_signed_with_is_refused() -> None:
    token, _ = issue_token("a", KEYS["old"], WALLET, NOW)
    with pytest.raises(NotSignedIn):
        read_token(KEYS, f"Bearer {token}", NOW)


def test_a_token_of_the_release_before_which_names_no_key_is_good() -> None:
    claims = {"sub": WALLET, "aud": AUDIENCE, "iat": int(NOW), "exp": int(NOW) + 60}
    token = jwt.encode(claims, KEYS["old"], algorithm="HS256")
    assert read_token(KEYS, f"Bearer {token}", NOW) == Token(WALLET, int(NOW))


@pytest.mark.parametrize("key_id", [None, 7, ["a"], {"a": 1}, "nobody", "../a", "a" * 10_000])
def test_a_token_with_any_key_id_at_all_is_refused_and_not_a_crash(key_id: object) -> None:
    claims = {"sub": WALLET, "aud": AUDIENCE, "iat": 0, "exp": 2**40}
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": key_id}).encode()).rstrip(b"=").decode()
    body = jwt.encode(claims, b"x" * 32, algorithm="HS256").split(".", 1)[1]
    with pytest.raises(NotSignedIn):
        read_token(KEYS, f"Bearer {header}.{body}", NOW)


@pytest.mark.parametrize("claim", ["sub", "iat", "exp", "aud"])
@pytest.mark.parametrize("value", [None, [], {}, "x", -1, 2**70, 1e300, True])
def test_a_token_of_our_own_key_with_any_claims_is_read_or_refused_and_not_a_crash(claim: str, value: object) -> None:
    claims = {"sub": WALLET, "aud": AUDIENCE, "iat": 0, "exp": 2**40} | {claim: value}
    token = _signed(claims)
    with suppress(NotSignedIn):
        read_token(KEYS, f"Bearer {token}", NOW)


def _signed(claims: dict[str, object]) -> str:
    """A JWT with any claims: the library refuses to encode some of them."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    signed = f"{part(json.dumps({'alg': 'HS256'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(KEY, signed.encode(), 'sha256'))}"


def test_a_token_of_nested_brackets_is_refused_and_not_a_crash() -> None:
    for content in (b"[" * 1400, b'{"kid":' + b"[" * 1300):
        head = base64.urlsafe_b64encode(content).rstrip(b"=").decode()
        with pytest.raises(NotSignedIn):
            read_token(KEYS, f"Bearer {head}.e30.e30", NOW)
