"""How a requester proves itself to read its app's logs: the iExec SDK's typed challenge (iexec-core.md §1.4). Pure.

GET /tasks/logs/challenge?address= ──► EIP-712 Challenge(string challenge)
GET /tasks/<id>/logs   Authorization: <hash>_<signature>_<address>

The challenge follows from the address and the half hour, so nothing is stored and every API process knows it: it is
good for 30 to 60 minutes. As with iExec Core it may be answered again in that time: the header carries nothing by which
a used one could be told from a fresh one, so the API belongs behind TLS. The hash part is not checked. The domain names
the workerpool, which iExec Core's does not: the SDK signs whatever domain it is given.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from protocol.errors import NotSignedIn, Refused
from protocol.ethereum.signing import recover_typed_data_wallet
from protocol.ethereum.typed_data import Member, TypedData
from protocol.types import Contract, Signature, Wallet

#: Seconds of one window; this one's and the former one's challenge are good.
WINDOW_SECONDS = 1800
DOMAIN_NAME, DOMAIN_VERSION = "iExec Core", "1"
_AUTHORIZATION = re.compile(r"^0x[0-9a-fA-F]{64}_(0x[0-9a-fA-F]{130})_(0x[0-9a-fA-F]{40})$")


@dataclass(frozen=True, slots=True)
class LogDomain:
    """The pool that a challenge is for, so that a signature is good for no other and the wallet shows which it is."""

    chain_id: int
    workerpool: Contract


def log_challenge(key: bytes, pool: LogDomain, wallet: Wallet, now: float) -> TypedData:
    """What `wallet` must sign to read logs, in the SDK's form."""
    return _typed_data(pool, _challenge(key, wallet, int(now) // WINDOW_SECONDS))


def log_reader(keys: Iterable[bytes], pool: LogDomain, authorization: str, now: float) -> Wallet:
    """Whose signature an SDK `Authorization` header carries. `keys`: all that verify. Raises NotSignedIn."""
    match = _AUTHORIZATION.match(authorization.strip())
    if match is None:
        raise NotSignedIn(why="the header Authorization: <hash>_<signature>_<address> is missing or malformed")
    signature, wallet = Signature(match[1].lower()), Wallet(match[2].lower())
    window = int(now) // WINDOW_SECONDS
    for challenge in (_challenge(key, wallet, which) for key in keys for which in (window, window - 1)):
        try:
            if recover_typed_data_wallet(_typed_data(pool, challenge), signature) == wallet:
                return wallet
        except Refused as error:
            raise NotSignedIn(why="the signature is not valid") from error
    raise NotSignedIn(why="the challenge was not signed by that address, or has expired")


def _challenge(key: bytes, wallet: Wallet, window: int) -> str:
    """Base64 of 32 bytes; never one that begins with 0x, which wallets would take for hex."""
    attempt = 0
    while True:
        content = f"{wallet}:{window}:{attempt}".encode()
        text = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        if not text.startswith("0x"):
            return text
        attempt += 1


def _typed_data(pool: LogDomain, challenge: str) -> TypedData:
    """The EIP-712 data that a requester signs to read logs, as the iExec SDK makes it."""
    return {
        "types": {
            "EIP712Domain": [
                Member(name="name", type="string"),
                Member(name="version", type="string"),
                Member(name="chainId", type="uint256"),
                Member(name="verifyingContract", type="address"),
            ],
            "Challenge": [Member(name="challenge", type="string")],
        },
        "primaryType": "Challenge",
        "domain": {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": pool.chain_id,
            "verifyingContract": pool.workerpool,
        },
        "message": {"challenge": challenge},
    }
