"""`sluice queue …`: RabbitMQ's queues as the pool uses them."""

from __future__ import annotations

import typer

from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import Json


def register(app: typer.Typer) -> None:
    """Add `sluice queue …`."""
    group = typer.Typer(no_args_is_help=True, help="RabbitMQ's queues: how much waits, and who reads.")
    group.command("ls", epilog="Examples: `sluice queue ls`, `sluice queue ls --json`")(_ls)
    app.add_typer(group, name="queue")


def _ls(as_json: Json = False) -> None:
    """The scheduler's queues, and those of all machines together. RabbitMQ's counts lag by some seconds."""
    found = OperatorApi.open().get("/queues")
    rows = [
        (
            item["name"] if item["machines"] is None else f"{item['machines']} queues of machines",
            str(item["ready"]),
            str(item["unacknowledged"]),
            str(item["consumers"]),
        )
        for item in found
    ]
    screen.show(found, screen.table(("queue", "ready", "in work", "readers"), rows, empty="No queue."), as_json=as_json)
