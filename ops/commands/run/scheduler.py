"""`sluice scheduler run | doctor | adopt | certificate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chain.keystore import load_key
from config.logging import configure
from config.metrics_folder import share
from config.processes.lean_imports import lean_imports
from config.settings import settings
from ops.admin import screen
from ops.admin.asking import Yes, confirm, require_yes
from ops.admin.screen import DryRun, Json
from ops.admin.service_lines import JsonLines, write_json_lines
from protocol.counts import count

if TYPE_CHECKING:
    from ops.adopt import Adoption

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
        "run",
        epilog="Examples: `sluice scheduler run`, `sluice scheduler run --only api`, `run --only lane --only watch`",
    )(_run)
    group.command("doctor", epilog="Examples: `sluice scheduler doctor`, `sluice scheduler doctor --json`")(doctor)
    group.command(
        "adopt", epilog="Examples: `sluice scheduler adopt --dry-run`, `sluice scheduler adopt --yes --json`"
    )(_adopt)
    group.command(
        "certificate",
        epilog="Examples: `sluice scheduler certificate pool.example --folder docker/secrets`,"
        " `sluice scheduler certificate pool.example --dry-run --json`",
    )(_certificate)
    app.add_typer(group, name="scheduler")


def _group() -> None:
    """The scheduler of one workerpool."""


def _run(only: Only = None, wait: Wait = None, as_json: JsonLines = False) -> None:
    """Run the scheduler's processes until SIGTERM or Ctrl-C, starting again whichever dies.

    Needs the chain (`SLUICE_RPC_URL`, `SLUICE_HUB`, `SLUICE_WORKERPOOL`), the workerpool owner's wallet
    (`SLUICE_KEYSTORE` …), MongoDB, RabbitMQ and IPFS. Every setting is in docs/settings.md.
    """
    write_json_lines(as_json)
    now = settings()
    configure(now, process="scheduler")
    share(now.metrics_dir or now.home / "metrics")
    # Imported here: help and mistakes should be printed at once, and the processes are many.
    with lean_imports():
        from chain.rpc.library import load_web3  # noqa: PLC0415
        from ops import preflight  # noqa: PLC0415

    key, wanted = preflight.check(now, only or ())
    seconds = preflight.WAIT_SECONDS if wait is None else wait
    # Before the child that asks the servers: it would load it for itself, and that took as long as all else it does.
    load_web3()
    now = preflight.resolve_names(now, wait=seconds)
    preflight.require(now, key, wait=seconds, meanwhile=_import_scheduler)
    preflight.require_free_name(now, wanted, wait=seconds)
    from ops import scheduler  # noqa: PLC0415

    scheduler.run(now, key.wallet, wanted)


def _import_scheduler() -> None:
    """Import all that the scheduler's processes run: as long as it takes to ask the servers."""
    with lean_imports():
        import ops.scheduler  # noqa: F401, PLC0415


def doctor(as_json: Json = False) -> None:
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
            table.add_row(verdict, finding.part, escape(f"{finding.says.rstrip('.')}. {finding.fix}".rstrip(". ")))
        Console(soft_wrap=True).print(table)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _adopt(
    lowest: Annotated[
        int | None,
        typer.Option("--from", help="Block below which no deal is sought. Default: SLUICE_START_BLOCK.", min=0),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds for transactions of the wallet to get into a block.")
    ] = 60.0,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start a fresh database on a pool that something else ran: with the same workerpool and wallet, and deals open.

    Stop the other scheduler first: only what it sends in three blocks, or its place at your RabbitMQ, gives it away.
    Finds the open deals on chain, says what there is, and has the scheduler begin at the oldest of them; `sluice
    scheduler run` then finishes their tasks. Exit code 2 if it refuses.
    """
    from ops.adopt import adopt, preview  # noqa: PLC0415 # help is printed at once

    require_yes(yes=yes, dry_run=dry_run, as_json=as_json)
    now = settings()
    with Console(stderr=True, highlight=False).status("Looking at the wallet, then for open deals …") as status:
        found = preview(
            now,
            lowest=now.start_block if lowest is None else lowest,
            wait=0.0 if dry_run else wait,
            progress=lambda block, deals: status.update(f"Read down to block {block}: {count(deals, 'open deal')} …"),
        )
    says, answer = _found_words(found), _found_json(found)
    if not as_json:
        print("\n".join(says))
    if dry_run:
        screen.show({**answer, "done": False}, "Nothing was done.", as_json=as_json)
        return
    confirm("Adopt it?", yes=yes)
    first = adopt(now, found)
    next_step = f"The scheduler will read from block {first} on. Next: `sluice scheduler run`, then `sluice audit`."
    screen.show({**answer, "done": True}, next_step, as_json=as_json)


def _found_json(found: Adoption) -> dict[str, Any]:
    """What was found as JSON for the command's answer."""
    work = found.work
    return {
        "workerpool": found.workerpool,
        "wallet": found.wallet,
        "head": work.head.number,
        "first_block": work.first_block,
        "read_to": work.read_to,
        "deals": len(work.deals),
        "tasks": work.by_status,
        "votes": work.votes,
        "to_reveal": work.to_reveal,
        "voters": sorted(work.voters),
        "locked_nrlc": work.locked,
        "explained_nrlc": work.explained,
        "nonce": found.nonce,
        "pending": found.pending,
    }


def _found_words(found: Adoption) -> list[str]:
    """What was found in sentences."""
    work = found.work
    said = {
        "UNSET": "to be initialized",
        "ACTIVE": "open for votes",
        "REVEALING": "agreed, to be revealed and finalized",
        "expired": "past their deadline, which can only be claimed",
    }
    deals, tasks = count(len(work.deals), "open deal"), count(sum(work.by_status.values()), "open task")
    votes, workers = count(work.votes, "vote"), count(len(work.voters), "worker")
    words = [
        f"Workerpool {found.workerpool} of {found.wallet}, at block {work.head.number}:",
        f"  {deals} with {tasks}, the oldest of block {work.first_block}; sought down to block {work.read_to}",
        *(f"    {number} {said[name]}" for name, number in sorted(work.by_status.items())),
        f"  {votes} of {workers} on them, {work.to_reveal} to be revealed",
        f"  first nonce {found.nonce}; transactions of the wallet in no block yet: {found.pending}",
    ]
    if work.locked > work.explained:
        words.append(
            f"  The hub locks {work.locked} nRLC of the wallet, of which these explain {work.explained}: it owns"
            " another workerpool, or has deals that are not found or cannot be read. Seek deeper with --from."
        )
    words.append(
        "  Not known, and not needed: who was given tasks and has not voted. Such votes may still come, and count."
    )
    return words


def _certificate(
    hosts: Annotated[list[str], typer.Argument(help="Names or addresses by which workers reach RabbitMQ.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where the files are, or are made.")] = Path(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a certificate for RabbitMQ, signed by a CA of your own, where no public CA signs one; renew what ends soon.

    Files: `cert.pem` and `key.pem` for RabbitMQ, `ca.pem` for workers (`SLUICE_AMQP_CA_FILE`), and `ca-key.pem`, which
    signs the next one and belongs on no server: bring it for that. Run it again within the last month of the
    certificate's 397 days: what is good is kept, a file that is replaced keeps its owner and mode (run it as root where
    containers own the key), and a CA that is there is never replaced. Then `docker compose restart proxy rabbitmq`.
    """
    from ops.stack import certificates  # noqa: PLC0415 # 40 ms to import

    written = certificates.to_write(folder, hosts)
    files = certificates.CertificateFiles(folder) if dry_run else certificates.ensure(folder, hosts)
    if as_json:
        names = ("certificate", "key", "ca", "ca_key")
        answer = {name: str(getattr(files, name)) for name in names}
        print(json.dumps({**answer, "written": list(map(str, written)), "done": not dry_run}, indent=1))
        return
    if dry_run:
        print(f"Would write {', '.join(map(str, written)) or 'nothing: what is there is good'}. Nothing was written.")
        return
    print(f"For RabbitMQ: {files.certificate} and {files.key}, which only its user may read.")
    print(f"For workers: {files.ca}. Give it out, and have them set SLUICE_AMQP_CA_FILE to it.")
    print(f"Keep for yourself: {files.ca_key}. Whoever has it can pass for your broker.")
    print("After a renewal: `docker compose restart proxy rabbitmq`, or whatever has the files open.")
