"""Words that real clients say, as they say them."""

from __future__ import annotations

import pytest

from chain.lane.rules.send_errors import PHRASES, REACTIONS, Kind, classify, phrases_of
from protocol.errors import BadSetting


@pytest.mark.parametrize(
    ("client", "words", "kind"),
    [
        ("anvil", "transaction already imported", Kind.KNOWN),
        ("anvil", "nonce too low", Kind.NONCE_TOO_LOW),
        ("anvil", "replacement transaction underpriced", Kind.REPLACEMENT_UNDERPRICED),
        ("anvil", "max fee per gas less than block base fee", Kind.UNDERPRICED),
        ("anvil", "max priority fee per gas higher than max fee per gas", Kind.FATAL),
        ("anvil", "Insufficient funds for gas * price + value", Kind.INSUFFICIENT_FUNDS),
        ("anvil", "invalid chain id for signer", Kind.FATAL),
        ("anvil", "intrinsic gas too low", Kind.FATAL),
        ("anvil", "intrinsic gas too high -- tx.gas_limit > env.block.gas_limit", Kind.FATAL),
        ("geth", "already known", Kind.KNOWN),
        ("geth", "nonce too low: next nonce 5, tx nonce 3", Kind.NONCE_TOO_LOW),
        ("geth", "nonce too high: tx nonce 9, state nonce 3", Kind.NONCE_TOO_HIGH),
        ("geth", "replacement transaction underpriced: new tx gas fee cap 5 <= 4", Kind.REPLACEMENT_UNDERPRICED),
        ("geth", "transaction underpriced: gas tip cap 0, minimum needed 1", Kind.UNDERPRICED),
        (
            "geth",
            "max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1, baseFee: 7",
            Kind.UNDERPRICED,
        ),
        ("geth", "insufficient funds for gas * price + value: balance 0, tx cost 1", Kind.INSUFFICIENT_FUNDS),
        ("geth", "txpool is full", Kind.POOL_FULL),
        ("geth", "future transaction tries to replace pending", Kind.POOL_FULL),
        ("geth", "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)", Kind.FEE_TOO_HIGH),
        ("geth", "exceeds block gas limit", Kind.FATAL),
        ("geth", "transaction gas limit too high (cap: 16777216, tx: 30000000)", Kind.FATAL),
        ("geth", "intrinsic gas too low: gas 20000, minimum needed 21000", Kind.FATAL),
        ("geth", "invalid sender: invalid chain id for signer: have 1 want 5", Kind.FATAL),
        ("geth", "transaction type not supported", Kind.FATAL),
        ("nethermind", "AlreadyKnown", Kind.KNOWN),
        ("nethermind", "OldNonce", Kind.NONCE_TOO_LOW),
        ("nethermind", "OldNonce, Current nonce: 5, nonce of rejected tx: 3", Kind.NONCE_TOO_LOW),
        ("nethermind", "NonceGap, Future nonce. Expected nonce: 3", Kind.NONCE_TOO_HIGH),
        ("nethermind", "ReplacementNotAllowed", Kind.REPLACEMENT_UNDERPRICED),
        ("nethermind", "FeeTooLow, EffectivePriorityFeePerGas too low 0 < 1", Kind.UNDERPRICED),
        ("nethermind", "FeeTooLowToCompete", Kind.POOL_FULL),
        ("nethermind", "InsufficientFunds, Account balance: 0, cumulative cost: 1", Kind.INSUFFICIENT_FUNDS),
        ("nethermind", "GasLimitExceeded, Gas limit: 1, gas limit of rejected tx: 2", Kind.FATAL),
        ("erigon", "existing tx with same hash", Kind.KNOWN),
        ("erigon", "nonce too low", Kind.NONCE_TOO_LOW),
        ("erigon", "could not replace existing tx", Kind.REPLACEMENT_UNDERPRICED),
        ("erigon", "underpriced", Kind.UNDERPRICED),
        ("erigon", "fee too low", Kind.UNDERPRICED),
        ("erigon", "insufficient funds for gas * price + value", Kind.INSUFFICIENT_FUNDS),
        ("erigon", "pool is overflowing", Kind.POOL_FULL),
        ("arbitrum", "nonce too low: address 0x1, tx: 3 state: 5", Kind.NONCE_TOO_LOW),
        ("arbitrum", "nonce too high: address 0x1, tx: 9 state: 5", Kind.NONCE_TOO_HIGH),
        (
            "arbitrum",
            "max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1 baseFee: 2",
            Kind.UNDERPRICED,
        ),
        ("arbitrum", "intrinsic gas too low: have 20000, want 21000", Kind.FATAL),
        ("arbitrum", "insufficient funds for gas * price + value: address 0x1 have 0 want 1", Kind.INSUFFICIENT_FUNDS),
        ("provider", "Too Many Requests", Kind.BUSY),
        ("provider", "Your app has exceeded its compute units per second capacity", Kind.BUSY),
        ("provider", "daily request count exceeded, request rate limited", Kind.BUSY),
        ("nobody", "the hamster is asleep", Kind.UNKNOWN),
    ],
)
def test_the_words_of_each_client_are_understood(client: str, words: str, kind: Kind) -> None:
    assert classify(words) is kind


def test_unknown_words_count_as_maybe_sent() -> None:
    assert REACTIONS[Kind.UNKNOWN].maybe_sent


def test_every_kind_has_a_reaction() -> None:
    assert set(REACTIONS) == set(Kind)


def test_only_a_transaction_that_the_node_will_never_take_is_replaced_by_a_noop() -> None:
    assert [kind for kind, reaction in REACTIONS.items() if reaction.replace_with_noop] == [
        Kind.FEE_TOO_HIGH,
        Kind.FATAL,
    ]


def test_phrases_are_lower_case_and_none_is_hidden_behind_another() -> None:
    assert all(phrase == phrase.lower() for phrase, _ in PHRASES)
    for position, (phrase, kind) in enumerate(PHRASES):
        assert classify(phrase) is kind, f"row {position}: {phrase}"


def test_an_operators_words_come_before_the_tables() -> None:
    own = phrases_of("Nonce too low = busy; a=b=fatal;")
    assert own == (("nonce too low", Kind.BUSY), ("a=b", Kind.FATAL))
    assert classify("nonce too low", own) is Kind.BUSY
    assert classify("txpool is full", own) is Kind.POOL_FULL


@pytest.mark.parametrize("text", ["nonce too low", "=busy", "too low=sad", "a=busy;b"])
def test_words_without_a_meaning_are_one_clear_error(text: str) -> None:
    with pytest.raises(BadSetting, match="SLUICE_REFUSAL_PHRASES"):
        phrases_of(text)
