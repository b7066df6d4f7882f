"""`sluice scheduler run`."""

from __future__ import annotations

from typing import Annotated

import typer

from config.logging import configure
from config.metrics_folder import share
from config.settings import settings

Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Run only this process here (api, watch, pipeline, lane, beat, flower). Repeatable."),
]


def register(app: typer.Typer) -> None:
    """Add `sluice scheduler …`."""
    group = typer.Typer(no_args_is_help=True, help="The scheduler of one workerpool.")
    group.callback()(_group)
    group.command(
        "run", epilog="Examples: `sluice scheduler run`, `sluice scheduler run --only api`, `--only lane --only watch`"
    )(_run)
    app.add_typer(group, name="scheduler")


def _group() -> None:
    """The scheduler of one workerpool."""


def _run(only: Only = None) -> None:
    """Run the scheduler's processes until SIGTERM or Ctrl-C, starting again whichever dies.

    Needs the chain (`SLUICE_RPC_URL`, `SLUICE_HUB`, `SLUICE_WORKERPOOL`), the workerpool owner's wallet
    (`SLUICE_KEYSTORE` …), MongoDB, RabbitMQ and IPFS. Every setting is in docs/settings.md.
    """
    now = settings()
    configure(now, process="scheduler")
    share(now.metrics_dir or now.home / "metrics")
    # Imported here: help and mistakes should be told at once, and the processes are many.
    from ops import preflight  # noqa: PLC0415

    wallet, wanted = preflight.check(now, only or ())
    from ops import scheduler  # noqa: PLC0415

    scheduler.run(now, wallet, wanted)
