"""Weights of votes and consensus, as the contract computes them."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.poco.weights import (
    NEWCOMER_WEIGHT,
    consensus_possible,
    consensus_reached,
    group_weight,
    replicates_needed,
    weight,
)
from protocol.types import Hash32

RIGHT, WRONG, OTHER = (Hash32("0x" + two * 32) for two in ("aa", "bb", "cc"))
WEIGHTS = st.integers(NEWCOMER_WEIGHT, 50)
TRUSTS = st.integers(0, 10_000)
VOTES = st.dictionaries(st.sampled_from([RIGHT, WRONG, OTHER]), st.lists(WEIGHTS, min_size=1, max_size=4))


class Contract:
    """IexecPoco2's own bookkeeping: group and total are updated vote by vote, and checked for the result just voted."""

    def __init__(self, trust: int) -> None:
        self.trust = max(trust, 1)
        self.group: dict[Hash32, int] = {}
        self.total = 1

    def contribute(self, result: Hash32, worker: int) -> bool:
        before = self.group.get(result, 0)
        self.group[result] = max(before, 1) * worker
        self.total += self.group[result] - before
        return self.group[result] * self.trust > self.total * (self.trust - 1)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0, 2), (1, 2), (11, 2), (12, 3), (14, 3), (15, 4), (300, 99)],
)
def test_a_weight_grows_with_a_third_of_the_score_from_2_on(score: int, expected: int) -> None:
    assert weight(score) == expected


def test_a_group_weighs_the_product_of_its_votes_and_nothing_without_any() -> None:
    assert group_weight([2, 3, 4]) == 24
    assert group_weight([]) == 0


@pytest.mark.parametrize(
    ("trust", "workers"),
    [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (7, 3), (8, 3), (9, 4), (16, 4), (17, 5)],
)
def test_newcomers_suffice_when_two_to_their_number_reaches_the_trust(trust: int, workers: int) -> None:
    assert replicates_needed(trust, {}) == workers


def test_one_liar_at_trust_3_costs_a_fourth_contribution() -> None:
    # Seen on the real contracts: one wrong and three right.
    assert not consensus_possible(3, {WRONG: [2], RIGHT: [2, 2]})
    assert consensus_possible(3, {WRONG: [2], RIGHT: [2, 2, 2]})
    assert replicates_needed(3, {WRONG: [2], RIGHT: [2, 2]}) == 1


@pytest.mark.parametrize(
    ("trust", "votes", "pending", "needed"),
    [
        # Whoever computes already is counted on.
        (5, {}, [2, 2, 2], 0),
        (5, {}, [2], 2),
        (5, {RIGHT: [2]}, [2], 1),
        (5, {RIGHT: [2, 2]}, [2], 0),
        # One strong worker replaces several newcomers.
        (8, {}, [9], 0),
        (8, {RIGHT: [9]}, [], 0),
        # A tie needs the leader to outweigh the other side.
        (2, {RIGHT: [2], WRONG: [2]}, [], 1),
        (1, {RIGHT: [2], WRONG: [2]}, [], 0),
    ],
)
def test_only_the_missing_workers_are_asked(
    trust: int, votes: dict[Hash32, list[int]], pending: list[int], needed: int
) -> None:
    assert replicates_needed(trust, votes, pending) == needed


@given(TRUSTS, VOTES)
def test_consensus_is_what_the_contract_computes_vote_by_vote(trust: int, votes: dict[Hash32, list[int]]) -> None:
    contract = Contract(trust)
    for result, weights in votes.items():
        for worker in weights:
            reached = contract.contribute(result, worker)
            group = contract.group[result]
            assert consensus_reached(trust, group, contract.total - 1 - group) is reached


@given(TRUSTS, VOTES, st.lists(WEIGHTS, max_size=3))
def test_the_workers_asked_for_suffice_and_one_fewer_does_not(
    trust: int, votes: dict[Hash32, list[int]], pending: list[int]
) -> None:
    needed = replicates_needed(trust, votes, pending)
    enough = next(n for n in count() if consensus_possible(trust, votes, [*pending, *[NEWCOMER_WEIGHT] * n]))
    assert needed == enough


@given(TRUSTS, VOTES, st.lists(WEIGHTS, max_size=3))
def test_consensus_is_possible_exactly_when_nobody_more_is_needed(
    trust: int, votes: dict[Hash32, list[int]], pending: list[int]
) -> None:
    assert consensus_possible(trust, votes, pending) is (replicates_needed(trust, votes, pending) == 0)


def test_without_votes_and_workers_consensus_is_never_possible() -> None:
    assert not consensus_possible(0, {})
    assert not consensus_possible(1, {}, [])
    assert not consensus_possible(1, {RIGHT: []})


def test_the_highest_trust_a_deal_can_carry_ends_too() -> None:
    assert replicates_needed(2**256 - 1, {}) == 256
