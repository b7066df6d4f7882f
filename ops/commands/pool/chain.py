"""`sluice chain …`: how far the watcher is, and whether what it stored is what the chain says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from chain.contracts.ens_names import with_addresses
from chain.contracts.hub import Hub
from chain.rpc.client import Rpc
from chain.rpc.pool import connect
from chain.watch import audit as auditing
from chain.watch import status as looking
from chain.watch.audit import Audit, DealPlace
from chain.watch.watcher import Reorg, Watcher
from config.settings import Settings, settings
from config.values.endpoints import rpc_urls
from ops.admin import screen
from pipeline.domain.condition.health import stale_after
from pipeline.store.client import Store, answering
from protocol.counts import count
from protocol.errors import BadInput, BadSetting
from protocol.poco.events import SchedulerNotice, Seen
from protocol.types import BlockNumber, Contract

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]
From = Annotated[int | None, typer.Option("--from", help="First block.", min=0)]
To = Annotated[int | None, typer.Option("--to", help="Last block; default: the last one followed.", min=0)]


def register(app: typer.Typer) -> None:
    """Add `sluice chain …`."""
    group = typer.Typer(
        no_args_is_help=True,
        help="What the watcher read from the chain: its progress, checks, repairs. For the scheduler's machine.",
    )
    group.command("status", epilog="Examples: `sluice chain status`, `sluice chain status --json`")(_status)
    group.command("audit", epilog="Examples: `sluice chain audit`, `sluice chain audit --from 1000 --to 2000 --json`")(
        _audit
    )
    group.command(
        "replay",
        epilog="Examples: `sluice chain replay --from 1000 --to 2000 --dry-run`, `sluice chain replay --from 1000`",
    )(_replay)
    app.add_typer(group, name="chain")


def _status(as_json: Json = False) -> None:
    """Nodes, the last block followed, how far it is behind, what is stored, recent reorgs. Exit code 1 if odd."""
    now = settings()
    store = Store.open(now)
    with answering():
        cursor, reorgs = store.chain.cursor(), store.chain.reorgs()
        (deals, waiting), logs = store.deals.counts(), store.chain.logs.count()
        aside = store.quarantine.counts()
    nodes = []
    for url in rpc_urls(now):
        with Rpc(url, now.rpc_timeout) as rpc:
            nodes.append(looking.ask_node(rpc, cursor))
    bad = looking.node_problems(nodes, now.chain_id, screen.clock(), stale_after(now.block_time))
    odd = [*bad, *_quarantine_sentences(aside)]
    found = {
        "cursor": None if cursor is None else asdict(cursor),
        "lag": max((node.lag for node in nodes if node.lag is not None), default=None),
        "nodes": [asdict(node) for node in nodes],
        "deals": deals,
        "deals_waiting": waiting,
        "logs": logs,
        "quarantine": aside,
        "reorgs": [{"depth": reorg.depth, **asdict(reorg)} for reorg in reorgs],
        "odd": odd,
    }
    if as_json:
        _print_json(found)
    else:
        _print_status(found, nodes, reorgs)
    if odd:
        raise typer.Exit(1)


def _audit(first: From = None, last: To = None, as_json: Json = False) -> None:
    """Compare deals and logs in the database with the chain: missing ones, extra ones. Exit code 1 if there are any.

    Without `--from` from `SLUICE_START_BLOCK` on, or where `sluice scheduler adopt` began. Changes nothing, which
    `sluice chain replay` does.
    """
    with _open_chain() as opened:
        span = opened.span(first, last)
        found = _unclean(auditing.audit(opened.watcher, opened.store.chain, *span), span)
        aside = _quarantine_sentences(opened.store.quarantine.counts())
    _print_differences(span, found, as_json, {"mend": _replay_command(found), "quarantine": aside})
    for line in aside:
        print(line, file=sys.stderr)
    if found or aside:
        raise typer.Exit(1)


def _replay(
    first: Annotated[int, typer.Option("--from", help="First block.", min=0)],
    last: To = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Read blocks again: store what is missing, take away what the chain does not have, have the tasks looked at.

    The scheduler may run meanwhile; its next sweep looks at the deals and tasks concerned.
    """
    with _open_chain() as opened:
        span = opened.span(first, last)
        walk = auditing.audit if dry_run else auditing.replay
        found = _unclean(walk(opened.watcher, opened.store.chain, *span), span)
    _print_differences(span, found, as_json, {"done": not dry_run})


def _quarantine_sentences(counts: Mapping[str, int]) -> list[str]:
    """One sentence for each collection with quarantined rows, for `sluice chain status`."""
    return [
        f"{count} of {collection} are quarantined because this release cannot use them: see `sluice quarantine ls`."
        for collection, count in sorted(counts.items())
    ]


# -- what is asked -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _OpenedChain:
    """The scheduler's store and its chain, without the scheduler."""

    settings: Settings
    store: Store
    watcher: Watcher

    def span(self, first: int | None, last: int | None) -> tuple[BlockNumber, BlockNumber]:
        """First and last block to compare, with defaults. Raises BadInput if they were not all followed."""
        cursor = self.store.chain.cursor()
        if cursor is None:
            raise BadInput(what="No block was followed yet: start the scheduler first (`sluice scheduler run`).")
        start = self.store.chain.followed_from(self.settings.start_block) if first is None else first
        end = cursor.number if last is None else last
        if end > cursor.number:
            raise BadInput(what=f"Block {end} was not followed yet: the last one is block {cursor.number}.")
        if start > end:
            raise BadInput(what=f"The first block, {start}, is above the last, {end}.")
        return BlockNumber(start), BlockNumber(end)


@contextmanager
def _open_chain() -> Iterator[_OpenedChain]:
    """The store and a watcher for the block, without the scheduler's processes. Used by each command here."""
    now = with_addresses(settings())
    hub, workerpool = _require_address(now.hub, "SLUICE_HUB"), _require_address(now.workerpool, "SLUICE_WORKERPOOL")
    store = Store.open(now)
    with closing(connect(now)) as rpc, answering():
        reader = Hub(rpc, hub)
        reader.check_chain(now)
        yield _OpenedChain(now, store, Watcher(rpc, reader, workerpool, store.chain))


def _require_address(value: str | None, name: str) -> Contract:
    """The contract's address in setting `name`. Raises BadSetting if it is not set."""
    if value is None:
        raise BadSetting(name=name, why="it is not set", fix="Give the contract's address.")
    return Contract(value.lower())


def _unclean(found: Iterator[Audit], span: tuple[BlockNumber, BlockNumber]) -> list[Audit]:
    """The steps of an audit in which store and chain differ; a terminal is shown how far it is."""
    first, last, unclean = *span, []
    # A bar that goes when it is full; nothing at all where standard error is no terminal.
    console = Console(stderr=True)
    with Progress(
        *Progress.get_default_columns(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        blocks = bar.add_task("Comparing blocks …", total=last - first + 1)
        for one in found:
            bar.update(blocks, completed=one.last.number - first + 1)
            if not one.clean:
                unclean.append(one)
    return unclean


def _replay_command(found: Sequence[Audit]) -> str | None:
    """The `sluice chain replay` command that repairs these differences; None if there are none."""
    if not found:
        return None
    return f"sluice chain replay --from {found[0].first} --to {found[-1].last.number}"


# -- what is said ------------------------------------------------------------------------------------------------------


def _print_differences(
    span: tuple[BlockNumber, BlockNumber], found: Sequence[Audit], as_json: bool, more: dict[str, object]
) -> None:
    """Print the differences that `audit` or `replay` found, as JSON or in words. `more`: further fields of the JSON."""
    rows = {
        "missing": [_log_json(seen) for one in found for seen in one.missing],
        "extra": [_log_json(seen) for one in found for seen in one.extra],
        "missing_deals": [_deal_json(deal) for one in found for deal in one.missing_deals],
        "extra_deals": [_deal_json(deal) for one in found for deal in one.extra_deals],
    }
    if as_json:
        _print_json({"from": span[0], "to": span[1], "clean": not found, **rows, **more})
        return
    console = screen.console()
    if not found:
        console.print(f"Blocks {span[0]} to {span[1]}: all is stored as the chain says.")
        return
    lines = [
        (
            what.replace("_", " "),
            str(item.get("kind", "deal")),
            str(item.get("task_id", item.get("deal_id"))),
            str(item["block"]),
            str(item.get("log_index", "")),
        )
        for what, items in rows.items()
        for item in items
    ]
    console.print(screen.table(("what", "kind", "of", "block", "log"), lines, empty=""))
    if more.get("mend"):
        console.print(f"To repair it: {more['mend']}", markup=False)
    elif more["done"]:
        console.print("Repaired. The next sweep reads the deals and tasks concerned.")
    else:
        console.print("Nothing was changed.")


def _print_status(found: dict[str, Any], nodes: Sequence[looking.NodeStatus], reorgs: Sequence[Reorg]) -> None:
    """Print the answer of `sluice chain status` in words and a table."""
    console, cursor = Console(soft_wrap=True, markup=False), found["cursor"]
    where = "nothing followed yet" if cursor is None else f"block {cursor['number']} {cursor['hash']}"
    lag = found["lag"]
    way = "" if lag is None else f", {count(lag, 'block')} behind" if lag >= 0 else f", {count(-lag, 'block')} ahead"
    console.print(f"followed: {where}{way}")
    console.print(
        f"stored: {count(found['deals'], 'deal')} ({found['deals_waiting']} to be ingested),"
        f" {count(found['logs'], 'row')} of events"
    )
    table = Table("node", "head", "its age", "safe", "finalized", "has the last block followed", box=None)
    for node in nodes:
        has = {None: "–", True: "yes", False: "no: replaced"}[node.has_cursor]
        head, safe, finalized = (str(n if n is not None else "–") for n in (node.head, node.safe, node.finalized))
        old = screen.age(None if node.timestamp is None else screen.clock() - node.timestamp)
        table.add_row(node.name, head, old, safe, finalized, has)
    console.print(table)
    for reorg in reorgs:
        console.print(
            f"reorg: {count(reorg.depth, 'block')} above block {reorg.ancestor.number},"
            f" {count(reorg.tasks, 'task')} touched"
        )
    for sentence in found["odd"]:
        console.print(sentence)


def _log_json(seen: Seen) -> dict[str, Any]:
    """A stored event as JSON for the command's answer."""
    event = seen.event
    subject = {"deal_id": event.deal_id} if isinstance(event, SchedulerNotice) else {"task_id": event.task_id}
    return {
        "kind": type(event).__name__,
        **subject,
        "block": seen.block_number,
        "block_hash": seen.block_hash,
        "log_index": seen.log_index,
        "tx": seen.tx_hash,
    }


def _deal_json(deal: DealPlace) -> dict[str, Any]:
    """A deal and its block as JSON for the command's answer."""
    return {"deal_id": deal.deal_id, "block": deal.block_number, "block_hash": deal.block_hash}


def _print_json(answer: object) -> None:
    """Print an answer as indented JSON."""
    print(json.dumps(answer, indent=1))
