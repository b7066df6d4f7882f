"""What a node's refusal of a signed transaction means. A pure table: phrase → kind → what to do.

    answer of eth_sendRawTransaction ─► Kind ─► Reaction
    no answer, or words nobody knows ─► UNKNOWN: it may have been accepted; the same bytes go out again later

Phrases are lower case and looked for inside the message, in the order of the table: the first that is found wins, so
that narrow phrases stand before the wide ones they contain. Each row names the clients it was read from. An operator's
own phrases (SLUICE_REFUSAL_PHRASES) stand before all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import BadSetting

#: Phrase in lower case, and what it means.
Phrases = tuple[tuple[str, "Kind"], ...]


class Kind(StrEnum):
    """Why a node did not simply say yes."""

    #: It has these very bytes.
    KNOWN = "known"
    #: The nonce is spent: by these bytes, by another attempt, or by a stranger.
    NONCE_TOO_LOW = "nonce_too_low"
    #: It wants an earlier nonce first.
    NONCE_TOO_HIGH = "nonce_too_high"
    #: Another transaction holds this nonce in its pool, and ours does not pay enough more.
    REPLACEMENT_UNDERPRICED = "replacement_underpriced"
    #: Below the base fee or the node's own minimum.
    UNDERPRICED = "underpriced"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    #: Above the node's own limit of what a transaction may cost.
    FEE_TOO_HIGH = "fee_too_high"
    #: Its pool, or our share of it, is full.
    POOL_FULL = "pool_full"
    #: Asked too often, or the node is not up to date.
    BUSY = "busy"
    #: No node will ever take these bytes: gas limit, chain id, size, signature, type.
    FATAL = "fatal"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the lane does about it."""

    #: The bytes may be in a pool now: wait for a block before anything else.
    maybe_sent: bool
    #: Look at the mined count again at once.
    look_again: bool = False
    #: A higher price would help (the lowest nonce only).
    reprice: bool = False
    #: The nonce must be spent by something else.
    give_way: bool = False
    #: Claim no further nonce in this run.
    hold: bool = False


REACTIONS: dict[Kind, Reaction] = {
    Kind.KNOWN: Reaction(maybe_sent=True),
    Kind.NONCE_TOO_LOW: Reaction(maybe_sent=True, look_again=True),
    Kind.NONCE_TOO_HIGH: Reaction(maybe_sent=False, hold=True),
    Kind.REPLACEMENT_UNDERPRICED: Reaction(maybe_sent=False, reprice=True),
    Kind.UNDERPRICED: Reaction(maybe_sent=False, reprice=True, hold=True),
    Kind.INSUFFICIENT_FUNDS: Reaction(maybe_sent=False, hold=True),
    Kind.FEE_TOO_HIGH: Reaction(maybe_sent=False, give_way=True, hold=True),
    Kind.POOL_FULL: Reaction(maybe_sent=False, hold=True),
    Kind.BUSY: Reaction(maybe_sent=True, hold=True),
    Kind.FATAL: Reaction(maybe_sent=False, give_way=True, hold=True),
    Kind.UNKNOWN: Reaction(maybe_sent=True),
}

#: phrase, kind; the comment names the clients.
PHRASES: Phrases = (
    ("already imported", Kind.KNOWN),  # anvil, parity
    ("already known", Kind.KNOWN),  # geth, erigon, nethermind ("AlreadyKnown" below)
    ("alreadyknown", Kind.KNOWN),  # nethermind
    ("known transaction", Kind.KNOWN),  # besu, geth before 1.9
    ("existing tx with same hash", Kind.KNOWN),  # erigon
    ("transaction already in mempool", Kind.KNOWN),  # arbitrum classic
    ("replacement transaction underpriced", Kind.REPLACEMENT_UNDERPRICED),  # anvil, geth, erigon
    ("replacementnotallowed", Kind.REPLACEMENT_UNDERPRICED),  # nethermind
    ("could not replace existing tx", Kind.REPLACEMENT_UNDERPRICED),  # erigon
    ("replace_underpriced", Kind.REPLACEMENT_UNDERPRICED),  # zk nodes built on geth
    ("feetoolowtocompete", Kind.POOL_FULL),  # nethermind: its pool is full of dearer ones
    ("nonce too low", Kind.NONCE_TOO_LOW),  # anvil, geth, erigon, arbitrum
    ("oldnonce", Kind.NONCE_TOO_LOW),  # nethermind
    ("nonce is too low", Kind.NONCE_TOO_LOW),  # parity
    ("nonce too high", Kind.NONCE_TOO_HIGH),  # geth, erigon, arbitrum (its sequencer keeps no queue)
    ("noncegap", Kind.NONCE_TOO_HIGH),  # nethermind
    ("future transaction tries to replace pending", Kind.POOL_FULL),  # geth: pool full of executable ones
    ("in-flight transaction limit reached", Kind.POOL_FULL),  # geth: delegated accounts
    ("txpool is full", Kind.POOL_FULL),  # geth, erigon
    ("transaction pool is full", Kind.POOL_FULL),  # anvil, besu
    ("pool is overflowing", Kind.POOL_FULL),  # erigon
    ("account slots", Kind.POOL_FULL),  # erigon
    ("sequencer queue is full", Kind.POOL_FULL),  # arbitrum
    ("queue full", Kind.POOL_FULL),  # arbitrum
    ("max fee per gas less than block base fee", Kind.UNDERPRICED),  # anvil, geth, arbitrum
    ("maxfeepergas too low", Kind.UNDERPRICED),  # nethermind
    ("max fee per gas too low", Kind.UNDERPRICED),
    ("fee too low", Kind.UNDERPRICED),  # erigon
    ("feetoolow", Kind.UNDERPRICED),  # nethermind
    ("gas price too low", Kind.UNDERPRICED),  # arbitrum classic, nethermind
    ("gas tip cap", Kind.UNDERPRICED),  # geth: "gas tip cap 0, minimum needed 1"
    ("transaction underpriced", Kind.UNDERPRICED),  # geth
    ("underpriced", Kind.UNDERPRICED),  # erigon, besu
    ("insufficient funds", Kind.INSUFFICIENT_FUNDS),  # anvil, geth, erigon, arbitrum
    ("insufficientfunds", Kind.INSUFFICIENT_FUNDS),  # nethermind
    ("insufficient balance", Kind.INSUFFICIENT_FUNDS),  # erigon, nethermind
    ("exceeds the configured cap", Kind.FEE_TOO_HIGH),  # geth: "tx fee (x ether) exceeds the configured cap"
    ("tx fee cap", Kind.FEE_TOO_HIGH),
    ("intrinsic gas too low", Kind.FATAL),  # anvil, geth, erigon, arbitrum
    ("intrinsic gas too high", Kind.FATAL),  # anvil
    ("gaslimitexceeded", Kind.FATAL),  # nethermind
    ("exceeds block gas limit", Kind.FATAL),  # geth, besu
    ("gas limit too high", Kind.FATAL),  # geth since Osaka (EIP-7825), nethermind
    ("exceeds transaction gas limit", Kind.FATAL),
    ("rlp is too long", Kind.FATAL),
    ("floor data gas", Kind.FATAL),  # geth: "insufficient gas for floor data gas cost"
    ("invalid chain id", Kind.FATAL),  # anvil, geth, arbitrum
    ("invalid sender", Kind.FATAL),  # geth, erigon
    ("invalidtxchainid", Kind.FATAL),  # nethermind
    ("transaction type not supported", Kind.FATAL),  # geth, erigon, arbitrum
    ("oversized data", Kind.FATAL),  # geth
    ("rlp: ", Kind.FATAL),  # geth, erigon, arbitrum: bytes that are no transaction
    ("max priority fee per gas higher than max fee per gas", Kind.FATAL),  # anvil, geth
    ("sender not an eoa", Kind.FATAL),  # geth, erigon
    ("too many requests", Kind.BUSY),  # providers
    ("rate limit", Kind.BUSY),
    ("request limit", Kind.BUSY),
    ("syncing", Kind.BUSY),  # nethermind, erigon
    ("forwarding", Kind.BUSY),  # arbitrum: the node could not reach the sequencer
    ("service unavailable", Kind.BUSY),
    ("timeout", Kind.UNKNOWN),
)


def classify(message: str, first: Phrases = ()) -> Kind:
    """The kind of refusal behind a node's words; UNKNOWN if neither `first` nor the table has them."""
    words = message.lower()
    return next((kind for phrase, kind in (*first, *PHRASES) if phrase in words), Kind.UNKNOWN)


def phrases_of(text: str) -> Phrases:
    """Phrases written as `phrase=kind; phrase=kind`. Raises BadSetting for what is not."""
    return tuple(_phrase(item) for item in text.split(";") if item.strip())


def _phrase(item: str) -> tuple[str, Kind]:
    # A phrase may hold an `=`, a kind never does.
    phrase, _, kind = (part.strip().lower() for part in item.rpartition("="))
    if not phrase or kind not in set(Kind):
        raise BadSetting(
            name="SLUICE_REFUSAL_PHRASES",
            why=f"{item.strip()!r} is not `phrase=kind`",
            fix=f"Kinds are {', '.join(Kind)}; separate entries by `;`.",
        )
    return phrase, Kind(kind)
