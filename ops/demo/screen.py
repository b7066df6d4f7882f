"""The demo on the terminal: live progress while it runs, then a report of each deal. Everything goes to `console`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ops.demo.plan import Purchase
from ops.demo.report import DealStory
from ops.market.match import Matched
from protocol.poco.view import ChainView, TaskStatus
from protocol.types import NRlc, TaskId, Wallet

#: Tasks of a deal whose time lines are printed in full; the others follow the same pattern.
SHOWN_TASKS = 3
_ORDER = (TaskStatus.UNSET, TaskStatus.ACTIVE, TaskStatus.REVEALING, TaskStatus.COMPLETED, TaskStatus.FAILED)
_WORDS = {TaskStatus.UNSET: "matched"}


class Progress:
    """A table that is redrawn whenever the chain moves."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._deals: list[tuple[Purchase, Matched]] = []

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def add(self, deals: Sequence[tuple[Purchase, Matched]]) -> None:
        """Show these deals in the table as well."""
        self._deals.extend(deals)

    def show(self, views: Mapping[TaskId, ChainView], block: int) -> None:
        """Redraw the table with the tasks' state at `block`."""
        table = Table("deal", "trust", "tasks", "votes", "revealed", "on chain", title=f"block {block}")
        for purchase, matched in self._deals:
            mine = [views[task] for task in matched.tasks if task in views]
            counts = Counter(view.status for view in mine)
            table.add_row(
                purchase.name,
                str(matched.trust),
                str(len(matched.tasks)),
                str(sum(len(view.contributions) for view in mine)),
                str(sum(len(view.revealed) for view in mine)),
                ", ".join(f"{counts[s]} {_WORDS.get(s, s.name)}" for s in _ORDER if counts[s]),
            )
        self._live.update(table, refresh=True)


def print_stories(console: Console, stories: Sequence[DealStory], names: Mapping[Wallet, str]) -> None:
    """Print each deal's time line in blocks, its fetched result, and who earned what."""
    for story in stories:
        console.print(
            Panel(_render_story(story, names), title=f"[bold]{story.purchase.name}[/]: {story.purchase.about}")
        )


def print_endpoints(console: Console, endpoints: Mapping[str, str], *, running: bool) -> None:
    """Print the addresses of the demo's parts."""
    table = Table.grid(padding=(0, 2))
    for name, value in endpoints.items():
        table.add_row(name, value)
    title = "still running" if running else "was at"
    console.print(Panel(table, title=title))


def _render_story(story: DealStory, names: Mapping[Wallet, str]) -> Group:
    """The lines of one deal: its tasks' time lines, liars, results and gains."""
    rows: list[Text | Table] = [Text(f"deal {story.matched.deal_id}")]
    for task in story.matched.tasks[:SHOWN_TASKS]:
        line = story.lines[task]
        workers = ", ".join(names.get(wallet, wallet) for wallet in line.workers)
        rows.append(Text(f"task {task[:10]}…  {line.text()}  ({workers})"))
        rows.extend(Text(f"  {names.get(wallet, wallet)} lied and lost its stake") for wallet in line.faulty)
    hidden = len(story.matched.tasks) - SHOWN_TASKS
    if hidden > 0:
        longest = max(line.blocks or 0 for line in story.lines.values())
        rows.append(Text(f"… and {hidden} more tasks; the longest took {longest} blocks"))
    first = story.results.get(story.matched.tasks[0])
    if first is not None:
        if story.purchase.confidential:
            rows.append(Text("the enclave had: the dataset's key, a secret of the developer, one of the requester"))
        said = "result, opened with the requester's key: " if story.purchase.confidential else "result: "
        rows.append(Text(said + " | ".join(first.strip().splitlines())))
    rows.append(Text("nRLC: " + ", ".join(_gain_text(names, wallet, gain) for wallet, gain in story.gains.items())))
    return Group(*rows)


def _gain_text(names: Mapping[Wallet, str], wallet: Wallet, gain: NRlc) -> str:
    """What one wallet gained in nRLC, with its name."""
    return f"{names.get(wallet, wallet[:10] + '…')} {gain:+d}"
