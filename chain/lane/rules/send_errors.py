"""What a node's refusal of a signed transaction means. A pure table: phrase → kind → what to do.

    answer of eth_sendRawTransaction ─► Kind ─► Reaction
    no answer, or unknown words ─► UNKNOWN: it may have been accepted; the same bytes go out again later
    several nodes, none took it ─► the Kind of one of them decides: the first in RANKS

Phrases are lower case and looked for inside the message, in the order of the table: the first that is found wins, so
that narrow phrases stand before the wide ones they contain. Each row names the clients it was read from. An operator's
own phrases (SLUICE_REFUSAL_PHRASES) stand before all of them. A code comes before the table only if it means one thing
everywhere: -32005 is "limit exceeded" of many providers (EIP-1474), and "gas limit exceeds block gas limit" of besu.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import BadSetting, RpcError

#: Phrase in lower case, and what it means.
Phrases = tuple[tuple[str, "Kind"], ...]


class Kind(StrEnum):
    """Why a node did not accept a transaction as new."""

    #: It has these very bytes.
    KNOWN = "known"
    #: The nonce is spent: by these bytes, by another attempt, or by a foreign transaction.
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
    #: No node will ever take these bytes: gas limit, chain id, size, signature, type. Some take the same call with more
    #: gas: `wants_gas`.
    FATAL = "fatal"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the lane does about a refusal of one kind."""

    #: The bytes may be in a pool now: wait for a block before anything else.
    maybe_sent: bool
    #: Read the account nonce again at once.
    look_again: bool = False
    #: A higher price would help (the lowest nonce only).
    reprice: bool = False
    #: The nonce must be spent by something else.
    replace_with_noop: bool = False
    #: Claim no further nonce until the node takes this one; it does not count as sent.
    hold: bool = False
    #: No price would help: the lane waits, however long that takes.
    no_price: bool = False


REACTIONS: dict[Kind, Reaction] = {
    Kind.KNOWN: Reaction(maybe_sent=True),
    Kind.NONCE_TOO_LOW: Reaction(maybe_sent=True, look_again=True),
    Kind.NONCE_TOO_HIGH: Reaction(maybe_sent=False, hold=True, no_price=True),
    Kind.REPLACEMENT_UNDERPRICED: Reaction(maybe_sent=False, reprice=True),
    Kind.UNDERPRICED: Reaction(maybe_sent=False, reprice=True, hold=True),
    Kind.INSUFFICIENT_FUNDS: Reaction(maybe_sent=False, hold=True, no_price=True),
    Kind.FEE_TOO_HIGH: Reaction(maybe_sent=False, replace_with_noop=True, hold=True, no_price=True),
    Kind.POOL_FULL: Reaction(maybe_sent=False, hold=True),
    Kind.BUSY: Reaction(maybe_sent=True, hold=True, no_price=True),
    Kind.FATAL: Reaction(maybe_sent=False, replace_with_noop=True, hold=True),
    Kind.UNKNOWN: Reaction(maybe_sent=True),
}
#: Which kind decides where several nodes refused the same transaction, each in its own way: the first of these.
RANKS = (
    # A node has it: whatever the others lack, the nonce waits for a block.
    Kind.KNOWN,
    # It is spent: a node that says anything else is behind.
    Kind.NONCE_TOO_LOW,
    # No price helps a wallet that cannot pay the present one.
    Kind.INSUFFICIENT_FUNDS,
    # At a better price a node takes it.
    Kind.REPLACEMENT_UNDERPRICED,
    Kind.UNDERPRICED,
    # A node would take it as it is, only later.
    Kind.NONCE_TOO_HIGH,
    Kind.POOL_FULL,
    # No node ever takes it: more than the others know, who have not looked at it.
    Kind.FATAL,
    # It may have been taken.
    Kind.UNKNOWN,
    Kind.BUSY,
    # One node's own limit: another may still take it.
    Kind.FEE_TOO_HIGH,
)
#: JSON-RPC codes that mean "asked too often" and nothing else: Alchemy's and HTTP's own, and that of several gateways.
_BUSY_CODES = frozenset({429, -32029})
#: EIP-1474's "limit exceeded": Infura, Chainstack and others say it of requests. Only where the words say nothing else.
_LIMIT_CODE = -32005

#: phrase, kind; the comment names the clients.
PHRASES: Phrases = (
    # Providers' words about the number of requests come first: they name whatever was asked for, "chain id" as well.
    ("too many requests", Kind.BUSY),
    ("rate limit", Kind.BUSY),  # "Rate limit exceeded for chain id 134", "over rate limit"
    ("rate-limit", Kind.BUSY),
    ("ratelimit", Kind.BUSY),
    ("request rate", Kind.BUSY),  # infura: "project ID request rate exceeded"
    ("rps limit", Kind.BUSY),  # chainstack: "You've exceeded the RPS limit available on the current plan."
    ("compute units", Kind.BUSY),  # providers that count by the weight of a method
    ("request count exceeded", Kind.BUSY),  # providers: "daily request count exceeded"
    ("request limit", Kind.BUSY),  # quicknode: "50/second request limit reached"
    ("requests limited to", Kind.BUSY),
    ("daily limit", Kind.BUSY),
    ("quota exceeded", Kind.BUSY),
    ("exceeded the quota", Kind.BUSY),
    ("exceeded your quota", Kind.BUSY),
    ("unknown transaction type", Kind.FATAL),
    ("unknown transaction", Kind.UNKNOWN),  # not the "known transaction" below
    ("already imported", Kind.KNOWN),  # anvil, openethereum, substrate
    ("alreadyimported", Kind.KNOWN),  # substrate: "Pool(AlreadyImported)"
    ("already known", Kind.KNOWN),  # geth, erigon, reth, nethermind, mantle
    ("alreadyknown", Kind.KNOWN),  # nethermind until 2025
    ("known transaction", Kind.KNOWN),  # besu, klaytn, zksync, geth before 1.9
    ("with same hash", Kind.KNOWN),  # erigon: "existing txn with same hash"
    ("transaction already in mempool", Kind.KNOWN),  # arbitrum classic
    ("already exists in cache", Kind.KNOWN),  # sei
    ("already in the system", Kind.KNOWN),  # zksync
    ("is already pending", Kind.KNOWN),
    ("replacement transaction underpriced", Kind.REPLACEMENT_UNDERPRICED),  # anvil, geth, erigon, besu, reth
    ("replacementnotallowed", Kind.REPLACEMENT_UNDERPRICED),  # nethermind
    ("could not replace existing tx", Kind.REPLACEMENT_UNDERPRICED),  # erigon
    ("to replace existing transaction", Kind.REPLACEMENT_UNDERPRICED),  # reth
    ("replaced by transaction with higher tip", Kind.REPLACEMENT_UNDERPRICED),  # erigon
    ("replace_underpriced", Kind.REPLACEMENT_UNDERPRICED),  # zk nodes built on geth
    ("another transaction with same nonce", Kind.REPLACEMENT_UNDERPRICED),  # openethereum
    ("another tx which has the same nonce", Kind.REPLACEMENT_UNDERPRICED),  # klaytn
    ("ownnoncealreadyused", Kind.REPLACEMENT_UNDERPRICED),  # nethermind: its own pool holds that nonce
    ("feetoolowtocompete", Kind.POOL_FULL),  # nethermind: its pool is full of better paid ones
    ("nonce too low", Kind.NONCE_TOO_LOW),  # anvil, geth, erigon, besu, reth, arbitrum, zksync, hedera
    ("oldnonce", Kind.NONCE_TOO_LOW),  # nethermind
    ("nonce is too low", Kind.NONCE_TOO_LOW),  # openethereum
    ("pool(stale)", Kind.NONCE_TOO_LOW),  # substrate
    ("transaction already finalized", Kind.NONCE_TOO_LOW),  # harmony
    ("nonce too high", Kind.NONCE_TOO_HIGH),  # geth, erigon, besu, reth, arbitrum (its sequencer keeps no queue)
    ("noncegap", Kind.NONCE_TOO_HIGH),  # nethermind
    ("nonce too far in future", Kind.NONCE_TOO_HIGH),  # nethermind
    ("noncetoofarinfuture", Kind.NONCE_TOO_HIGH),  # nethermind
    ("delegation nonce gap", Kind.NONCE_TOO_HIGH),  # nethermind
    ("nonce is too distant", Kind.NONCE_TOO_HIGH),  # besu
    ("lower nonce exists", Kind.NONCE_TOO_HIGH),  # besu: "An invalid transaction with a lower nonce exists"
    # Arbitrum classic says it of a nonce too low and of one too high: the account nonce tells which.
    ("invalid transaction nonce", Kind.NONCE_TOO_LOW),
    ("future transaction tries to replace pending", Kind.POOL_FULL),  # geth: pool full of executable ones
    ("in-flight transaction limit reached", Kind.POOL_FULL),  # geth: delegated accounts
    ("delegation authority has pending", Kind.POOL_FULL),  # nethermind
    ("pending transaction type conflict", Kind.POOL_FULL),  # nethermind
    ("conflicts with existing transaction", Kind.POOL_FULL),  # reth
    ("txpool is full", Kind.POOL_FULL),  # geth, erigon, reth, celo, klaytn
    ("transaction pool is full", Kind.POOL_FULL),  # anvil, besu
    ("pool not accepting transactions", Kind.POOL_FULL),  # besu
    ("sub-pool is full", Kind.POOL_FULL),  # erigon
    ("pool is overflowing", Kind.POOL_FULL),  # erigon
    ("pool size constraints", Kind.POOL_FULL),  # reth
    ("as a spammer", Kind.POOL_FULL),  # reth: more transactions of one sender than it keeps
    ("identified as spammer", Kind.POOL_FULL),  # reth, older
    ("spammer", Kind.POOL_FULL),  # erigon: the same
    ("account slots", Kind.POOL_FULL),  # erigon
    ("too many transactions in the queue", Kind.POOL_FULL),  # openethereum
    ("pending tx pool full", Kind.POOL_FULL),  # arbitrum
    ("sequencer queue is full", Kind.POOL_FULL),  # arbitrum
    ("queue full", Kind.POOL_FULL),  # arbitrum
    ("l2 congestion", Kind.POOL_FULL),  # arbitrum
    ("max fee per gas less than block base fee", Kind.UNDERPRICED),  # anvil, geth, reth, arbitrum, zksync
    ("maxfeepergas too low", Kind.UNDERPRICED),  # nethermind
    ("max fee per gas too low", Kind.UNDERPRICED),
    ("fee too low", Kind.UNDERPRICED),  # erigon
    ("feetoolow", Kind.UNDERPRICED),  # nethermind
    ("gas price too low", Kind.UNDERPRICED),  # arbitrum classic, metis, nethermind
    ("gas price is too low", Kind.UNDERPRICED),  # openethereum
    ("gas price below", Kind.UNDERPRICED),  # besu: "below configured minimum gas price", "below current base fee"
    ("below configured minimum gas price", Kind.UNDERPRICED),  # hedera
    ("below chain minimum", Kind.UNDERPRICED),  # reth: "transaction feeCap 1 below chain minimum"
    ("less than block base fee", Kind.UNDERPRICED),  # astar
    ("less than basefee", Kind.UNDERPRICED),  # revm
    ("less than gas price minimum", Kind.UNDERPRICED),  # celo
    ("unacceptable gas price", Kind.UNDERPRICED),  # zksync
    ("pubdata price too high", Kind.UNDERPRICED),  # zksync
    ("insufficient fee", Kind.UNDERPRICED),  # sei
    ("gas tip cap", Kind.UNDERPRICED),  # geth: "gas tip cap 0, minimum needed 1"
    ("transaction underpriced", Kind.UNDERPRICED),  # geth, reth, nethermind
    ("underpriced", Kind.UNDERPRICED),  # erigon, besu
    ("insufficient funds", Kind.INSUFFICIENT_FUNDS),  # anvil, geth, erigon, reth, openethereum, arbitrum
    ("insufficientfunds", Kind.INSUFFICIENT_FUNDS),  # nethermind
    ("insufficient balance", Kind.INSUFFICIENT_FUNDS),  # erigon, nethermind, openethereum, monad
    ("upfront cost exceeds", Kind.INSUFFICIENT_FUNDS),  # besu
    ("lack of funds", Kind.INSUFFICIENT_FUNDS),  # revm
    ("not enough funds", Kind.INSUFFICIENT_FUNDS),  # arbitrum classic
    ("overdraft", Kind.INSUFFICIENT_FUNDS),  # geth: "transaction would cause overdraft"
    ("overdraws from account", Kind.INSUFFICIENT_FUNDS),  # reth
    ("insufficient_payer_balance", Kind.INSUFFICIENT_FUNDS),  # hedera
    ("exceeds the configured cap", Kind.FEE_TOO_HIGH),  # geth: "tx fee (x ether) exceeds the configured cap"
    ("tx fee cap", Kind.FEE_TOO_HIGH),
    ("transaction fee cap exceeded", Kind.FEE_TOO_HIGH),  # besu
    ("intrinsic gas too low", Kind.FATAL),  # anvil, geth, erigon, reth, arbitrum
    ("intrinsicgas", Kind.FATAL),  # erigon
    ("intrinsic gas too high", Kind.FATAL),  # anvil, reth
    ("intrinsic gas exceeds", Kind.FATAL),  # besu
    ("gas cost exceeds the gas limit", Kind.FATAL),  # revm
    ("gas floor exceeds the gas limit", Kind.FATAL),  # revm
    ("transaction gas is too low", Kind.FATAL),  # openethereum
    ("gas limit too low", Kind.FATAL),  # monad
    ("not enough gas for transaction", Kind.FATAL),  # zksync
    ("failed to pay the fee to the operator", Kind.FATAL),  # zksync
    ("out of gas", Kind.FATAL),  # sei, reth
    ("gaslimitexceeded", Kind.FATAL),  # nethermind
    ("gas limit reached", Kind.FATAL),  # nethermind
    ("exceeds block gas limit", Kind.FATAL),  # geth, besu, reth
    ("exceeds block's gas limit", Kind.FATAL),  # reth
    ("exceeds the block gas limit", Kind.FATAL),  # revm
    ("exceeds current gas limit", Kind.FATAL),  # openethereum
    ("supplied gas is beyond limit", Kind.FATAL),  # openethereum
    ("gas limit too high", Kind.FATAL),  # geth since Osaka (EIP-7825), nethermind, reth
    ("gas limit is too high", Kind.FATAL),  # erigon
    ("exceeds transaction gas limit", Kind.FATAL),
    ("rlp is too long", Kind.FATAL),
    ("rlptoolong", Kind.FATAL),  # erigon
    ("floor data gas", Kind.FATAL),  # geth: "insufficient gas for floor data gas cost"
    ("gas uint64 overflow", Kind.FATAL),  # geth, erigon, reth
    ("gasuintoverflow", Kind.FATAL),  # erigon
    ("int256overflow", Kind.FATAL),  # nethermind
    ("cost overflow", Kind.FATAL),  # nethermind
    ("overflow payment", Kind.FATAL),  # revm
    ("invalid chain id", Kind.FATAL),  # anvil, geth, reth, openethereum, arbitrum
    ("wrong chainid", Kind.FATAL),  # besu
    ("chainid not supported", Kind.FATAL),  # besu
    ("chainid is required", Kind.FATAL),  # besu
    ("wrong chain id", Kind.FATAL),
    ("incorrect chain id", Kind.FATAL),
    ("chain id mismatch", Kind.FATAL),
    ("invalid sender", Kind.FATAL),  # geth, erigon, reth
    ("failedtoresolvesender", Kind.FATAL),  # nethermind
    ("failed to recover sender", Kind.FATAL),  # nethermind
    ("invalid signature", Kind.FATAL),  # besu, openethereum
    ("invalid_signature", Kind.FATAL),  # hedera
    ("invalidtxchainid", Kind.FATAL),  # nethermind
    ("transaction type not supported", Kind.FATAL),  # geth, erigon, reth, arbitrum
    ("unsupported transaction type", Kind.FATAL),  # nethermind, erigon
    ("notsupportedtxtype", Kind.FATAL),  # nethermind
    ("invalid transaction type", Kind.FATAL),  # besu
    (
        "this transaction type is not",
        Kind.FATAL,
    ),  # erigon: "fork supporting this transaction type is not activated yet"
    ("negative value", Kind.FATAL),  # geth, erigon, reth
    ("oversized data", Kind.FATAL),  # geth, erigon, reth, zksync
    ("input data too large", Kind.FATAL),  # reth
    ("transaction is too big", Kind.FATAL),  # openethereum
    ("transaction too large", Kind.FATAL),  # nethermind
    ("tx too large", Kind.FATAL),  # sei
    ("maxtxsizeexceeded", Kind.FATAL),  # nethermind
    ("nonce has max value", Kind.FATAL),  # geth, reth
    ("nonce overflow", Kind.FATAL),  # revm
    ("invalid rlp", Kind.FATAL),  # openethereum
    ("rlp: ", Kind.FATAL),  # geth, erigon, arbitrum: bytes that are no transaction
    ("max priority fee per gas higher than max fee per gas", Kind.FATAL),  # anvil, geth, reth, zksync
    ("max priority fee per gas exceeds max fee per gas", Kind.FATAL),  # besu
    (
        "max fee per gas higher than max priority fee per gas",
        Kind.FATAL,
    ),  # klaytn, which has the two the wrong way round
    ("priority fee is greater than max fee", Kind.FATAL),  # revm
    ("invalid gas fee cap", Kind.FATAL),  # klaytn
    ("higher than 2^", Kind.FATAL),  # geth, reth, zksync: a number that is too large
    ("sender not an eoa", Kind.FATAL),  # geth, erigon, nethermind
    ("sender is not an eoa", Kind.FATAL),  # reth
    ("senderiscontract", Kind.FATAL),  # nethermind
    ("senders with deployed code", Kind.FATAL),  # revm
    ("from a non-account", Kind.FATAL),  # zksync
    ("error function_selector", Kind.FATAL),  # zksync
    ("banned in local queue", Kind.FATAL),  # openethereum: sender, recipient or code
    ("not authorized to send transactions", Kind.FATAL),  # besu
    ("transaction is not permitted", Kind.FATAL),  # openethereum
    ("marked the transaction as invalid", Kind.FATAL),  # besu: a plugin
    ("transaction invalid", Kind.FATAL),  # nethermind
    ("invalid, transaction hash is null", Kind.FATAL),  # nethermind
    ("invalid message format", Kind.FATAL),  # arbitrum
    ("forbidden sender address", Kind.FATAL),  # arbitrum
    ("in blacklist", Kind.FATAL),  # harmony
    ("invalid shard", Kind.FATAL),  # harmony
    ("does not match directive", Kind.FATAL),  # harmony
    ("counters to continue the execution", Kind.FATAL),  # polygon zkevm
    ("out of counters", Kind.FATAL),  # polygon zkevm
    ("overflow zk-counters", Kind.FATAL),  # polygon zkevm
    ("execution reverted", Kind.FATAL),  # arbitrum: it runs the call before it takes it
    # Behind all that a price or a gas limit can be: "gas price too low, expected 5".
    ("too low, expected", Kind.NONCE_TOO_LOW),  # revm: "nonce 3 too low, expected 5"
    ("too high, expected", Kind.NONCE_TOO_HIGH),  # revm: "nonce 9 too high, expected 5"
    ("syncing", Kind.BUSY),  # nethermind, erigon
    ("initial sync is still in progress", Kind.BUSY),  # besu
    ("world state unavailable", Kind.BUSY),  # besu
    ("indexing is in progress", Kind.BUSY),  # geth
    ("forwarding", Kind.BUSY),  # arbitrum: the node could not reach the sequencer
    ("failed to forward", Kind.BUSY),  # mantle
    ("service unavailable", Kind.BUSY),
    ("service temporarily unavailable", Kind.BUSY),
    ("bad gateway", Kind.BUSY),
    ("network is unreachable", Kind.BUSY),
    ("null value for transaction", Kind.BUSY),  # hedera
    ("timeout", Kind.UNKNOWN),
    # Behind every other limit.
    ("account limit exceeded", Kind.POOL_FULL),  # geth
    ("gas limit exceeded", Kind.FATAL),
    ("size limit exceeded", Kind.FATAL),
    ("limit exceeded", Kind.BUSY),  # EIP-1474
)
#: The fatal ones that a higher gas limit cures: the node counts more gas than the function uses, as it does
#: where posting data to another chain is paid in gas.
GAS_PHRASES = (
    "intrinsic gas too low",
    "intrinsicgas",
    "intrinsic gas exceeds",
    "gas cost exceeds the gas limit",
    "gas floor exceeds the gas limit",
    "transaction gas is too low",
    "gas limit too low",
    "not enough gas for transaction",
    "failed to pay the fee to the operator",
    "floor data gas",
    "out of gas",
)


def classify(message: str, first: Phrases = (), code: int = 0) -> Kind:
    """The kind of a node's refusal: by the operator's phrases, else by a `code` that has one meaning, else by the
    table, else UNKNOWN.
    """
    words = message.lower()
    own = _find(words, first)
    if own is not None:
        return own
    if code in _BUSY_CODES:
        return Kind.BUSY
    return _find(words, PHRASES) or (Kind.BUSY if code == _LIMIT_CODE else Kind.UNKNOWN)


def _find(words: str, phrases: Phrases) -> Kind | None:
    """What the first of `phrases` that is in `words` means."""
    return next((kind for phrase, kind in phrases if phrase in words), None)


def deciding(error: RpcError, first: Phrases = ()) -> tuple[Kind, RpcError]:
    """The kind of a refused transaction, and the error that decides it: of several nodes' errors the first by RANKS."""
    said = [(classify(each.message, first, each.code), each) for each in (error, *error.others)]
    return min(said, key=lambda item: RANKS.index(item[0]))


def wants_gas(message: str) -> bool:
    """Whether a node's words say that the gas limit is below the intrinsic gas of the transaction."""
    words = message.lower()
    return any(phrase in words for phrase in GAS_PHRASES)


def phrases_of(text: str) -> Phrases:
    """The phrases of `SLUICE_REFUSAL_PHRASES`, written as `phrase=kind; phrase=kind`. Raises BadSetting."""
    return tuple(_parse_phrase(item) for item in text.split(";") if item.strip())


def _parse_phrase(item: str) -> tuple[str, Kind]:
    """One phrase and its kind, from `phrase=kind`. Raises BadSetting."""
    # A phrase may hold an `=`, a kind never does.
    phrase, _, kind = (part.strip().lower() for part in item.rpartition("="))
    if not phrase or kind not in set(Kind):
        raise BadSetting(
            name="SLUICE_REFUSAL_PHRASES",
            why=f"{item.strip()!r} is not `phrase=kind`",
            fix=f"Kinds are {', '.join(Kind)}; separate entries by `;`.",
        )
    return phrase, Kind(kind)
