"""`sluice enrol …`: who may sign in as a worker machine. A change holds at once for every API process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from config.settings import settings
from ops.admin import screen
from ops.admin.client import OperatorApi, part_of_path
from ops.admin.screen import DryRun, Json
from ops.admin.worker_commands import addresses
from pipeline.domain.machines.enrolment import MOST_USES, Mode
from protocol.errors import BadSetting

Wallets = Annotated[list[str], typer.Argument(metavar="WALLET…", help="Wallets: addresses or ENS names.")]
Note = Annotated[str, typer.Option("--note", help="Why, for people who read the list.")]

#: Seconds for a change of the policy: each machine that it cuts off is a request to RabbitMQ.
CUT_OFF_SECONDS = 600.0


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
        group.command(name, epilog=f"Examples: {examples}")(command)
    app.add_typer(group, name="enrol")


def _show(as_json: Json = False) -> None:
    """The policy that holds now, wallets on the lists, and invites."""
    found = OperatorApi.open().get("/enrolment")
    now, by_command = screen.clock(), found["set_by_command"]
    policy = [
        (name, _limit(value), "command" if name in by_command else "settings")
        for name, value in found["policy"].items()
    ]
    listed = [(row["wallet"], row["listing"], row["note"]) for row in found["listed"]]
    invites = [
        (row["name"], str(row["used"]), str(row["uses"]), f"{max(0.0, row['expires_at'] - now) / 3600:.1f} h")
        for row in found["invites"]
    ]
    drawn = screen.stacked(
        screen.table(("policy", "value", "from"), policy, empty=""),
        Text(""),
        screen.table(("wallet", "list", "note"), listed, empty="No wallet is on a list."),
        Text(""),
        screen.table(("invite", "used", "of", "expires in"), invites, empty="There is no invite."),
    )
    screen.show(found, drawn, as_json=as_json)


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
    given = {
        "mode": None if mode is None else str(mode),
        "least_stake": least_stake,
        "least_score": least_score,
        "most_machines": most_machines,
        "most_per_address": most_per_address,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if reset == bool(changes):
        raise BadSetting(name="policy", why="it needs either --reset or something to change", fix="See --help.")
    answer = OperatorApi.open().post(
        f"/enrolment/{'reset' if reset else 'policy'}",
        None if reset else changes,
        seconds=CUT_OFF_SECONDS,
        dry_run=dry_run,
    )
    policy = ", ".join(f"{name} {_limit(value)}" for name, value in answer["policy"].items())
    lines = [
        f"{'The policy would be' if dry_run else 'The policy is'}: {policy}",
        f"Machines that {'would be' if dry_run else 'were'} cut off: {len(answer['cut_off'])}.",
        *answer["cut_off"],
    ]
    screen.show(answer, Text("\n".join(lines)), as_json=as_json)


def _limit(value: object) -> str:
    """A field of the policy in words."""
    return "no limit" if value is None else str(value)


def _act_on_each(
    wallets: Sequence[str], action: str, body: Mapping[str, str] | None = None, *, dry_run: bool, as_json: bool
) -> None:
    """Have the pool do `action` about each wallet, and print what was done."""
    api = OperatorApi.open()
    done = [api.post(f"/enrolment/{wallet}/{action}", body, dry_run=dry_run) for wallet in addresses(wallets)]
    would = "would be " if dry_run else ""
    answer = {"wallets": [each["wallet"] for each in done], "done": done[0]["done"], "dry_run": dry_run}
    lines = Text("\n".join(f"{each['wallet']} {would}{each['done']}." for each in done))
    screen.show(answer, lines, as_json=as_json)


def _allow(wallets: Wallets, note: Note = "", dry_run: DryRun = False, as_json: Json = False) -> None:
    """Put wallets on the allow list: they may sign in in any mode, and count against no number. Ends a ban."""
    _act_on_each(wallets, "allow", {"note": note}, dry_run=dry_run, as_json=as_json)


def _deny(wallets: Wallets, note: Note = "", dry_run: DryRun = False, as_json: Json = False) -> None:
    """Put wallets on the deny list: they are disconnected and refused from now on. Votes they cast stay on chain."""
    _act_on_each(wallets, "deny", {"note": note}, dry_run=dry_run, as_json=as_json)


def _forget(wallets: Wallets, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Take wallets off both lists; those that the policy does not admit without are cut off."""
    _act_on_each(wallets, "forget", dry_run=dry_run, as_json=as_json)


def _revoke(wallets: Wallets, dry_run: DryRun = False, as_json: Json = False) -> None:
    """End the token and the connections of machines; each signs in again by itself, if the policy admits it."""
    _act_on_each(wallets, "revoke", dry_run=dry_run, as_json=as_json)


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
    api = OperatorApi.open()
    if withdraw is not None:
        answer = api.post(f"/enrolment/invites/{part_of_path(withdraw)}/withdraw", dry_run=dry_run)
        says = f"Invite {withdraw} {'would be' if dry_run else 'is'} withdrawn."
    else:
        answer = api.post("/enrolment/invites", {"uses": uses, "days": days}, dry_run=dry_run)
        says = "An invite would be made." if dry_run else f"SLUICE_INVITE={answer['code']}"
    screen.show(answer, Text(says), as_json=as_json)


def _rotate(
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Drop the former keys now: every machine signs in again.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """As `sluice keys rotate tokens`, on the scheduler's machine: sign tokens with a new key from now on, in every API
    process that reads this SLUICE_TOKEN_SECRET_FILE. The former key verifies for two hours more; use --at-once if it
    has leaked.
    """
    from ops.admin import keys  # noqa: PLC0415 # what else is here asks the operator's API only

    done = keys.rotate_tokens(settings(), at_once=at_once, dry_run=dry_run)
    screen.show(asdict(done), Text("\n".join((done.says, *done.becomes_invalid))), as_json=as_json)
