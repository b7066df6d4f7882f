"""API tokens: JWT (HS256), one hour, the wallet as subject. Pure."""

from __future__ import annotations

import jwt

from protocol.errors import NotSignedIn
from protocol.types import Timestamp, Wallet

#: Seconds a token is valid; a worker then signs in again.
TOKEN_SECONDS = 3600
ALGORITHM = "HS256"
AUDIENCE = "sluice-worker"


def issue_token(key: bytes, wallet: Wallet, now: float) -> tuple[str, Timestamp]:
    """A token for `wallet` and when it expires."""
    expires_at = Timestamp(int(now) + TOKEN_SECONDS)
    claims = {"sub": wallet, "aud": AUDIENCE, "iat": int(now), "exp": expires_at}
    return jwt.encode(claims, key, algorithm=ALGORITHM), expires_at


def token_wallet(key: bytes, authorization: str, now: float) -> Wallet:
    """Whose token an `Authorization: Bearer …` header carries. Raises NotSignedIn."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotSignedIn(why="the header Authorization: Bearer <token> is missing")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            # We check the time ourselves, against the clock that was passed in.
            options={"require": ["sub", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError as error:
        raise NotSignedIn(why="the token is not one of ours") from error
    if now >= claims["exp"]:
        raise NotSignedIn(why="the token has expired")
    return Wallet(claims["sub"])
