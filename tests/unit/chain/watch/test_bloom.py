"""Bloom filters of blocks: what they prove to be absent."""

from __future__ import annotations

from chain.watch import bloom

ADDRESS = "0x095e7baea6a6c7c4c2dfeb977efac326af552d87"
TOPIC = "0x" + "00" * 32


def test_what_is_in_the_filter_is_found() -> None:
    block = bloom.bits(ADDRESS) | bloom.bits(TOPIC)

    assert bloom.may_hold(block, ADDRESS, [TOPIC])


def test_an_empty_filter_holds_nothing() -> None:
    assert not bloom.may_hold(0, ADDRESS, [TOPIC])


def test_address_without_any_of_the_topics_is_not_enough() -> None:
    assert not bloom.may_hold(bloom.bits(ADDRESS), ADDRESS, [TOPIC])


def test_an_item_sets_at_most_three_of_the_2048_bits() -> None:
    assert 1 <= bloom.bits(ADDRESS).bit_count() <= 3
    assert bloom.bits(ADDRESS) < 1 << 2048
