"""The facts that PoCo's rules depend on, read from the hub's views: viewTask, viewContribution, viewDeal."""

from __future__ import annotations

from dataclasses import dataclass

from chain.contracts import calls
from chain.lane.model.intent import Intent
from chain.rpc.answers import Reply
from protocol.errors import BadMessage, RpcError
from protocol.poco.view import ContributionStatus, TaskStatus
from protocol.types import Hash32, Timestamp, Wallet


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What the rules depend on: one task, and the asking wallet's vote on it. Deadlines are Unix seconds."""

    status: TaskStatus
    contribution_deadline: Timestamp = Timestamp(0)  # noqa: RUF009 - a NewType call has no state
    reveal_deadline: Timestamp = Timestamp(0)  # noqa: RUF009
    final_deadline: Timestamp = Timestamp(0)  # noqa: RUF009
    consensus: Hash32 | None = None
    revealed: int = 0
    winners: int = 0
    contributors: int = 0
    vote: ContributionStatus = ContributionStatus.UNSET
    vote_hash: Hash32 | None = None
    #: Whether its deal is on the chain. Only asked where a reorg may have taken it away.
    deal: bool = True


#: Words of viewTask's answer (32 bytes each, the first is the tuple's offset) and of viewContribution's, which is flat.
_STATUS, _CONTRIBUTION, _REVEAL, _FINAL, _CONSENSUS, _REVEALED, _WINNERS, _CONTRIBUTORS = 1, 5, 6, 7, 8, 9, 10, 11
_VOTE_STATUS, _VOTE_HASH = 0, 1
#: Of viewDeal's answer: its offset, three resources of three words, six more fields, and the place of the parameters
#: stand before the start time, which is 0 for a deal that was never made.
_DEAL_START = 17
_TASK_WORDS, _VOTE_WORDS, _DEAL_WORDS = 16, 5, 22


#: Stands for the answer of a view that was not asked; null is an answer, which tells nothing.
NOT_ASKED = object()
#: viewContribution's answer for a wallet that has not voted.
NO_VOTE = "0x" + "0" * 64 * _VOTE_WORDS


def view_task(intent: Intent) -> str:
    """Calldata of viewTask for an intent's task."""
    return calls.VIEW_TASK.encode(intent.subject)


def view_vote(intent: Intent) -> str:
    """Calldata of viewContribution for an intent's task and its wallet."""
    return calls.VIEW_CONTRIBUTION.encode(intent.subject, intent.lane.wallet)


def may_name(task: Reply, wallet: Wallet) -> bool:
    """Whether viewTask's answer names the wallet: among the contributors, who stay there for good once they voted."""
    return not isinstance(task, str) or wallet[2:].lower() in task.lower()


def facts(task: Reply, vote: Reply = NOT_ASKED, deal: Reply = NOT_ASKED) -> TaskFacts:
    """The facts that the rules need, from the answers of the views.

    Read word by word: a full decode takes 0.4 ms, and this runs for every queued intent. Raises RpcError, or BadMessage
    if an answer is too short.
    """
    words = _split_words(task, _TASK_WORDS)
    votes = None if vote is NOT_ASKED else _split_words(vote, _VOTE_WORDS)
    deals = None if deal is NOT_ASKED else _split_words(deal, _DEAL_WORDS)
    # The offset counts from the start of the tuple, one word in.
    contributors = words[1 + int(words[_CONTRIBUTORS], 16) // 32]
    return TaskFacts(
        status=TaskStatus(int(words[_STATUS], 16)),
        contribution_deadline=Timestamp(int(words[_CONTRIBUTION], 16)),
        reveal_deadline=Timestamp(int(words[_REVEAL], 16)),
        final_deadline=Timestamp(int(words[_FINAL], 16)),
        consensus=Hash32("0x" + words[_CONSENSUS]),
        revealed=int(words[_REVEALED], 16),
        winners=int(words[_WINNERS], 16),
        contributors=int(contributors, 16),
        vote=ContributionStatus(0 if votes is None else int(votes[_VOTE_STATUS], 16)),
        vote_hash=None if votes is None else Hash32("0x" + votes[_VOTE_HASH]),
        deal=deals is None or int(deals[_DEAL_START], 16) != 0,
    )


def _split_words(answer: Reply, least: int) -> list[str]:
    """A view's answer in words of 64 hex digits. Raises BadMessage if there are fewer than `least`."""
    if isinstance(answer, RpcError):
        raise answer
    if not isinstance(answer, str):
        raise BadMessage(why="a view answered no bytes")
    words = [answer[start : start + 64] for start in range(2, len(answer), 64)]
    if len(words) < least:
        raise BadMessage(why=f"a view answered {len(words)} words instead of {least}")
    return words
