"""The table of refusals as a whole: no phrase takes what a later one is there for, whatever else the message says."""

from __future__ import annotations

import pytest

from chain.lane.rules.send_errors import PHRASES, Kind, classify

#: Whole messages of rows whose phrase is only a part of what a client says. Other rows are their own example.
EXAMPLES = {
    "rate limit": "Rate limit exceeded for chain id 134, method eth_sendRawTransaction",
    "ratelimit": "RateLimitError: the transaction was not forwarded",
    "request rate": "project ID request rate exceeded",
    "rps limit": "You've exceeded the RPS limit available on the current plan.",
    "compute units": "Your app has exceeded its compute units per second capacity",
    "request count exceeded": "daily request count exceeded, request rate limited",
    "request limit": "50/second request limit reached - reduce calls per second or upgrade your account",
    "requests limited to": "requests limited to 25/sec",
    "exceeded the quota": "You have exceeded the quota usage of this chain id",
    "unknown transaction type": "Unknown transaction type: 4",
    "unknown transaction": "unknown transaction",
    "known transaction": "Known transaction. Transaction with hash 0x1 is already in the system",
    "alreadyimported": "Pool(AlreadyImported)",
    "with same hash": "existing txn with same hash",
    "replacement transaction underpriced": "replacement transaction underpriced: new tx gas tip cap 1 <= 1 queued",
    "to replace existing transaction": "insufficient gas price to replace existing transaction",
    "replaced by transaction with higher tip": "replaced by transaction with higher tip",
    "another transaction with same nonce": "There is another transaction with same nonce in the queue.",
    "feetoolowtocompete": "FeeTooLowToCompete",
    "nonce too low": "nonce too low: address 0x1, tx: 3 state: 5",
    "nonce too high": "nonce too high: tx nonce 9, state nonce 3",
    "noncegap": "NonceGap, Future nonce. Expected nonce: 3",
    "lower nonce exists": "An invalid transaction with a lower nonce exists",
    "too low, expected": "nonce 3 too low, expected 5",
    "too high, expected": "nonce 9 too high, expected 5",
    "in-flight transaction limit reached": "in-flight transaction limit reached for delegated accounts",
    "account limit exceeded": "account limit exceeded: pooled 16 txs",
    "maxfeepergas too low": "maxFeePerGas too low, expected at least 5",
    "fee too low": "fee too low, expected 7",
    "gas price too low": "gas price too low, expected 12",
    "gas price is too low": "Transaction gas price is too low, expected more",
    "gas price below": "Gas price below configured minimum gas price",
    "below chain minimum": "transaction feeCap 1 below chain minimum",
    "gas tip cap": "gas tip cap 0, minimum needed 1",
    "transaction underpriced": "transaction underpriced: gas tip cap 0, minimum needed 1",
    "insufficient funds": "insufficient funds for gas * price + value: address 0x1 have 0 want 1",
    "overdraft": "transaction would cause overdraft",
    "exceeds the configured cap": "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)",
    "intrinsic gas too low": "intrinsic gas too low: gas 20000, minimum needed 21000",
    "intrinsic gas exceeds": "Intrinsic gas exceeds gas limit",
    "gas limit too low": "gas limit too low, expected 21000",
    "gas limit too high": "transaction gas limit too high, expected at most 16777216",
    "gaslimitexceeded": "GasLimitExceeded, Gas limit: 1, gas limit of rejected tx: 2",
    "gas limit reached": "tx gas limit reached",
    "exceeds block gas limit": "Transaction gas limit exceeds block gas limit",
    "gas limit exceeded": "block gas limit exceeded",
    "size limit exceeded": "transaction size limit exceeded",
    "floor data gas": "insufficient gas for floor data gas cost: gas 21000, minimum needed 30000",
    "invalid chain id": "invalid sender: invalid chain id for signer: have 1 want 5",
    "this transaction type is not": "fork supporting this transaction type is not activated yet",
    "execution reverted": "execution reverted: already initialized",
    "forwarding": "forwarding failed: could not reach the sequencer",
    "null value for transaction": "null value for transaction",
    "timeout": "timeout while waiting for the pool",
    "limit exceeded": "limit exceeded",
}


@pytest.mark.parametrize(("phrase", "kind"), PHRASES)
def test_each_rows_own_message_is_classified_as_the_row_says(phrase: str, kind: Kind) -> None:
    message = EXAMPLES.get(phrase, phrase)
    assert phrase in message.lower()
    assert classify(message) is kind


def test_every_example_is_of_a_row_of_the_table() -> None:
    assert EXAMPLES.keys() <= {phrase for phrase, _ in PHRASES}


@pytest.mark.parametrize("limited", ["rate limit", "request rate", "rps limit", "request limit", "compute units"])
@pytest.mark.parametrize("asked", ["on chain id 134", "for invalid signature checks", "of known transaction lookups"])
def test_a_request_limit_is_one_whatever_was_asked_for(limited: str, asked: str) -> None:
    assert classify(f"{EXAMPLES[limited]} {asked}") is Kind.BUSY


@pytest.mark.parametrize(
    "message",
    ["no upstream available for chain id 134", "unable to reach a node of chain id 134", "Unknown transaction"],
)
def test_what_names_a_chain_or_a_transaction_and_blames_neither_gives_nothing_up(message: str) -> None:
    assert classify(message) is Kind.UNKNOWN


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (429, "slow down", Kind.BUSY),
        (429, "invalid sender of too much", Kind.BUSY),
        (-32029, "come back later", Kind.BUSY),
        (-32005, "project ID request rate exceeded", Kind.BUSY),
        (-32005, "come back later", Kind.BUSY),
        # besu's own meaning of that code.
        (-32005, "Transaction gas limit exceeds block gas limit", Kind.FATAL),
        (-32000, "come back later", Kind.UNKNOWN),
    ],
)
def test_a_code_decides_where_it_means_one_thing(code: int, message: str, kind: Kind) -> None:
    assert classify(message, (), code) is kind


def test_an_operators_words_come_before_a_code() -> None:
    assert classify("full moon", (("full moon", Kind.FATAL),), 429) is Kind.FATAL
