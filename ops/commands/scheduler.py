"""`sluice scheduler run | doctor | certificate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chain.keystore import load_key
from config.logging import configure
from config.metrics_folder import share
from config.settings import settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Run only this process here (api, watch, pipeline, lane, beat, flower). Repeatable."),
]

Wait = Annotated[
    float | None,
    typer.Option("--wait", help="Seconds to wait for MongoDB, RabbitMQ and the node to answer. Default: 30.", min=0),
]


def register(app: typer.Typer) -> None:
    """Add `sluice scheduler …`."""
    group = typer.Typer(no_args_is_help=True, help="The scheduler of one workerpool.")
    group.callback()(_group)
    group.command(
        "run", epilog="Examples: `sluice scheduler run`, `sluice scheduler run --only api`, `--only lane --only watch`"
    )(_run)
    group.command("doctor", epilog="Examples: `sluice scheduler doctor`, `sluice scheduler doctor --json`")(_doctor)
    group.command(
        "certificate",
        epilog="Example: `sluice scheduler certificate pool.example --folder docker/secrets`",
    )(_certificate)
    app.add_typer(group, name="scheduler")


def _group() -> None:
    """The scheduler of one workerpool."""


def _run(only: Only = None, wait: Wait = None) -> None:
    """Run the scheduler's processes until SIGTERM or Ctrl-C, starting again whichever dies.

    Needs the chain (`SLUICE_RPC_URL`, `SLUICE_HUB`, `SLUICE_WORKERPOOL`), the workerpool owner's wallet
    (`SLUICE_KEYSTORE` …), MongoDB, RabbitMQ and IPFS. Every setting is in docs/settings.md.
    """
    now = settings()
    configure(now, process="scheduler")
    share(now.metrics_dir or now.home / "metrics")
    # Imported here: help and mistakes should be printed at once, and the processes are many.
    from ops import preflight  # noqa: PLC0415

    key, wanted = preflight.check(now, only or ())
    seconds = preflight.WAIT_SECONDS if wait is None else wait
    now = preflight.resolve_names(now, wait=seconds)
    preflight.require(now, key, wait=seconds)
    preflight.require_free_name(now, wanted, wait=seconds)
    from ops import scheduler  # noqa: PLC0415

    scheduler.run(now, key.wallet, wanted)


def _doctor(as_json: Json = False) -> None:
    """Say for each part of the pool whether it can do its share, and what to do if not. Exit code 1 if one cannot.

    Asks the scheduler that runs here, or where none does the servers it would need.
    """
    from chain.contracts.ens_names import with_addresses  # noqa: PLC0415
    from ops import preflight  # noqa: PLC0415

    now = with_addresses(settings())
    findings = preflight.examine(now, load_key(now))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        table = Table(box=None, show_header=False)
        for finding in findings:
            verdict = "[green]ok[/]" if finding.ok else "[red]bad[/]" if finding.fatal else "[yellow]bad[/]"
            table.add_row(verdict, finding.part, escape(f"{finding.says}. {finding.fix}".rstrip(". ")))
        Console(soft_wrap=True).print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _certificate(
    hosts: Annotated[list[str], typer.Argument(help="Names or addresses by which workers reach RabbitMQ.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where the files are, or are made.")] = Path(),
    as_json: Json = False,
) -> None:
    """Make a certificate for RabbitMQ, signed by a CA of your own, where no public CA signs one; renew what ends soon.

    Files: `cert.pem` and `key.pem` for RabbitMQ, `ca.pem` for workers (`SLUICE_AMQP_CA_FILE`), and `ca-key.pem`, which
    signs the next one and belongs on no server. Run it again within the last month of the certificate's 397 days: what
    is good is kept.
    """
    from ops.stack import certificates  # noqa: PLC0415 # 40 ms to import

    files = certificates.ensure(folder, hosts)
    made = {
        "certificate": files.certificate,
        "key": files.key,
        "ca": files.ca,
        "ca_key": files.ca_key,
    }
    if as_json:
        print(json.dumps({name: str(path) for name, path in made.items()}, indent=1))
        return
    print(f"For RabbitMQ: {files.certificate} and {files.key}, which only its user may read.")
    print(f"For workers: {files.ca}. Give it out, and have them set SLUICE_AMQP_CA_FILE to it.")
    print(f"Keep for yourself: {files.ca_key}. Whoever has it can pass for your broker.")
