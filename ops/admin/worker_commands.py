"""`sluice worker ls`, `show`, `undrain`, `slots`, `ban`, `unban`: machines of a pool, for its operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from config.settings import settings
from config.values.types import is_address
from ops.admin import screen
from ops.admin.client import OperatorApi
from ops.admin.screen import DryRun, Json, age, native
from ops.commands.work import task

Wallet = Annotated[str, typer.Argument(metavar="WALLET", help="The machine's wallet: its address or ENS name.")]


def change(wallet: str, action: str, *, dry_run: bool, as_json: bool, most: int | None = None) -> None:
    """Ask the pool to change something about a machine, and print what changed. Raises OperatorRefused, Unavailable."""
    (address,) = addresses([wallet])
    answer = OperatorApi.open().post(f"/workers/{address}/{action}", dry_run=dry_run, most=most)
    screen.show(answer, screen.changed(answer), as_json=as_json)


def addresses(wallets: Sequence[str]) -> list[str]:
    """The wallets' addresses, each once; asks the node for an ENS name's. Raises BadSetting, RpcUnavailable."""
    if all(map(is_address, wallets)):
        return list(dict.fromkeys(wallet.lower() for wallet in wallets))
    from chain.contracts.ens_names import wallets_of  # noqa: PLC0415 # it loads web3.py, for a name only

    return [*wallets_of(settings(), wallets)]


def _ls(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="Lines at most.")] = 1000,
    after: Annotated[str | None, typer.Option("--after", help="Only those behind this wallet: the next page.")] = None,
    as_json: Json = False,
) -> None:
    """Machines of this pool, by wallet, each with what it does now. For the pool's operator."""
    found = OperatorApi.open().get("/workers", after=after, limit=limit)
    now = screen.clock()
    rows = [
        (
            item["wallet"],
            item["name"],
            item["state"],
            _slots(item),
            str(item["successes"]),
            str(item["failures"]),
            str(item["stake_nrlc"]),
            age(now - item["seen_at"]),
        )
        for item in found
    ]
    columns = ("wallet", "machine", "state", "slots", "right", "failed", "nRLC free", "heard of")
    screen.show(found, screen.table(columns, rows, empty="No machine has signed in yet."), as_json=as_json)


def _show(wallet: Wallet, as_json: Json = False) -> None:
    """A machine of this pool: what it offers and has, and why it gets work or does not. For the pool's operator."""
    (address,) = addresses([wallet])
    found = OperatorApi.open().get(f"/workers/{address}")
    screen.show(found, _drawn(found), as_json=as_json)


def _undrain(wallet: Wallet, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Give a drained machine work again, and take a limit of its slots back. For the pool's operator."""
    change(wallet, "undrain", dry_run=dry_run, as_json=as_json)


def _slots(found: Mapping[str, Any]) -> str:
    """Busy and usable slots of a machine, as text."""
    limited = "" if found["operator_slots"] is None else f" (at most {found['operator_slots']})"
    return f"{found['busy_slots']} of {found['usable_slots']}{limited}"


def _limit_slots(
    wallet: Wallet,
    most: Annotated[int, typer.Argument(min=0, help="Most slots that it may use; 0 drains it.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Limit how many slots of a machine the pool uses; `undrain` takes that back. For the pool's operator."""
    change(wallet, "slots", most=most, dry_run=dry_run, as_json=as_json)


def _ban(wallet: Wallet, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Cut a machine off and refuse it from now on; its tasks go to others. For the pool's operator."""
    change(wallet, "ban", dry_run=dry_run, as_json=as_json)


def _unban(wallet: Wallet, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Let a banned machine sign in again. For the pool's operator."""
    change(wallet, "unban", dry_run=dry_run, as_json=as_json)


def _drawn(found: Mapping[str, Any]) -> RenderableType:
    """A machine as `sluice worker show` prints it."""
    now = screen.clock()
    facts = {
        "wallet": found["wallet"],
        "machine": f"{found['name']}, Sluice {found['version']}, {found['cpus']} CPUs, "
        f"{found['memory_bytes'] / 2**30:.1f} GiB",
        "state": found["state"],
        "slots": f"{_slots(found)}; it says it has {found['slots']}",
        "right on chain": f"{found['successes']} times; weight of a vote {found['weight']}",
        "failed in a row": found["failures"] or None,
        "stake free": f"{found['stake_nrlc']} nRLC",
        "gas": native(found["native_wei"]),
        "heard of": f"{age(now - found['seen_at'])} ago, from {found['address'] or 'an address that was not noted'}",
        "with the pool": f"since {age(now - found['enrolled_at'])}",
    }
    return screen.stacked(
        screen.pairs(facts),
        Text(""),
        *(Text(screen.printable(says)) for says in found["says"]),
        Text(""),
        task.lines(found["tasks"], now, empty="It has no task."),
        task.wrong(found["wrong_votes"]),
    )


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "ls": (_ls, "Examples: `sluice worker ls`, `sluice worker ls --json`"),
    "show": (_show, "Examples: `sluice worker show 0x…`, `sluice worker show 0x… --json`"),
    "undrain": (_undrain, "Examples: `sluice worker undrain 0x…`, `sluice worker undrain 0x… --dry-run`"),
    "slots": (_limit_slots, "Examples: `sluice worker slots 0x… 4`, `sluice worker slots 0x… 0`"),
    "ban": (_ban, "Examples: `sluice worker ban 0x…`, `sluice worker ban 0x… --dry-run`"),
    "unban": (_unban, "Examples: `sluice worker unban 0x…`, `sluice worker unban 0x… --json`"),
}
