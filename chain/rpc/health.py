"""What is known of each of several nodes, and which of them to ask next. Pure: times come in as arguments.

unknown ──says its chain and head──► usable; before that it is asked nothing else
usable ──failure──► failing: not asked, only checked, after 1 s, then twice that, up to 60 s ──answer──► usable
usable ──head too far behind the best, or syncing──► lagging ──head seen near the best──► usable
anything ──another chain id──► wrong for good
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from protocol.types import BlockNumber

#: Checks whose times are remembered: 40 s of them.
LATENCIES = 8
#: Seconds for which a failing node is left alone: first, and at most.
PAUSE_FIRST, PAUSE_LAST = 1.0, 60.0
#: Doublings of the first that are counted: more than lead to the last, since a float ends at the 1,024th.
_MOST_DOUBLINGS = 16
#: Blocks a node may be behind the best one before it gets no more questions.
MOST_LAG = 3
#: How much slower than the fastest the present node may be before another is taken: changing costs a mixed view.
MUCH_SLOWER = 5.0


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """What is known of one node: latencies, failures in a row, head.

    Values never change; each event makes a new one.
    """

    latencies: tuple[float, ...] = ()
    failures: int = 0
    #: Time (monotonic seconds) until which a failing node is not even checked.
    paused_until: float = 0.0
    head: BlockNumber | None = None
    wrong_chain: bool = False
    #: Whether it says that it still reads the chain: what it lacks may exist.
    syncing: bool = False

    @property
    def on_our_chain(self) -> bool:
        """Whether the node has said that it is on our chain."""
        return self.head is not None and not self.wrong_chain

    @property
    def latency(self) -> float:
        """Median seconds of the node's last checks; 0 while there is none."""
        return median(self.latencies) if self.latencies else 0.0

    def answered(self) -> NodeHealth:
        """The record after the node answered a request."""
        return replace(self, failures=0, paused_until=0.0)

    def failed(self, now: float) -> NodeHealth:
        """The record after the node did not answer at `now` (monotonic seconds): it pauses, twice as long each time.

        One failure suffices, since each may have cost a whole timeout.
        """
        pause = min(PAUSE_FIRST * 2.0 ** min(self.failures, _MOST_DOUBLINGS), PAUSE_LAST)
        return replace(self, failures=self.failures + 1, paused_until=now + pause)

    def checked(self, head: BlockNumber, seconds: float, *, right_chain: bool, syncing: bool = False) -> NodeHealth:
        """The record after a check, which took `seconds`, read the node's chain id and head.

        Only checks are timed, since all nodes get the same request then.
        """
        latencies = (*self.latencies[1 - LATENCIES :], seconds)
        return replace(self.answered(), head=head, wrong_chain=not right_chain, syncing=syncing, latencies=latencies)


def usable(nodes: Sequence[NodeHealth]) -> list[int]:
    """Positions of the nodes that may be asked."""
    heads = [node.head if node.on_our_chain else None for node in nodes]
    least = max((head for head in heads if head is not None), default=0) - MOST_LAG
    return [
        position
        for position, (node, head) in enumerate(zip(nodes, heads, strict=True))
        if head is not None and head >= least and not node.failures and not node.syncing
    ]


def order(nodes: Sequence[NodeHealth], current: int | None) -> list[int]:
    """Positions of nodes in the order to try them: the present node while it is good, then the fastest first.

    If no node is usable, the one that failed longest ago; empty only if none has said that it is on our chain.
    """
    good = sorted(usable(nodes), key=lambda position: nodes[position].latency)
    if not good:
        right = [position for position, node in enumerate(nodes) if node.on_our_chain]
        return sorted(right, key=lambda position: nodes[position].paused_until)[:1]
    fastest = nodes[good[0]].latency
    if current is not None and current in good and nodes[current].latency <= MUCH_SLOWER * fastest:
        good.remove(current)
        good.insert(0, current)
    return good
