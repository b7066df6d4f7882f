from __future__ import annotations

import jwt
import pytest

from pipeline.api.auth.tokens import AUDIENCE, TOKEN_SECONDS, issue_token, token_wallet
from protocol.errors import NotSignedIn
from protocol.types import Wallet

KEY = b"k" * 32
WALLET = Wallet("0x" + "ab" * 20)
NOW = 1_800_000_000.5


def test_a_token_proves_its_wallet_until_it_expires() -> None:
    token, expires_at = issue_token(KEY, WALLET, NOW)
    assert expires_at == 1_800_000_000 + TOKEN_SECONDS
    assert token_wallet(KEY, f"Bearer {token}", expires_at - 1) == WALLET
    with pytest.raises(NotSignedIn, match="expired"):
        token_wallet(KEY, f"Bearer {token}", expires_at)


def test_a_token_of_another_key_is_refused() -> None:
    token, _ = issue_token(b"x" * 32, WALLET, NOW)
    with pytest.raises(NotSignedIn):
        token_wallet(KEY, f"Bearer {token}", NOW)


def test_a_token_without_signature_is_refused() -> None:
    claims = {"sub": WALLET, "aud": AUDIENCE, "iat": 0, "exp": 2**40}
    token = jwt.encode(claims, None, algorithm="none")
    with pytest.raises(NotSignedIn):
        token_wallet(KEY, f"Bearer {token}", NOW)


@pytest.mark.parametrize("missing", ["sub", "aud", "iat", "exp"])
def test_a_token_that_lacks_a_claim_is_refused(missing: str) -> None:
    claims = {"sub": WALLET, "aud": AUDIENCE, "iat": 0, "exp": 2**40}
    del claims[missing]
    with pytest.raises(NotSignedIn):
        token_wallet(KEY, f"Bearer {jwt.encode(claims, KEY, algorithm='HS256')}", NOW)


def test_a_token_for_another_audience_is_refused() -> None:
    claims = {"sub": WALLET, "aud": "somebody", "iat": 0, "exp": 2**40}
    with pytest.raises(NotSignedIn):
        token_wallet(KEY, f"Bearer {jwt.encode(claims, KEY, algorithm='HS256')}", NOW)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer a.b.c"])
def test_a_header_without_a_token_is_refused(header: str) -> None:
    with pytest.raises(NotSignedIn):
        token_wallet(KEY, header, NOW)
