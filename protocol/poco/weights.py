"""How much votes count and when they suffice: Sarmenta's credibility as PoCo computes it, in whole numbers.

    weight of a worker   max(score / 3, 3) - 1             a newcomer weighs 2
    a group              product of the weights of those who voted for one result
    total                1 + sum of all groups
    consensus            group · trust > total · (trust - 1)

    newcomers, no dissent: trust 1, 2 -> 1 worker; 3, 4 -> 2; 5..8 -> 3

Source: IexecPoco2._checkConsensus; iexec-core.md §4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from protocol.types import Hash32

#: Weight of a wallet that has never been right yet.
NEWCOMER_WEIGHT = 2


def weight(score: int) -> int:
    """Weight of a vote, from `viewScore` of its wallet."""
    return max(score // 3, 3) - 1


def score_of(weight: int) -> int:
    """The least PoCo score (viewScore) that gives this weight; 0 for the weight of a newcomer."""
    return 3 * (weight + 1) if weight > NEWCOMER_WEIGHT else 0


def group_weight(weights: Iterable[int]) -> int:
    """Weight of all votes for one result together; 0 without votes."""
    values = tuple(weights)
    return prod(values) if values else 0


def consensus_reached(trust: int, group: int, others: int) -> bool:
    """Whether the contract accepts a result: `group` its weight, `others` the sum of the other groups' weights.

    A deal's trust 0 counts as 1, as the contract stores it.
    """
    trust = max(trust, 1)
    return group * trust > (1 + group + others) * (trust - 1)


def consensus_possible(trust: int, votes: Mapping[Hash32, Iterable[int]], pending: Iterable[int] = ()) -> bool:
    """Whether consensus is reached without further workers if all pending ones vote for the leading result.

    `votes`: weights of those who contributed, by result hash (rejected votes left out); `pending`: weights of those who
    were asked and may still contribute.
    """
    group, others = _forecast(votes, pending)
    return consensus_reached(trust, group, others)


def replicates_needed(
    trust: int,
    votes: Mapping[Hash32, Iterable[int]],
    pending: Iterable[int] = (),
    *,
    newcomer: int = NEWCOMER_WEIGHT,
) -> int:
    """How many more workers of weight `newcomer` (at least 2) make consensus possible; 0 if it is already."""
    assert newcomer >= NEWCOMER_WEIGHT, "no wallet weighs less, and the loop would not end"
    group, others = _forecast(votes, pending)
    count = 0
    while not consensus_reached(trust, group, others):
        group = max(group, 1) * newcomer
        count += 1
    return count


def _forecast(votes: Mapping[Hash32, Iterable[int]], pending: Iterable[int]) -> tuple[int, int]:
    """Weight of the leading result once all pending workers have joined it, and of all other results together."""
    groups = sorted((group_weight(weights) for weights in votes.values()), reverse=True)
    leading = groups[:1] if groups and groups[0] else []
    return group_weight((*leading, *pending)), sum(groups[1:])
