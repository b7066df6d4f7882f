"""The books of the scheduler's wallet: how far they are read, and whether they add up. Pure.

    opening ──movements, stored──► account at `block` ──movements above final depth, read live──► account at the head
                                        │                                                              │
                                        └───────────── equal to the hub's own account? ────────────────┘

What is stored is final, so a reorganisation above that depth changes none of it. The same for the native token: balance
at a mark, minus what the lane's transactions since then cost, is the balance now; the rest came from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.domain.money.gas import NonceCost, spent_and_moved
from protocol.poco.money import EVEN, Balances, Movement
from protocol.types import BlockNumber, Nonce, Wei

#: Seconds after which blocks whose movements do not add up are read again: a node may have left logs out.
REREAD_SECONDS = 3600.0
#: Wei of one nRLC where the native token is RLC (IexecEscrowNativeFacet).
WEI_PER_NRLC = 10**9


@dataclass(frozen=True, slots=True)
class Mark:
    """Native token that the wallet has after a block, and its account nonce there."""

    block: BlockNumber
    balance: Wei
    count: Nonce


@dataclass(frozen=True, slots=True)
class Outside:
    """Native token that came or went between two marks without the lane: `wei` more than it accounts for."""

    after: BlockNumber
    until: BlockNumber
    wei: int
    #: Transactions of the wallet that the lane did not send.
    foreign: int
    #: Hashes of the transactions that did it, as far as they are known; `explained`: they account for every wei.
    transactions: tuple[str, ...] = ()
    explained: bool = False
    #: The operator has accepted it as known.
    accepted: bool = False

    @property
    def received(self) -> bool:
        """Whether it can only be what others sent to the wallet: it sent nothing itself, and has more."""
        return self.wei > 0 and not self.foreign

    @property
    def differs(self) -> bool:
        """Whether nothing accounts for it: no known transaction, and not the operator."""
        return bool(self.wei) and not self.received and not self.explained and not self.accepted


@dataclass(frozen=True, slots=True)
class Books:
    """How far the movements are stored. Replaced as a whole, under the next `version`."""

    #: First block that is accounted for; the opening is the account after the block before it.
    first: BlockNumber
    #: None: the node no longer has that state; the opening is then computed backwards from the first comparison.
    opening: Balances | None
    #: Last block whose movements are stored, and opening plus movements (only movements, while there is no opening).
    block: BlockNumber
    account: Balances
    #: Last block at which the hub had exactly that, and what it was.
    proved: BlockNumber | None = None
    proved_account: Balances = EVEN
    #: The native token: the first mark, and the last.
    native_opening: Mark | None = None
    native: Mark | None = None
    #: Wei of fees, and of value sent, of the lane's transactions from the first mark to the last.
    native_spent: int = 0
    #: How often something came or went without the lane from the first mark to the last, and how many wei in all.
    outside_count: int = 0
    outside_wei: int = 0
    #: When blocks were last read again because they do not add up, Unix seconds.
    reread_at: float = 0.0
    version: int = 0

    def with_movements(self, last: BlockNumber, own: Sequence[Movement]) -> Books:
        """The books with `own`, the wallet's own movements of the blocks after `block` up to `last`, added."""
        return replace(self, block=last, account=self.account.after(own))

    def checked(self, account: Balances, now: float) -> Books:
        """The books compared with `account`, which the hub shows at `self.block`.

        If they are equal, that block is proved. Else the books go back to the last proved block, so that all above it
        is read again, once in REREAD_SECONDS. `now`: Unix seconds.
        """
        if self.opening is None:
            opening = account.minus(self.account)
            return replace(self, opening=opening, account=account, proved=self.block, proved_account=account)
        if account == self.account:
            return replace(self, proved=self.block, proved_account=account)
        if now - self.reread_at < REREAD_SECONDS:
            return self
        block, start = (self.first - 1, self.opening) if self.proved is None else (self.proved, self.proved_account)
        return replace(self, block=BlockNumber(block), account=start, reread_at=now)


def outside(before: Mark, now: Mark, costs: Sequence[NonceCost], returned: int) -> Outside | None:
    """What came or went between two marks beside the lane's transactions, all of which are in `costs`; None: nothing.

    `returned`: nRLC withdrawn from a hub whose RLC is the native token.
    """
    expected = before.balance - spent_and_moved(costs) + returned * WEI_PER_NRLC
    wei, foreign = now.balance - expected, now.count - before.count - len(costs)
    return Outside(before.block, now.block, wei, foreign) if wei or foreign else None
