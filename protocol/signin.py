"""How a wallet proves itself to a pool's API: one EIP-712 message that is good for nothing else.

The domain names the chain and the workerpool, so that a challenge of one pool cannot be answered for another; the
type is our own, so that an API which lies cannot obtain the signature of an order or of a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.errors import BadMessage, Refused
from protocol.ethereum.signing import Key, recover_typed_data_wallet
from protocol.ethereum.typed_data import Member, TypedData
from protocol.types import Contract, Hash32, Signature, Timestamp, Wallet

DOMAIN_NAME = "Sluice"
DOMAIN_VERSION = "1"

_TYPES: Mapping[str, list[Member]] = {
    "EIP712Domain": [
        {"name": "name", "type": "string"},
        {"name": "version", "type": "string"},
        {"name": "chainId", "type": "uint256"},
        {"name": "verifyingContract", "type": "address"},
    ],
    "SignIn": [
        {"name": "wallet", "type": "address"},
        {"name": "nonce", "type": "bytes32"},
        {"name": "expiresAt", "type": "uint256"},
    ],
}


@dataclass(frozen=True, slots=True)
class SignIn:
    """One challenge: `nonce` is the API's random 32 bytes, `expires_at` Unix seconds."""

    chain_id: int
    workerpool: Contract
    wallet: Wallet
    nonce: Hash32
    expires_at: Timestamp

    @property
    def typed_data(self) -> TypedData:
        """The challenge as JSON, as any Ethereum wallet shows and signs it."""
        return {
            "types": {name: [Member(**member) for member in members] for name, members in _TYPES.items()},
            "primaryType": "SignIn",
            "domain": {
                "name": DOMAIN_NAME,
                "version": DOMAIN_VERSION,
                "chainId": self.chain_id,
                "verifyingContract": self.workerpool,
            },
            "message": {"wallet": self.wallet, "nonce": self.nonce, "expiresAt": self.expires_at},
        }

    @classmethod
    def from_typed_data(cls, data: Mapping[str, object]) -> SignIn:
        """The challenge in an API's answer. Raises BadMessage unless it is exactly a sign-in and nothing more."""
        match data:
            case {
                "domain": {"chainId": int(chain_id), "verifyingContract": str(workerpool)},
                "message": {"wallet": str(wallet), "nonce": str(nonce), "expiresAt": int(expires_at)},
            }:
                challenge = cls(chain_id, Contract(workerpool), Wallet(wallet), Hash32(nonce), Timestamp(expires_at))
                if challenge.typed_data == data:
                    return challenge
        raise BadMessage(why="the sign-in challenge asks to sign something else than a sign-in")

    def sign(self, key: Key) -> Signature:
        """The wallet's signature of the challenge. Raises Refused if the challenge is for another wallet."""
        if key.wallet != self.wallet:
            raise Refused(why=f"the challenge is for {self.wallet}, not for {key.wallet}")
        return key.sign_typed_data(self.typed_data)

    def check(self, signature: Signature, now: float) -> None:
        """Raise Refused unless the challenge's own wallet signed it before its expiry. Called by the API at login."""
        if now >= self.expires_at:
            raise Refused(why="the sign-in challenge has expired")
        if recover_typed_data_wallet(self.typed_data, signature) != self.wallet:
            raise Refused(why=f"the sign-in challenge was not signed by {self.wallet}")
