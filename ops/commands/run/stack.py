"""`sluice stack up | status | down`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Self

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.table import Table

from config.settings import Settings, settings
from config.values.stack_settings import StackSettings
from ops.admin.screen import DryRun, Json
from ops.stack import stack, status
from ops.stack.parts import StackPart, wanted
from ops.stack.stack import StackStep
from protocol.errors import BadSetting

Parts = Annotated[list[StackPart] | None, typer.Argument(help="Parts to act on. Default: all.", show_default=False)]


_UP_EXAMPLES = "Examples: `sluice stack up`, `sluice stack up mongodb rabbitmq --json`, `sluice stack up --dry-run`"


def register(app: typer.Typer) -> None:
    """Add `sluice stack …`."""
    group = typer.Typer(no_args_is_help=True, help="The local stack: database, broker, chain, Docker engine, IPFS.")
    group.command("up", epilog=_UP_EXAMPLES)(_up)
    group.command("status", epilog="Examples: `sluice stack status`, `sluice stack status --json`")(_status)
    group.command("down", epilog="Examples: `sluice stack down`, `sluice stack down chain --wipe`")(_down)
    app.add_typer(group, name="stack")


def stack_settings() -> StackSettings:
    """Ports of the local stack. Raises BadSetting naming the first wrong variable."""
    try:
        return StackSettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "SLUICE_STACK_" + "_".join(str(part) for part in first["loc"]).upper()
        raise BadSetting(name=name, why=first["msg"], fix="Ports are numbers from 1 to 65535.") from error


def _settings() -> Settings:
    """This shell's settings, with the stack's own home."""
    now = settings()
    return now.model_copy(update={"home": stack.outer_home(now.home)})


def _up(
    parts: Parts = None,
    clustered: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="MongoDB as a replica set of three and RabbitMQ as three nodes, at 127.0.0.2 to 127.0.0.4.",
        ),
    ] = False,
    sharded: Annotated[
        bool,
        typer.Option("--sharded", help="MongoDB as a router, a config server and two shards, to try `sluice shard`."),
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start what does not run yet, wait until it is ready, and say where everything is.

    Uses what settings name (`SLUICE_MONGODB_URI`, `SLUICE_AMQP_URL`, `SLUICE_RPC_URL`, `SLUICE_DOCKER_HOST`,
    `SLUICE_IPFS_API`) and starts the rest under `.sluice/stack`. Running it again changes nothing. To give the settings
    to a shell, source `.sluice/stack.env`.

    With `--cluster`, any one member may be killed while a pool works; the next `up --cluster` starts it again. A single
    server of the same part is stopped first, and the other way round; each keeps its own data.
    """
    now, ports = _settings(), stack_settings()
    ports = ports.model_copy(update={"cluster": ports.cluster or clustered, "sharded": ports.sharded or sharded})
    if dry_run:
        _print_plan(status.of(now, ports, wanted(parts or ())), _would_start, as_json)
        return
    with Board(quiet=as_json) as board:
        running = stack.up(now, ports, wanted(parts or ()), board.show)
    if as_json:
        print(json.dumps({part: _server_json(server) for part, server in running.servers.items()}, indent=1))
    else:
        Console(stderr=True).print(f"Settings: . {now.home / 'stack.env'}", highlight=False)


def _status(parts: Parts = None, as_json: Json = False) -> None:
    """Say for each part whether it runs, whose it is, where it is and whether it answers.

    Exit code 1 if one of them does not answer.
    """
    states = status.of(_settings(), stack_settings(), wanted(parts or ()))
    if as_json:
        print(json.dumps({state.part: asdict(state) for state in states}, indent=1))
    else:
        table = Table("part", "state", "pid", "memory", "where", "what", box=None)
        for state in states:
            colour = "green" if state.answers else "red"
            word = "answers" if state.answers else "silent" if state.pid else "down"
            memory = f"{state.memory_bytes / 2**20:.0f} MB" if state.memory_bytes else ""
            table.add_row(
                f"{state.part.label} {state.member}" if state.member else state.part.label,
                f"[{colour}]{word}[/]",
                str(state.pid or ""),
                memory,
                state.endpoint,
                state.source,
            )
        out = Console()
        # A pipe has no width: nothing is cut there.
        Console(width=None if out.is_terminal else _PIPE_WIDTH).print(table)
    if not all(state.answers for state in states):
        raise typer.Exit(1)


def _down(
    parts: Parts = None,
    wipe: Annotated[bool, typer.Option("--wipe", help="Remove their data too.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop the parts that Sluice started; what was there before stays."""
    if dry_run:
        _print_plan(status.of(_settings(), stack_settings(), wanted(parts or ())), partial(_would_stop, wipe), as_json)
        return
    with Board(quiet=as_json) as board:
        stopped = stack.down(_settings().home, stack_settings(), wanted(parts or ()), board.show, wipe=wipe)
    if as_json:
        print(json.dumps({"stopped": stopped}))


def _would_start(state: status.State) -> str:
    """What `up` would do about a part."""
    if state.answers:
        return "nothing: it answers"
    return "start it" if state.ours else "fail: it is named by the settings and does not answer"


def _would_stop(wipe: bool, state: status.State) -> str:
    """What `down` would do about a part."""
    stops = "stop it" if state.ours and state.pid is not None else "nothing: Sluice did not start it, or it is down"
    return f"{stops}; remove its data" if wipe else stops


def _print_plan(states: list[status.State], would: Callable[[status.State], str], as_json: bool) -> None:
    """Print what would be done about each part, or each member of one."""
    lines = [(state.part, state.member, state.endpoint, would(state)) for state in states]
    if as_json:
        names = ("part", "member", "endpoint", "would")
        print(json.dumps({"would": [dict(zip(names, line, strict=True)) for line in lines], "done": False}, indent=1))
        return
    for part, member, endpoint, does in lines:
        print(f"{part.label}{f' {member}' if member else ''} at {endpoint}: would {does}")
    print("Nothing was done.")


def _server_json(server: stack.Server) -> dict[str, object]:
    """A server without its settings, which hold passwords and are in stack.json."""
    return {name: value for name, value in asdict(server).items() if name != "settings"}


#: Columns of a table that goes to a file or another program.
_PIPE_WIDTH = 160
#: Phases at which a part's progress ends, and their style.
_COLOURS = {"ready": "green", "stopped": "green", "failed": "red", "absent": "dim"}


class Board:
    """Live view of what the parts are doing, on standard error: a table on a terminal, else a line per event."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._steps: dict[StackPart, StackStep] = {}
        self._live = Live(
            console=self._console, get_renderable=self._render_table, transient=False, refresh_per_second=8
        )
        self._animated = self._console.is_terminal and not quiet

    def __enter__(self) -> Self:
        if self._animated:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._animated:
            self._live.stop()

    def show(self, step: StackStep) -> None:
        """Show a step of a part; called from several threads."""
        self._steps[step.part] = step
        if self._animated:
            return
        if step.phase == "preparing":
            self._print_line(f"{step.part.label}: {step.detail} …")
        elif step.phase in _COLOURS:
            took = f" after {step.seconds:.1f} s" if step.seconds >= 0.05 else ""
            # The command's last words repeat why a part failed; another's build may take minutes until then.
            self._print_line(f"{step.part.label}: {step.phase}{took} {step.detail}".rstrip())

    def _print_line(self, line: str) -> None:
        """Print one line on standard error."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _render_table(self) -> Table:
        """The table of all parts with their latest step; the terminal is redrawn from it."""
        table = Table(box=None, show_header=False)
        for part in StackPart:
            step = self._steps.get(part)
            if step is not None:
                colour = _COLOURS.get(step.phase, "yellow")
                seconds = f"{step.seconds:.1f} s" if step.seconds else ""
                table.add_row(part.label, f"[{colour}]{step.phase}[/]", seconds, step.detail)
        return table
