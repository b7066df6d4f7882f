"""One nonce of one wallet: what it calls, every signed attempt at it, and what became of it.

    claim (insert of `_id`) ─► OPEN ──account nonce passes it──► MINED ──depth──► FINAL
                                ▲ └ attempts: 1st, bumped, …      │
                                └───────────── reorg ◄────────────┘
                               OPEN ──a foreign transaction took it──► FOREIGN   (an operator accepts it, or it
                                                                                  carried no intents)

The record is the truth about its intents: they leave it (into `released`) only once a receipt proves that the nonce
was spent without them, and come back if a reorg has a block carry them out after all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from chain.lane.model.intent import LaneId
from protocol.types import BlockHash, BlockNumber, Contract, Nonce, TxHash, Wei

#: Amount of most transactions.
NO_WEI = Wei(0)
#: Gas that the protocol takes for a transfer without data. A chain that adds the cost of posting data elsewhere takes
#: more: `chain.lane.rules.gas` asks it.
TRANSFER_GAS = 21_000


class NonceState(StrEnum):
    """Where a nonce stands."""

    OPEN = "open"
    MINED = "mined"
    FINAL = "final"
    FOREIGN = "foreign"


#: States that a run may have to do something about.
UNSETTLED = (NonceState.OPEN, NonceState.MINED)
#: States that say which block spent the nonce.
IN_A_BLOCK = (NonceState.MINED, NonceState.FINAL)


class Purpose(StrEnum):
    """What an attempt does with the nonce."""

    #: The record's call.
    CALL = "call"
    #: 0-value transfer to self that spends the nonce; the intents are judged again.
    YIELD = "yield"
    #: The same, by order of an operator: the intents end as FAILED.
    CANCEL = "cancel"


#: Note of a YIELD in favour of a later nonce, whose stake does not pay for this call too: its intents were not
#: refused.
MAKES_ROOM = "what waits behind it saves a stake"


@dataclass(frozen=True, slots=True)
class Fees:
    """Price per gas in wei. On a chain without EIP-1559 both fields are the gas price."""

    max_fee: Wei
    tip: Wei
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """Signed bytes for a nonce; stored before they are first sent."""

    tx_hash: TxHash
    #: The signed transaction, `0x` hex.
    raw: str
    fees: Fees
    purpose: Purpose = Purpose.CALL
    #: Why the purpose is not CALL.
    note: str = ""
    #: Gas limit; 0 in what was stored before attempts had one of their own.
    gas: int = 0


@dataclass(frozen=True, slots=True)
class Mined:
    """A receipt of one attempt."""

    tx_hash: TxHash
    block: BlockNumber
    block_hash: BlockHash
    success: bool
    #: Gas used times effective price.
    fee: Wei
    gas_used: int


@dataclass(frozen=True, slots=True)
class NonceRecord:
    """One nonce. Its id `<chain>:<wallet>:<nonce>` is unique, so is each intent in `intents` over all records."""

    lane: LaneId
    nonce: Nonce
    #: Keys of the intents it carries; several for `initializeArray`, none for a gap filler.
    intents: tuple[str, ...]
    to: Contract
    #: Calldata, `0x` hex.
    data: str
    #: Gas limit of the first attempt.
    gas: int
    attempts: tuple[Attempt, ...]
    #: Unix seconds of the claim.
    created_at: float
    value: Wei = NO_WEI
    state: NonceState = NonceState.OPEN
    #: Head when the newest attempt was last given to a node; None: never, or its follow-up writes are missing.
    sent_block: BlockNumber | None = None
    mined: Mined | None = None
    #: Intents that left on proof.
    released: tuple[str, ...] = ()
    #: Whether what it relies on was not in a block yet when it was signed.
    early: bool = False

    @property
    def newest(self) -> Attempt:
        """The attempt with the highest fees: the one to send."""
        return self.attempts[-1]

    @property
    def gas_limit(self) -> int:
        """Gas limit of the newest attempt."""
        return self.gas_of(self.newest)

    def gas_of(self, attempt: Attempt) -> int:
        """Gas limit of one attempt of this nonce."""
        return attempt.gas or (self.gas if attempt.purpose is Purpose.CALL else TRANSFER_GAS)

    def attempt(self, tx_hash: TxHash) -> Attempt:
        """The attempt of this nonce with this transaction hash, which must be one of its attempts."""
        return next(attempt for attempt in self.attempts if attempt.tx_hash == tx_hash)


# -- what can happen to records: each is one conditional write ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sent:
    """Move: the nonces' newest attempts were given to a node at this head."""

    nonces: tuple[Nonce, ...]
    block: BlockNumber


@dataclass(frozen=True, slots=True)
class Consumed:
    """Move: a receipt of one of the attempts was found."""

    nonce: Nonce
    mined: Mined


@dataclass(frozen=True, slots=True)
class Released:
    """Move: a receipt proves that the nonce was spent without its intents, so they leave it."""

    nonce: Nonce
    mined: Mined


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Move: a reorg has put the nonce's call into a block where it succeeded, and with it `intents`, which had left."""

    nonce: Nonce
    mined: Mined
    intents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unmined:
    """Move: a reorg removed the blocks of these nonces."""

    nonces: tuple[Nonce, ...]


@dataclass(frozen=True, slots=True)
class Finalised:
    """Move: the blocks of these nonces are deep enough."""

    nonces: tuple[Nonce, ...]


@dataclass(frozen=True, slots=True)
class Repriced:
    """Move: the nonce got another attempt, not sent yet."""

    nonce: Nonce
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Disowned:
    """Move: a foreign transaction took this nonce, which an operator accepts, or which nothing hangs on; its intents
    leave it.
    """

    nonce: Nonce


NonceMove = Sent | Consumed | Released | Reclaimed | Unmined | Finalised | Repriced | Disowned


def nonces_of(move: NonceMove) -> tuple[Nonce, ...]:
    """The nonces that a move changes; most kinds change one."""
    return move.nonces if isinstance(move, (Sent, Unmined, Finalised)) else (move.nonce,)


def apply(record: NonceRecord, move: NonceMove) -> NonceRecord:
    """The record as it is after `move`. Pure; the stores write the same change."""
    match move:
        case Sent(block=block):
            return replace(record, sent_block=block)
        case Consumed(mined=mined):
            return replace(record, state=NonceState.MINED, mined=mined)
        case Released(mined=mined):
            return _move_to_released(replace(record, state=NonceState.MINED, mined=mined))
        case Reclaimed(mined=mined, intents=back):
            left = tuple(key for key in record.released if key not in back)
            consumed = replace(record, state=NonceState.MINED, mined=mined)
            return replace(consumed, intents=(*record.intents, *back), released=left)
        case Unmined():
            return replace(record, state=NonceState.OPEN, mined=None, sent_block=None)
        case Finalised():
            return replace(record, state=NonceState.FINAL)
        case Repriced(attempt=attempt):
            return replace(record, attempts=(*record.attempts, attempt), sent_block=None)
        case Disowned():
            return _move_to_released(replace(record, state=NonceState.FOREIGN))


def _move_to_released(record: NonceRecord) -> NonceRecord:
    """The record with its intents moved to `released`: the nonce was spent without carrying them out."""
    return replace(record, intents=(), released=(*record.released, *record.intents))
