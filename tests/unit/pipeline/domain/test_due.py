"""Which due tasks are visited: tasks that are waited for first, and no deal's many tasks before another's few."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.due import LATER_SHARE, DueTask, Turn, choose_due
from pipeline.domain.records import TaskStage
from protocol.types import DealId, TaskId

NOW = 1000.0
OPEN_STAGES = sorted(set(TaskStage) - {TaskStage.COMPLETED, TaskStage.FAILED})


def due(name: str, deal: str, stage: str = TaskStage.RUNNING, *, left: float = 500.0, overdue: float = 0.0) -> DueTask:
    """A task whose contribution deadline is in `left` seconds, and its final one 100 later."""
    return DueTask(TaskId(name), DealId(deal), stage, NOW - overdue, NOW + left, NOW + left + 100)


def bag(size: int, stage: str = TaskStage.RUNNING, *, left: float = 500.0, overdue: float = 60.0) -> list[DueTask]:
    return [due(f"bag {n:06}", "bag", stage, left=left, overdue=overdue) for n in range(size)]


@st.composite
def mixes(draw: st.DrawFn) -> list[DueTask]:
    """Any tasks of a few deals, with stages of this release and of others."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.sampled_from("abcd"),
                st.sampled_from([*OPEN_STAGES, "A_STAGE_OF_ANOTHER_RELEASE"]),
                st.sampled_from([-1000.0, -50.0, 0.0, 50.0]),
                st.integers(0, 300),
            ),
            max_size=60,
        )
    )
    return [
        due(f"{deal}{n}", deal, stage, left=left, overdue=overdue)
        for n, (deal, stage, left, overdue) in enumerate(drawn)
    ]


@given(mixes(), st.integers(1, 50), st.integers(-10, 400))
def test_of_any_mix_tasks_that_are_waited_for_come_first_and_expired_ones_are_bounded(
    mix: list[DueTask], most: int, room: int
) -> None:
    chosen = choose_due(mix, NOW, most, room)
    turns = {task.task_id: task.turn(NOW) for task in mix}
    count = Counter(turns.values())
    given_turns = [turns[task] for task in chosen]

    assert len(chosen) == len(set(chosen)) <= most
    assert given_turns == sorted(given_turns)
    least = {turn: min(count[turn], most // LATER_SHARE) for turn in Turn}
    shares = {turn: given_turns.count(turn) for turn in Turn}
    assert least[Turn.EXPIRED] <= shares[Turn.EXPIRED] <= max(room, least[Turn.EXPIRED])
    # Nothing else is held back: a later turn has its small share, and what the earlier ones leave.
    early = min(count[Turn.EARLY], max(least[Turn.EARLY], most - least[Turn.EXPIRED] - shares[Turn.WAITED_FOR]))
    first = min(count[Turn.WAITED_FOR], most - least[Turn.EARLY] - least[Turn.EXPIRED])
    assert (shares[Turn.WAITED_FOR], shares[Turn.EARLY]) == (first, early)


@given(mixes(), st.integers(1, 50), st.integers(0, 400))
def test_within_a_class_no_deal_gets_two_more_than_one_that_still_waits(
    mix: list[DueTask], most: int, room: int
) -> None:
    chosen = set(choose_due(mix, NOW, most, room))
    for turn in Turn:
        shares = Counter(task.deal for task in mix if task.turn(NOW) is turn and task.task_id in chosen)
        left = {task.deal for task in mix if task.turn(NOW) is turn and task.task_id not in chosen}
        assert all(max(shares.values(), default=0) - shares[deal] <= 1 for deal in left)


@given(mixes(), st.integers(1, 50), st.integers(0, 400))
def test_of_one_deal_the_longest_overdue_go_first(mix: list[DueTask], most: int, room: int) -> None:
    chosen = set(choose_due(mix, NOW, most, room))
    for turn in Turn:
        for deal in "abcd":
            tasks = sorted(
                (task for task in mix if task.deal == deal and task.turn(NOW) is turn),
                key=lambda task: (task.next_visit, task.task_id),
            )
            marks = [task.task_id in chosen for task in tasks]
            assert marks == sorted(marks, reverse=True)


@given(st.sampled_from(OPEN_STAGES), st.integers(1, 400), st.sampled_from([-1000.0, -50.0]))
def test_a_small_deal_is_served_first_when_a_whole_bag_passes_its_deadlines_at_once(
    stage: TaskStage, room: int, left: float
) -> None:
    behind = due("small", "small", TaskStage.RECEIVED, overdue=1)
    voting = due("voting", "other", TaskStage.CONSENSUS_REACHED, overdue=1)
    mix = [*bag(5_000, stage, left=left, overdue=300), behind, voting]
    chosen = choose_due(mix, NOW, 100, room)
    if mix[0].turn(NOW) is Turn.EXPIRED:
        assert chosen[:2] == [voting.task_id, behind.task_id]
        assert len(chosen) == 2 + min(98, max(room, 100 // LATER_SHARE))
    else:
        # Votes of the bag itself wait for their reveal: then both take turns.
        assert voting.task_id in chosen[:2]


def test_votes_that_wait_for_their_reveal_never_count_as_expired_before_the_final_deadline() -> None:
    for stage in set(OPEN_STAGES) - {TaskStage.RECEIVED, TaskStage.INITIALIZED}:
        assert due("x", "x", stage, left=-50).turn(NOW) is Turn.WAITED_FOR
        assert due("x", "x", stage, left=-100).turn(NOW) is Turn.EXPIRED


@given(st.sampled_from([TaskStage.RECEIVED, TaskStage.INITIALIZED]), st.sampled_from([500.0, -1000.0]))
def test_tasks_of_a_later_class_are_visited_although_earlier_ones_always_wait(stage: TaskStage, left: float) -> None:
    chosen = choose_due([*bag(50, stage, left=left), *(due(f"{n}", f"{n}") for n in range(1000))], NOW, 100, 0)
    assert sum(task.startswith("bag") for task in chosen) == 100 // LATER_SHARE
