"""Private keys and what they sign: raw digests, EIP-191 messages, EIP-712 typed data.

libsecp256k1 through coincurve, without eth_account between: RFC 6979 nonces and low s as there, so the bytes are equal,
but ten times as fast. Every signature is r ‖ s ‖ v with v 27 or 28; PoCo reverts on 0 and 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, final

from coincurve import PrivateKey, PublicKey

from protocol.errors import BadInput, Refused
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.library import load_eth_account
from protocol.ethereum.typed_data import TypedData, typed_data_digest
from protocol.types import Signature, Wallet

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

#: v of the first recovery id (yellow paper, appendix F).
_V_OFFSET = 27


@final
class Key:
    """A wallet's private key. It signs and names its wallet; it never shows its bytes."""

    __slots__ = ("_private", "wallet")

    #: The key's address, lower case.
    wallet: Wallet

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise BadInput(what="A private key is exactly 32 bytes long.")
        try:
            self._private = PrivateKey(secret)
        except ValueError:
            # `from None`: the cause could quote the bytes.
            raise BadInput(what="A private key must be above zero and below the order of secp256k1.") from None
        self.wallet = _address_of(self._private.public_key)

    @classmethod
    def from_hex(cls, text: str) -> Key:
        """The key written as 64 hex digits, with or without `0x`, white space around it allowed."""
        try:
            secret = bytes.fromhex(text.strip().removeprefix("0x"))
        except ValueError:
            raise BadInput(what="A private key is written as 64 hex digits.") from None
        return cls(secret)

    def sign_digest(self, digest: bytes) -> bytes:
        """The 65-byte signature of exactly these 32 bytes, no prefix."""
        signature = self._private.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes((signature[64] + _V_OFFSET,))

    def sign_message(self, message: bytes) -> Signature:
        """The EIP-191 `personal_sign` signature of `message`."""
        return Signature(to_hex(self.sign_digest(message_digest(message))))

    def sign_typed_data(self, data: TypedData) -> Signature:
        """EIP-712 signature of `data`; BadMessage if its types are broken."""
        return Signature(to_hex(self.sign_digest(typed_data_digest(data))))

    def account(self) -> LocalAccount:
        """The same key as eth-account's signer, which web3.py's signing middleware takes."""
        # Loaded on first use: only those who send by web3.py need it.
        account: LocalAccount = load_eth_account().Account.from_key(self._private.secret)
        return account

    def __repr__(self) -> str:
        return f"Key({self.wallet})"

    def __reduce__(self) -> NoReturn:
        raise Refused(why="a private key is never pickled or copied")


def message_digest(message: bytes) -> bytes:
    """The 32 bytes that EIP-191 `personal_sign` signs for `message`."""
    return keccak(b"\x19Ethereum Signed Message:\n%d%b" % (len(message), message))


def recover_wallet(digest: bytes, signature: Signature | bytes) -> Wallet:
    """The wallet that signed these 32 bytes. Raises Refused for a malformed signature."""
    raw = signature if isinstance(signature, bytes) else to_bytes(signature)
    if len(raw) != 65 or raw[64] not in (_V_OFFSET, _V_OFFSET + 1):
        raise Refused(why="a signature is 65 bytes and ends with 27 or 28")
    try:
        public = PublicKey.from_signature_and_message(raw[:64] + bytes((raw[64] - _V_OFFSET,)), digest, hasher=None)
    except ValueError as error:
        raise Refused(why="the signature fits no public key") from error
    return _address_of(public)


def recover_message_wallet(message: bytes, signature: Signature) -> Wallet:
    """The wallet that signed `message` with EIP-191 `personal_sign`. Raises Refused for a malformed signature."""
    return recover_wallet(message_digest(message), signature)


def recover_typed_data_wallet(data: TypedData, signature: Signature) -> Wallet:
    """The wallet that signed `data` with EIP-712. Raises Refused for a malformed signature."""
    return recover_wallet(typed_data_digest(data), signature)


def _address_of(public: PublicKey) -> Wallet:
    """The address that belongs to a public key."""
    return Wallet(to_hex(keccak(public.format(compressed=False)[1:])[12:]))
