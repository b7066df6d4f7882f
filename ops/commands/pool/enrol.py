"""`sluice enrol …`: who may sign in as a worker machine. A change holds at once for every API process."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chain.contracts.ens_names import wallets_of
from config.settings import settings
from ops.admin import keys, screen
from pipeline.broker.admin import BrokerAdmin
from pipeline.domain.machines.enrolment import Mode
from pipeline.flow.machines import enrolment
from pipeline.flow.machines.enrolment import Gate
from pipeline.store.client import Store, answering
from pipeline.store.machine.enrolment import MOST_USES, overridden
from protocol.errors import BadSetting, NotFound

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
Wallets = Annotated[list[str], typer.Argument(metavar="WALLET…", help="Wallets: addresses or ENS names.")]
Note = Annotated[str, typer.Option("--note", help="Why, for people who read the list.")]

#: Rows of each list that `show` prints.
MOST = 1000
#: Random bytes of an invite code, so that it cannot be guessed.
CODE_BYTES = 16


def register(app: typer.Typer) -> None:
    """Add `sluice enrol …`."""
    group = typer.Typer(no_args_is_help=True, help="Who may sign in to this pool as a worker machine.")
    for name, command, examples in (
        ("show", _show, "`sluice enrol show`, `sluice enrol show --json`"),
        (
            "policy",
            _policy,
            "`sluice enrol policy --mode allow`, `… --least-stake 1000 --most-per-address 8`, `… --reset`",
        ),
        ("allow", _allow, "`sluice enrol allow 0x…`, `sluice enrol allow 0x… 0x… --note 'rack 4'`"),
        ("deny", _deny, "`sluice enrol deny 0x…`, `sluice enrol deny 0x… --dry-run`"),
        ("forget", _forget, "`sluice enrol forget 0x…`"),
        ("revoke", _revoke, "`sluice enrol revoke 0x…`, `sluice enrol revoke 0x… --json`"),
        ("invite", _invite, "`sluice enrol invite`, `sluice enrol invite --uses 10 --days 3`, `… --withdraw NAME`"),
        ("rotate-token-key", _rotate, "`sluice enrol rotate-token-key`, `sluice enrol rotate-token-key --at-once`"),
    ):
        group.command(name, epilog=f"Examples: {examples}")(answering()(command))
    app.add_typer(group, name="enrol")


@contextmanager
def _open_gate() -> Iterator[Gate]:
    """The enrolment gate on the scheduler's store and broker, for the block. Used by each command here."""
    now = settings()
    store = Store.open(now)
    with BrokerAdmin.from_settings(now) as broker:
        yield Gate(store.workers, store.enrolment, broker, now)


def _print_answer(as_json: bool, answer: dict[str, Any], *lines: str) -> None:
    """Print the answer as JSON, or else its lines."""
    if as_json:
        print(json.dumps(answer))
    else:
        for line in lines:
            print(line)


def _show(as_json: Json = False) -> None:
    """The policy that holds now, wallets on the lists, and invites."""
    with _open_gate() as gate:
        policy, overrides = gate.policy, gate.enrolment.overrides()
        listed, invites = gate.enrolment.listed(MOST), gate.enrolment.invites(MOST)
    if as_json:
        answer = {
            "policy": asdict(policy),
            "set_by_command": sorted(overrides),
            "listed": [asdict(row) for row in listed],
            "invites": [asdict(row) for row in invites],
        }
        print(json.dumps(answer))
        return
    console = Console(soft_wrap=True)
    table = Table("policy", "value", "from", box=None)
    for name, value in asdict(policy).items():
        table.add_row(name, "no limit" if value is None else str(value), "command" if name in overrides else "settings")
    console.print(table)
    table = Table("wallet", "list", "note", box=None)
    for row in listed:
        table.add_row(row.wallet, row.listing, escape(row.note))
    console.print(table if listed else "No wallet is on a list.")
    table = Table("invite", "used", "of", "expires in", box=None)
    for item in invites:
        left = max(0.0, item.expires_at - screen.clock()) / 3600
        table.add_row(escape(item.name), str(item.used), str(item.uses), f"{left:.1f} h")
    console.print(table if invites else "There is no invite.")


def _policy(
    mode: Annotated[Mode | None, typer.Option("--mode", help="Who may sign in.")] = None,
    least_stake: Annotated[int | None, typer.Option("--least-stake", min=0, max=2**63 - 1, help="In nRLC.")] = None,
    least_score: Annotated[int | None, typer.Option("--least-score", min=0, max=2**31 - 1, help="On chain.")] = None,
    most_machines: Annotated[
        int | None, typer.Option("--most-machines", min=0, max=100_000, help="In the pool; 0: no limit.")
    ] = None,
    most_per_address: Annotated[
        int | None, typer.Option("--most-per-address", min=0, max=100_000, help="From one IP address; 0: no limit.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Back to the settings; not with other options.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change the policy of the running pool. Machines that neither mode nor list admits any more are cut off at once;
    stake, score and numbers count at each machine's next sign-in, within the hour.
    """
    limits = {"most_machines": most_machines, "most_per_address": most_per_address}
    changes: dict[str, Any] = {
        "mode": None if mode is None else str(mode),
        "least_stake": least_stake,
        "least_score": least_score,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {name: value or None for name, value in limits.items() if value is not None}
    if reset == bool(changes):
        raise BadSetting(name="policy", why="it needs either --reset or something to change", fix="See --help.")
    now = screen.clock()
    with _open_gate() as gate:
        if dry_run:
            before = enrolment.policy_of(gate.settings)
            policy = before if reset else overridden(before, {**gate.enrolment.overrides(), **changes})
            cut_off = enrolment.no_longer_admitted(gate, policy, now)
        else:
            cut_off = enrolment.reset_policy(gate, now) if reset else enrolment.set_policy(gate, changes, now)
            policy = gate.policy
    _print_answer(
        as_json,
        {"policy": asdict(policy), "cut_off": cut_off, "dry_run": dry_run},
        f"{'The policy would be' if dry_run else 'The policy is'}: "
        + ", ".join(f"{name} {'no limit' if value is None else value}" for name, value in asdict(policy).items()),
        f"Machines that {'would be' if dry_run else 'were'} cut off: {len(cut_off)}.",
        *cut_off,
    )


def _act_on_each(wallets: Sequence[str], did: str, act: Any, *, dry_run: bool, as_json: bool) -> None:
    """Call `act` for each wallet, unless `dry_run`, and print what was done (`did`)."""
    found = wallets_of(settings(), wallets)
    if not dry_run:
        with _open_gate() as gate:
            for wallet in found:
                act(gate, wallet)
    would = "would be " if dry_run else ""
    _print_answer(
        as_json, {"wallets": found, "done": did, "dry_run": dry_run}, *(f"{wallet} {would}{did}." for wallet in found)
    )


def _allow(wallets: Wallets, note: Note = "", dry_run: DryRun = False, as_json: Json = False) -> None:
    """Put wallets on the allow list: they may sign in in any mode, and count against no number. Ends a ban."""
    now = screen.clock()
    _act_on_each(
        wallets,
        "allowed",
        lambda gate, wallet: enrolment.allow(gate, wallet, now, note),
        dry_run=dry_run,
        as_json=as_json,
    )


def _deny(wallets: Wallets, note: Note = "", dry_run: DryRun = False, as_json: Json = False) -> None:
    """Put wallets on the deny list: they are disconnected and refused from now on. Votes they cast stay on chain."""
    now = screen.clock()
    _act_on_each(
        wallets,
        "denied and cut off",
        lambda gate, wallet: enrolment.deny(gate, wallet, now, note),
        dry_run=dry_run,
        as_json=as_json,
    )


def _forget(wallets: Wallets, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Take wallets off both lists; those that the policy does not admit without are cut off."""
    now = screen.clock()
    _act_on_each(
        wallets,
        "taken off the lists",
        lambda gate, wallet: enrolment.forget(gate, wallet, now),
        dry_run=dry_run,
        as_json=as_json,
    )


def _revoke(wallets: Wallets, dry_run: DryRun = False, as_json: Json = False) -> None:
    """End the token and the connections of machines; each signs in again by itself, if the policy admits it."""
    now = screen.clock()
    _act_on_each(
        wallets,
        "signed out",
        lambda gate, wallet: enrolment.revoke(gate, wallet, now),
        dry_run=dry_run,
        as_json=as_json,
    )


def _invite(
    uses: Annotated[int, typer.Option("--uses", min=1, max=MOST_USES, help="Machines that the code admits.")] = 1,
    days: Annotated[float, typer.Option("--days", min=0.01, max=3650, help="Days until it expires.")] = 7.0,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", help="Delete the invite with this name (`sluice enrol show`).")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make an invite code for mode `invite`. It is printed once and not stored; a machine gives it in SLUICE_INVITE."""
    stored, now = Store.open(settings()).enrolment, screen.clock()
    if withdraw is not None:
        if not (stored.has_invite(withdraw) if dry_run else stored.withdraw(withdraw)):
            raise NotFound(what=f"invite {withdraw}")
        says = f"Invite {withdraw} {'would be' if dry_run else 'is'} withdrawn."
        _print_answer(as_json, {"withdrawn": withdraw, "dry_run": dry_run}, says)
        return
    code = secrets.token_hex(CODE_BYTES)
    expires_at = now + days * 24 * 3600
    name = "" if dry_run else stored.invite(code, uses, expires_at, now)
    answer = {"code": None if dry_run else code, "name": name, "uses": uses, "expires_at": expires_at}
    _print_answer(
        as_json, answer | {"dry_run": dry_run}, "An invite would be made." if dry_run else f"SLUICE_INVITE={code}"
    )


def _rotate(
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Drop the former keys now: every machine signs in again.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """As `sluice keys rotate tokens`: sign tokens with a new key from now on, in every API process that reads this
    SLUICE_TOKEN_SECRET_FILE. The former key verifies for two hours more; use --at-once if it has leaked.
    """
    done = keys.rotate_tokens(settings(), at_once=at_once, dry_run=dry_run)
    _print_answer(as_json, asdict(done), done.says, *done.becomes_invalid)
