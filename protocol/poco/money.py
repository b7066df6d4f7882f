"""What PoCo's hub moves for a wallet, and what follows for its account. Pure.

    kind          stake   locked
    deposit       +               RLC of the wallet came into the hub
    withdrawal    -
    lock          -       +       a deal was matched, or a vote was cast
    unlock        +       -       the task was finalized, or (a vote) claimed
    seize                 -       a task that the pool let expire, a wrong vote, or the price that a requester pays
    reward        +               a task was finalized
    kitty         +               of the stakes seized from other pools, with the reward
    sent          -               to another account in the hub
    received      +

Every change of an account is one of these, so an account is its opening balance and the sum of its movements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from protocol.types import BlockHash, BlockNumber, TaskId, TxHash, Wallet

#: Percent of a task's workerpool price that the hub locks of the scheduler's stake (WORKERPOOL_STAKE_RATIO).
POOL_STAKE_RATIO = 30


class Kind(StrEnum):
    """What a movement is; see the table above."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    LOCK = "lock"
    UNLOCK = "unlock"
    SEIZE = "seize"
    REWARD = "reward"
    KITTY = "kitty"
    SENT = "sent"
    RECEIVED = "received"


#: Sign of a movement's amount in the free stake, and in what is locked.
EFFECTS: dict[Kind, tuple[int, int]] = {
    Kind.DEPOSIT: (1, 0),
    Kind.WITHDRAWAL: (-1, 0),
    Kind.LOCK: (-1, 1),
    Kind.UNLOCK: (1, -1),
    Kind.SEIZE: (0, -1),
    Kind.REWARD: (1, 0),
    Kind.KITTY: (1, 0),
    Kind.SENT: (-1, 0),
    Kind.RECEIVED: (1, 0),
}


@dataclass(frozen=True, slots=True)
class Movement:
    """One change of an account in the hub. `amount`: nRLC, never negative."""

    owner: Wallet
    kind: Kind
    amount: int
    #: The task that the event names; none for deposits, withdrawals and what is locked and unlocked.
    task: TaskId | None
    block: BlockNumber
    block_hash: BlockHash
    tx_hash: TxHash
    log_index: int
    #: Time of the block, Unix seconds; 0 while it was not read.
    at: int = 0

    @property
    def key(self) -> str:
        """The log's place on all branches of the chain; no two movements share one."""
        return f"{self.block_hash}:{self.log_index}"


@dataclass(frozen=True, slots=True)
class Balances:
    """An account in the hub, nRLC. Differences of two may be negative."""

    stake: int
    locked: int

    def after(self, movements: Iterable[Movement]) -> Balances:
        """The account after these movements, all of them its own."""
        stake, locked = self.stake, self.locked
        for each in movements:
            of_stake, of_locked = EFFECTS[each.kind]
            stake += of_stake * each.amount
            locked += of_locked * each.amount
        return Balances(stake, locked)

    def minus(self, other: Balances) -> Balances:
        """The difference: this account minus the other."""
        return Balances(self.stake - other.stake, self.locked - other.locked)


#: No difference.
EVEN = Balances(0, 0)


def pool_stake(price: int) -> int:
    """nRLC that the hub locks of the scheduler's stake for one task of this workerpool price."""
    return price * POOL_STAKE_RATIO // 100


def scheduler_share(price: int, scheduler_ratio: int) -> int:
    """nRLC that a completed task brings its scheduler at least: what rounding takes from several workers, the stakes of
    wrong votes and the kitty come on top. `scheduler_ratio`: percent, of the deal.
    """
    return price - price * (100 - scheduler_ratio) // 100
