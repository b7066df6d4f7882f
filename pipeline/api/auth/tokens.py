"""API tokens: JWT (HS256), one hour, the wallet as subject, the id of the key that signed it as `kid`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jwt

from protocol.errors import NotSignedIn
from protocol.types import Timestamp, Wallet

#: Seconds a token is valid; a worker then signs in again.
TOKEN_SECONDS = 3600
ALGORITHM = "HS256"
AUDIENCE = "sluice-worker"
#: Characters of an `Authorization` header at most: a token of ours has 300.
LONGEST_HEADER = 2000
#: What the library raises on malformed tokens; the last for deeply nested JSON.
_UNREADABLE = (jwt.InvalidTokenError, RecursionError)


@dataclass(frozen=True, slots=True)
class Token:
    """What a valid token says. `issued_at`: Unix seconds, with a fraction."""

    wallet: Wallet
    issued_at: float


def issue_token(key_id: str, key: bytes, wallet: Wallet, now: float) -> tuple[str, Timestamp]:
    """A token for `wallet` and when it expires."""
    expires_at = Timestamp(int(now) + TOKEN_SECONDS)
    claims = {"sub": wallet, "aud": AUDIENCE, "iat": now, "exp": expires_at}
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": key_id}), expires_at


def read_token(keys: Mapping[str, bytes], authorization: str, now: float) -> Token:
    """What an `Authorization: Bearer …` header proves. `keys`: by id, all that verify. Raises NotSignedIn."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise NotSignedIn(why="the header Authorization: Bearer <token> is missing")
    if len(authorization) > LONGEST_HEADER:
        raise NotSignedIn(why="the token is not one of ours")
    claims = None
    for key in _candidates(keys, token):
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                # We check the time ourselves, against the clock that was passed in.
                options={"require": ["sub", "aud", "iat", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidTokenError as error:
            raise NotSignedIn(why="the token is not one of ours") from error
        break
    if claims is None:
        raise NotSignedIn(why="the token is not one of ours, or its key was replaced")
    match claims:
        case {"sub": str(wallet), "iat": int() | float() as issued_at, "exp": int() | float() as expires_at}:
            if now >= expires_at:
                raise NotSignedIn(why="the token has expired")
            return Token(Wallet(wallet), float(issued_at))
    raise NotSignedIn(why="the token is not one of ours")


def _candidates(keys: Mapping[str, bytes], token: str) -> list[bytes]:
    """Keys that may have signed it: the one it names; all for a token of a release that named none."""
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except _UNREADABLE as error:
        raise NotSignedIn(why="the token is not one of ours") from error
    if key_id is None:
        return list(keys.values())
    return [keys[key_id]] if isinstance(key_id, str) and key_id in keys else []
