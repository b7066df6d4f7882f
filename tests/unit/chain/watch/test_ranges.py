"""The size of block ranges: how it grows, shrinks, and follows a node's words."""

from __future__ import annotations

import pytest

from chain.watch.ranges import FIRST, MOST, RangeSize, suggestion

ALCHEMY = (
    "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the "
    "response size, or you can request any block range with a cap of 10K logs in the response. Based on your "
    "parameters and the response size limit, this block range should work: [0x0, 0x133]"
)


@pytest.mark.parametrize(
    ("message", "blocks"),
    [  # Words of real providers.
        ("Query returned more than 10000 results. Try with this block range [0x10, 0x2f].", 32),
        (ALCHEMY, 308),
        ("eth_getLogs is limited to a 10,000 range", 10_000),
        ("exceed maximum block range: 5000", 5000),
        ("block range is too large, max is 1k blocks", 1000),
        ("query exceeds max block range 100000", 100_000),
        ("query returned more than 10000 results", None),
        ("query timeout exceeded", None),
        ("[0x2f, 0x10]", None),
    ],
)
def test_the_size_a_provider_names_is_read_from_its_words(message: str, blocks: int | None) -> None:
    assert suggestion(message) == blocks


def test_ranges_double_while_all_goes_well() -> None:
    assert RangeSize().succeeded().blocks == 2 * FIRST


def test_ranges_never_grow_past_the_most() -> None:
    size = RangeSize()
    for _ in range(20):
        size = size.succeeded()

    assert size.blocks == MOST


def test_a_refused_range_is_halved_and_grows_in_small_steps_from_then_on() -> None:
    refused = RangeSize(blocks=400).failed("too many")

    assert refused.blocks == 200
    assert refused.succeeded().blocks == 210


def test_a_smaller_size_that_the_node_names_is_taken() -> None:
    assert RangeSize(blocks=1000).failed("limited to a 300 blocks range").blocks == 300


def test_a_size_named_that_would_not_be_smaller_is_not_believed() -> None:
    assert RangeSize(blocks=1000).failed("limited to a 5000 blocks range").blocks == 500


def test_one_block_is_the_least() -> None:
    size = RangeSize(blocks=1).failed("no")

    assert size.blocks == 1
    assert size.least
