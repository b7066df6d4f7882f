"""Sign-in challenges that need no memory until they are answered. Pure.

nonce (32 bytes) = expiry, Unix seconds (8, big-endian) ‖ random (8) ‖ HMAC-SHA256(key, wallet ‖ expiry ‖ random)[:16]

Anybody may ask for a challenge, so asking must not write anything. The tag proves that we made it, for that wallet;
only an answered one is remembered, until it expires, so that it works once.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from protocol.errors import NotSignedIn
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.signin import SignIn
from protocol.types import Contract, Hash32, Timestamp, Wallet

#: Seconds to answer: a person may have to unlock a wallet.
CHALLENGE_SECONDS = 300
RANDOM_BYTES = 8
_TAG_BYTES = 16


def issue_challenge(
    key: bytes, chain_id: int, workerpool: Contract, wallet: Wallet, *, now: float, random: bytes
) -> SignIn:
    """A fresh challenge for `wallet`. `random`: RANDOM_BYTES that nobody can guess."""
    expires_at = Timestamp(int(now) + CHALLENGE_SECONDS)
    head = expires_at.to_bytes(8, "big") + random
    return SignIn(chain_id, workerpool, wallet, Hash32(to_hex(head + _tag(key, wallet, head))), expires_at)


def reopen_challenge(
    keys: Iterable[bytes], chain_id: int, workerpool: Contract, wallet: Wallet, nonce: Hash32
) -> SignIn:
    """The challenge that `nonce` came with. `keys`: all that verify.

    Raises NotSignedIn unless we made it for `wallet`.
    """
    raw = to_bytes(nonce, 32)
    head, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
    if not any(hmac.compare_digest(tag, _tag(key, wallet, head)) for key in keys):
        raise NotSignedIn(why="the challenge is not one that this pool gave to that wallet")
    return SignIn(chain_id, workerpool, wallet, nonce, Timestamp(int.from_bytes(head[:8], "big")))


def _tag(key: bytes, wallet: Wallet, head: bytes) -> bytes:
    """The authentication code of a challenge for a wallet: only we can have made one that fits."""
    return hmac.new(key, wallet.encode() + head, hashlib.sha256).digest()[:_TAG_BYTES]
