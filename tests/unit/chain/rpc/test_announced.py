"""Headers that a subscription announced, and what is left of them when it ends."""

from __future__ import annotations

from chain.rpc.announced import Announced
from protocol.types import BlockNumber

HEADER = {"number": "0x3", "hash": "0xc", "parentHash": "0xb"}


def test_what_an_ended_subscription_still_puts_is_not_seen() -> None:
    announced = Announced()
    put = announced.begin()
    put(BlockNumber(3), HEADER)
    announced.forget()
    put(BlockNumber(3), HEADER)
    assert announced.take() is None
    assert announced.between(BlockNumber(3), BlockNumber(3)) == []


def test_what_an_ended_subscription_still_puts_does_not_mix_with_the_next_ones_headers() -> None:
    announced = Announced()
    late = announced.begin()
    announced.forget()
    put = announced.begin()
    put(BlockNumber(3), HEADER)
    late(BlockNumber(2), {"number": "0x2", "hash": "0xold", "parentHash": "0xolder"})
    head = announced.take()
    assert head is not None
    assert head.header == HEADER
    assert announced.between(BlockNumber(2), BlockNumber(3)) == []


def test_what_readers_use_of_a_header_is_kept_and_nothing_else() -> None:
    """Without its gas limit, an announced head would have calls share a transaction that no block holds."""
    announced = Announced()
    told = HEADER | {"timestamp": "0x1", "baseFeePerGas": "0x7", "gasLimit": "0x663be0", "gasUsed": "0x0"}
    announced.begin()(BlockNumber(3), told | {"extraData": "0x" + "00" * 97})
    head = announced.take()
    assert head is not None
    assert head.header == told
