"""What a head start would save, in blocks."""

from __future__ import annotations

import pytest

from bench.headstart import blocks_saved


@pytest.mark.parametrize("lead", [0.0, 0.5, 1.0, 3.0])
def test_work_of_less_than_a_block_saves_nothing_since_a_vote_is_never_in_the_deals_own_block(lead: float) -> None:
    assert blocks_saved(0.9, [lead]) == 0


@pytest.mark.parametrize(("work", "lead", "saved"), [(1.25, 0.5, 1), (1.75, 0.5, 0), (10.25, 0.25, 1), (10.25, 1.5, 2)])
def test_a_head_start_saves_the_blocks_that_it_takes_the_end_of_the_work_across(
    work: float, lead: float, saved: int
) -> None:
    assert blocks_saved(work, [lead]) == saved


def test_several_deals_save_their_mean() -> None:
    assert blocks_saved(1.25, [0.1, 0.5]) == 0.5
