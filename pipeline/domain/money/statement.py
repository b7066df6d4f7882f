"""What the pool earned and spent, in lines: by task, day, worker or kind. Pure.

Every transaction and every movement is in exactly one place of each list, and a transaction's gas is shared among the
tasks that it carries without a wei lost, so each list has the same sums. Only the list by worker is about others: what
the contracts paid to the pool's machines, and took from them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from pipeline.domain.money.gas import NonceCost, split_evenly
from protocol.poco.money import Kind, Movement
from protocol.types import Wallet

#: The line of what belongs to no task.
NO_TASK = "no task"
_TASK_CHARACTERS = 66


class By(StrEnum):
    """What a line of the statement sums up."""

    TASK = "task"
    DAY = "day"
    WORKER = "worker"
    KIND = "kind"


@dataclass(slots=True)
class Line:
    """Sums of one task, day, worker or kind. Wei and nRLC."""

    key: str
    #: Unix seconds of the newest entry.
    at: float = 0.0
    #: Transactions that it had a share in, and what they cost.
    transactions: int = 0
    gas_wei: int = 0
    #: Native token that the wallet sent along.
    sent_wei: int = 0
    #: Sum of amounts by kind of movement, nRLC.
    amounts: dict[Kind, int] = field(default_factory=dict)
    #: Movements in the sums.
    count: int = 0

    @property
    def earned(self) -> int:
        """nRLC made or lost: what was rewarded less what was seized. What is locked and unlocked again is neither."""
        got = self.amounts.get(Kind.REWARD, 0) + self.amounts.get(Kind.KITTY, 0)
        return got - self.amounts.get(Kind.SEIZE, 0)

    def pay(self, gas: int, value: int, at: float, transactions: int = 1) -> None:
        """Add a share of one transaction's gas and value to the line, or of the sum of several."""
        self.transactions += transactions
        self.gas_wei += gas
        self.sent_wei += value
        self.at = max(self.at, at)

    def book(self, movement: Movement) -> None:
        """Add a movement of RLC to the line."""
        self.amounts[movement.kind] = self.amounts.get(movement.kind, 0) + movement.amount
        self.count += 1
        self.at = max(self.at, float(movement.at))


def statement(
    by: By,
    wallet: Wallet,
    costs: Iterable[NonceCost],
    movements: Iterable[Movement],
    machines: Collection[Wallet] = (),
) -> list[Line]:
    """The ledger's lines, each the sums for one kind, day, task or worker (`by`); of days and tasks the newest last.
    `wallet`: the scheduler's. `machines`: the workers that get a line in a list by worker.
    """
    lines: dict[str, Line] = {}

    def line(key: str) -> Line:
        """The line with this key, begun at its first use."""
        return lines.setdefault(key, Line(key))

    if by is not By.WORKER:
        for cost in costs:
            keys = _keys_of_cost(by, cost)
            values = split_evenly(cost.moved, len(keys))
            for key, gas, value in zip(keys, split_evenly(cost.fee, len(keys)), values, strict=True):
                line(key).pay(gas, value, cost.at, cost.count)
    for movement in movements:
        if (movement.owner == wallet) is (by is not By.WORKER) and (by is not By.WORKER or movement.owner in machines):
            line(_key_of_movement(by, movement)).book(movement)
    return sorted(lines.values(), key=lambda found: _place(by, found))


@dataclass(frozen=True, slots=True)
class Page:
    """Some lines of a statement. `more`: how many it has beside them: before them in the newest ones, else after them.
    `next`: where to go on; None: these were the last.
    """

    lines: list[Line]
    more: int
    next: str | None = None


def page(by: By, lines: list[Line], limit: int, after: str | None) -> Page:
    """The newest lines of a statement, `limit` at most; or, with `after`, the first ones that come after that place
    (`next` of the page before, empty for the first page).

    A line that grows moves towards the end, never back: a reader of all pages sees each line, and of a line seen
    twice the second is the right one. Raises ValueError if `after` is no such place.
    """
    if after is None:
        return Page(lines[-limit:], max(0, len(lines) - limit))
    at, _, key = after.partition(":")
    rest = [each for each in lines if _place(by, each) > (float(at), key)] if after else lines
    shown = rest[:limit]
    more = len(rest) - len(shown)
    moment, key = _place(by, shown[-1]) if shown else (0.0, "")
    return Page(shown, more, f"{moment!r}:{key}" if more else None)


def total(lines: Iterable[Line]) -> Line:
    """The sum of all lines."""
    found = Line("all")
    for each in lines:
        found.transactions += each.transactions
        found.gas_wei += each.gas_wei
        found.sent_wei += each.sent_wei
        found.count += each.count
        found.at = max(found.at, each.at)
        for kind, amount in each.amounts.items():
            found.amounts[kind] = found.amounts.get(kind, 0) + amount
    return found


def _place(by: By, line: Line) -> tuple[float, str]:
    """The sort key of a line: tasks by time, all else by name."""
    return line.at if by is By.TASK else 0.0, line.key


def _keys_of_cost(by: By, cost: NonceCost) -> list[str]:
    """The lines that a transaction's cost belongs to."""
    if by is By.DAY:
        return [_day(cost.at)]
    if by is By.KIND:
        return [f"gas: {cost.kind}"]
    tasks = [subject for subject in cost.subjects if subject.startswith("0x") and len(subject) == _TASK_CHARACTERS]
    return tasks or [NO_TASK]


def _key_of_movement(by: By, movement: Movement) -> str:
    """The line that a movement of RLC belongs to."""
    if by is By.DAY:
        return _day(movement.at)
    if by is By.KIND:
        return str(movement.kind)
    return movement.owner if by is By.WORKER else movement.task or NO_TASK


def _day(at: float) -> str:
    """The day in UTC."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()
