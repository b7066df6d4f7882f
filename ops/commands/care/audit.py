"""`sluice audit`: database, chain, RabbitMQ and IPFS compared with each other; `--fix` repairs what is safe."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from config.settings import settings
from ops.admin import screen
from ops.admin.screen import Json
from pipeline.domain.audit.findings import Difference, Unasked, lasting
from protocol.counts import count

#: Seconds between the two readings: work in progress has changed by then.
WAIT_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Add `sluice audit`."""
    app.command("audit", epilog="Examples: `sluice audit`, `sluice audit --fix`, `sluice audit --wait 60 --json`")(
        _audit
    )


def _audit(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what is safe to repair; the scheduler should run.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds between the two readings that must both find a difference.")
    ] = WAIT_SECONDS,
    as_json: Json = False,
) -> None:
    """Compare deals, tasks, machines, transactions, stake, queues and kept results: everything that two parts know.

    Names each difference with what to do. What a server does not tell is listed as not asked, and is no difference.
    Compared are all open tasks and the newest of what is over; `sluice chain audit` compares all blocks, and
    `sluice tx audit` more transactions. Exit code 1 if a difference is left or something could not be asked.
    """
    from pipeline.flow.audit.repairs import repair  # noqa: PLC0415
    from pipeline.flow.audit.run import Reading  # noqa: PLC0415 # help is printed at once
    from pipeline.scheduler import Scheduler  # noqa: PLC0415
    from pipeline.store.client import answering  # noqa: PLC0415

    scheduler = Scheduler.open(settings())
    try:
        with answering(), Console(stderr=True, highlight=False).status("Reading and comparing …") as line:
            reading = Reading(scheduler, progress=lambda done: line.update(f"First reading: {done}"))
            reading.run()
            found = reading.differences
            if found:
                line.update(f"{count(len(found), 'difference')}; read again in {wait:g} s, to see which of them last …")
                time.sleep(wait)
                again = Reading(scheduler, progress=lambda done: line.update(f"Second reading: {done}"))
                again.run()
                reading, found = again, lasting(found, again.differences)
            left = repair(scheduler, found) if fix else found
            scheduler.store.audits.note(screen.clock(), left, reading.not_asked)
    finally:
        scheduler.close()
    answer = {
        "differences": [_json(item, repaired=item not in left) for item in found],
        "not_asked": [asdict(item) for item in reading.not_asked],
        "fixed": len(found) - len(left),
    }
    screen.show(answer, _drawn(found, left, reading.not_asked, fix=fix), as_json=as_json)
    if left or reading.not_asked:
        raise typer.Exit(1)


def _json(item: Difference, *, repaired: bool) -> dict[str, Any]:
    """A difference as JSON for the command's answer."""
    return {
        "kind": item.kind,
        "subject": item.subject,
        "says": item.says,
        "fix": item.fix,
        "can_be_fixed": item.repair is not None,
        "fixed": repaired,
    }


def _drawn(found: list[Difference], left: list[Difference], not_asked: list[Unasked], *, fix: bool) -> RenderableType:
    """The answer in words: three lines for each difference."""
    lines: list[str] = []
    for item in found:
        done = "fixed; see with the next `sluice audit` that it is" if item not in left else item.fix
        lines += [f"{item.kind}  {item.subject}", f"    {item.says}", f"    → {done}"]
    lines += [f"could not be asked: {item.what}: {item.why}" for item in not_asked]
    if not found:
        lines.append("No difference was found." if not_asked else "Database, chain, RabbitMQ and IPFS agree.")
    elif not fix and any(item.repair is not None for item in found):
        lines.append(f"{count(len(found), 'difference')}. Nothing was changed; `--fix` repairs what is safe.")
    return Text("\n".join(map(screen.printable, lines)))
