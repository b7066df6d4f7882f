"""The port that signs, so that a key service can replace the key in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chain.lane.model.nonce import NO_WEI, TRANSFER_GAS, Attempt, Fees, Purpose
from protocol.ethereum.signing import Key
from protocol.ethereum.transaction import LegacyTransaction, Transaction, sign_transaction
from protocol.types import Contract, Nonce, Wallet, Wei


@dataclass(frozen=True, slots=True)
class Unsigned:
    """One transaction as the lane wants it."""

    chain_id: int
    nonce: Nonce
    to: Contract
    data: str
    gas: int
    fees: Fees
    value: Wei = NO_WEI
    purpose: Purpose = Purpose.CALL
    note: str = ""


class Signer(Protocol):
    """Signs for one wallet. If it raises, nothing was stored or sent and the nonce is still free."""

    @property
    def wallet(self) -> Wallet:
        """Address that the signed transactions are sent from."""

    def sign(self, unsigned: Sequence[Unsigned]) -> list[Attempt]:
        """A signed attempt for each transaction, in order."""


class KeySigner:
    """Signs with a key in memory."""

    def __init__(self, key: Key) -> None:
        self._key = key

    @property
    def wallet(self) -> Wallet:
        """Address of the key."""
        return self._key.wallet

    def sign(self, unsigned: Sequence[Unsigned]) -> list[Attempt]:
        """A signed attempt for each transaction, in order."""
        return [self._sign_one(item) for item in unsigned]

    def _sign_one(self, item: Unsigned) -> Attempt:
        """The signed attempt for one transaction."""
        raw, tx_hash = sign_transaction(self._key, _build_transaction(item))
        return Attempt(tx_hash, raw, item.fees, item.purpose, item.note, item.gas)


def to_self(
    wallet: Wallet,
    chain_id: int,
    nonce: Nonce,
    fees: Fees,
    purpose: Purpose,
    note: str,
    *,
    gas: int = TRANSFER_GAS,
) -> Unsigned:
    """An unsigned no-op transaction (0-value self-transfer): it spends the nonce and does nothing else."""
    return Unsigned(chain_id, nonce, Contract(wallet), "0x", gas, fees, purpose=purpose, note=note)


def _build_transaction(item: Unsigned) -> Transaction | LegacyTransaction:
    """The transaction to sign: legacy if the fees are, else EIP-1559."""
    if item.fees.legacy:
        return LegacyTransaction(
            chain_id=item.chain_id,
            nonce=item.nonce,
            to=item.to,
            data=item.data,
            value=item.value,
            gas=item.gas,
            gas_price=item.fees.max_fee,
        )
    return Transaction(
        chain_id=item.chain_id,
        nonce=item.nonce,
        to=item.to,
        data=item.data,
        value=item.value,
        gas=item.gas,
        max_fee_per_gas=item.fees.max_fee,
        max_priority_fee_per_gas=item.fees.tip,
    )
