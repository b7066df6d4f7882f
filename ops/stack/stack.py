"""The whole stack: up, status, down. Parts start side by side; what we did not start we never stop.

<home>/stack/<part>/{pid,log,data}   one folder a part; <part>/1 to <part>/3 for the members of a cluster
<home>/stack.json, stack.env         where everything is, as `SLUICE_…` settings
<home>/stack/lock                    one `up` or `down` at a time; released even by kill -9
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from config.connections import broker_nodes
from config.settings import Settings
from config.values.stack_settings import StackSettings
from config.whole_files import write_whole
from ops.stack import private_file, tools
from ops.stack.clusters import cluster, members
from ops.stack.parts import Choice, StackPart, choose, credentials
from ops.stack.process import Process, find
from ops.stack.servers import anvil, docker, ipfs, mongodb, rabbitmq
from protocol.errors import SluiceError, StackError, Unavailable, WrongChain

#: Bytes that must be free: MongoDB's and RabbitMQ's files, the Docker engine's images and a test run take most of it.
LEAST_FREE = 10**9

Phase = Literal["preparing", "starting", "ready", "failed", "stopping", "stopped", "absent"]


@dataclass(frozen=True, slots=True)
class StackStep:
    """A step in the start or stop of a part, for display."""

    part: StackPart
    phase: Phase
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Server:
    """A part that runs. `pid`: None when it is not ours. `source`: what it is and why it was chosen."""

    part: StackPart
    endpoint: str
    source: str
    pid: int | None
    settings: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stack:
    """Everything up."""

    servers: dict[StackPart, Server]

    @property
    def settings(self) -> dict[str, str]:
        """The `SLUICE_…` variables that lead a process to these servers. Holds passwords."""
        return {name: value for server in self.servers.values() for name, value in server.settings.items()}


Watch = Callable[[StackStep], None]


def up(settings: Settings, ports: StackSettings, parts: Collection[StackPart], watch: Watch) -> Stack:
    """Start what does not run, side by side, and write stack.json and stack.env. Idempotent.

    Raises the part's own error (PortTaken, MissingTool, NotReady …), or StackError with all of them; parts that came up
    stay up.
    """
    home = settings.home.absolute()
    refuse_full_disk(home, shutil.disk_usage(first_that_exists(home)).free)
    with tools.locked(home / "stack" / "lock"), ThreadPoolExecutor(len(parts) or 1) as pool:
        started = {part: pool.submit(_up, part, settings, ports, watch) for part in parts}
        failed = [error for future in started.values() if (error := future.exception()) is not None]
        stack = Stack({part: future.result() for part, future in started.items() if future.exception() is None})
        _write(home, set(parts), stack)
    unexpected = next((error for error in failed if not isinstance(error, SluiceError)), None)
    if unexpected is not None:
        raise unexpected
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise StackError(what=" ".join(map(str, failed)))
    return stack


def refuse_full_disk(home: Path, free: int) -> None:
    """Raise StackError if the disk of `home` has fewer than LEAST_FREE bytes free: servers there would die one by one,
    each with an error that names something else.
    """
    if free < LEAST_FREE:
        what = (
            f"The disk of {home} has {free / 1e9:.2f} GB free; the stack needs {LEAST_FREE / 1e9:.0f} GB, or 4 GB "
            "where nothing is installed. Free some, or set SLUICE_HOME to a folder on another disk."
        )
        raise StackError(what=what)


def outer_home(home: Path) -> Path:
    """The home of the local stack. A shell with the settings of a demo's process has that process's folder, two levels
    below: `<home>/demo/scheduler`.
    """
    above = home.absolute().parent
    return above.parent if above.name == "demo" and (above.parent / "stack").is_dir() else home


def first_that_exists(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def down(
    home: Path, ports: StackSettings, parts: Collection[StackPart], watch: Watch, *, wipe: bool = False
) -> list[StackPart]:
    """Stop our own parts, side by side; returns those that were stopped. `wipe`: remove their data too,
    running or not. Partitions of clusters that a killed test left end too.
    """
    home = home.absolute()
    with tools.locked(home / "stack" / "lock"), ThreadPoolExecutor(len(parts) or 1) as pool:
        stopped = list(pool.map(lambda part: _down(part, home, ports, watch, wipe=wipe), parts))
        _write(home, set(parts), Stack({}))
    return [part for part, was_running in zip(parts, stopped, strict=True) if was_running]


def read(home: Path) -> Stack:
    """The stack as the last `up` or `down` recorded it in stack.json."""
    try:
        raw = json.loads((home / "stack.json").read_text())
    except FileNotFoundError:
        return Stack({})
    return Stack(
        {StackPart(name): Server(**fields | {"part": StackPart(name)}) for name, fields in raw["servers"].items()}
    )


def _up(part: StackPart, settings: Settings, ports: StackSettings, watch: Watch) -> Server:
    """Start one part of the stack, or use what the settings name. Raises a SluiceError, which is shown first."""
    begin = time.monotonic()
    choice = choose(part, settings, ports)
    try:
        if choice.ours and part in cluster.PARTS:
            wanted = _places(part, settings.home, ports)
            _end([found for found in _running(part, _folder(settings, part)) if found.pid_file.parent not in wanted])
        with tools.told(lambda doing: watch(StackStep(part, "preparing", doing))):
            server = _START[part](choice, settings, ports, watch) if choice.ours else _use(choice, settings)
    except SluiceError as error:
        watch(StackStep(part, "failed", str(error), time.monotonic() - begin))
        raise
    watch(StackStep(part, "ready", server.endpoint, time.monotonic() - begin))
    return server


def _use(choice: Choice, settings: Settings) -> Server:
    """Somebody else's server: check that it answers."""
    if choice.part is StackPart.CHAIN:
        answered = anvil.ready(settings.rpc_url)
        if answered is not None and answered != settings.chain_id:
            raise WrongChain(
                why=f"the node says chain id {answered}, the settings {settings.chain_id}.",
                fix="Set SLUICE_CHAIN_ID and SLUICE_RPC_URL to the same chain.",
            )
    if not answers(choice.part, settings):
        fix = f"it is named by {choice.because}; start it, or unset that to use our own"
        raise Unavailable(what=f"{choice.part.label} at {choice.endpoint}", why=fix)
    source = f"already there: {choice.because}"
    return Server(choice.part, choice.endpoint, source, None, choice.settings)


def answers(part: StackPart, settings: Settings) -> bool:
    """Whether the server that the settings name for this part answers now."""
    match part:
        case StackPart.MONGODB:
            return mongodb.ready(settings.mongodb_uri.get_secret_value())
        case StackPart.RABBITMQ:
            return any(rabbitmq.ready(url, *credentials(settings)) for url in broker_nodes.api_urls(settings))
        case StackPart.CHAIN:
            return anvil.ready(settings.rpc_url) == settings.chain_id
        case StackPart.DOCKER:
            return docker.running(settings.docker_host) is not None
        case StackPart.IPFS:
            return ipfs.ready(settings.ipfs_api)


def _mongodb(choice: Choice, settings: Settings, ports: StackSettings, watch: Watch) -> Server:
    """Start MongoDB: a replica set of one, or the servers of a cluster or of a sharded one."""
    _, source = mongodb.server()
    watch(StackStep(choice.part, "starting", source))
    if cluster.has_members(choice.part, ports):
        form = "sharded" if ports.sharded else "a replica set of three"
        return _cluster(choice, settings, ports, f"{source}, {form}")
    server = mongodb.start(_folder(settings, choice.part), ports.mongodb_port)
    return Server(choice.part, choice.endpoint, source, server.process.pid, choice.settings)


def _rabbitmq(choice: Choice, settings: Settings, ports: StackSettings, watch: Watch) -> Server:
    """Start RabbitMQ: one node, or three for a cluster."""
    _, source = rabbitmq.server()
    watch(StackStep(choice.part, "starting", source))
    if ports.cluster:
        return _cluster(choice, settings, ports, f"{source}, three times")
    user, password = credentials(settings)
    vhosts = (settings.amqp_core_vhost, settings.amqp_pool_vhost)
    folder = _folder(settings, choice.part)
    server = rabbitmq.start(folder, ports.rabbitmq_port, user=user, password=password, vhosts=vhosts)
    return Server(choice.part, choice.endpoint, source, server.process.pid, choice.settings)


def _cluster(choice: Choice, settings: Settings, ports: StackSettings, source: str) -> Server:
    """Start the members of a part side by side: three of a cluster, or the servers of a sharded MongoDB. The server
    that clients are given is the first.
    """
    first, *_ = cluster.start(choice.part, settings, ports)
    return Server(choice.part, choice.endpoint, source, first.pid, choice.settings)


def _chain(choice: Choice, settings: Settings, ports: StackSettings, watch: Watch) -> Server:
    """Start anvil with the PoCo contracts in its state."""
    # Its libraries take a second to import, which no other command should pay.
    from ops.poco.state import ensure_state  # noqa: PLC0415

    _, source = anvil.binary()
    saved = ensure_state(tools.root() / ".sluice")
    folder = _folder(settings, choice.part)
    own_state, addresses = folder / "state.json", folder / "addresses.json"
    if not own_state.exists() or not addresses.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(own_state, saved.path.read_bytes())
        write_whole(addresses, json.dumps(saved.addresses.to_json(), indent=1))
    watch(StackStep(choice.part, "starting", f"{source}, PoCo from a saved state"))
    server = anvil.start(
        folder, ports.rpc_port, chain_id=settings.chain_id, block_time=settings.block_time, keep=own_state
    )
    found = choice.settings | {"SLUICE_HUB": json.loads(addresses.read_text())["hub"]}
    return Server(choice.part, choice.endpoint, source, server.pid, found)


def _docker(choice: Choice, settings: Settings, ports: StackSettings, watch: Watch) -> Server:  # noqa: ARG001 as others
    """Use the Docker engine that runs, else start one."""
    watch(StackStep(choice.part, "starting", "the running engine, else Debian's"))
    engine = docker.start(_folder(settings, choice.part))
    source = "already running" if engine.process is None else docker.server()[1]
    pid = engine.process.pid if engine.process else None
    return Server(choice.part, engine.host, source, pid, {"SLUICE_DOCKER_HOST": engine.host})


def _ipfs(choice: Choice, settings: Settings, ports: StackSettings, watch: Watch) -> Server:
    """Start Kubo."""
    _, source = ipfs.binary()
    watch(StackStep(choice.part, "starting", source))
    server = ipfs.start(_folder(settings, choice.part), ports.ipfs_api_port, ports.ipfs_gateway_port)
    return Server(choice.part, choice.endpoint, source, server.process.pid, choice.settings)


_START: Mapping[StackPart, Callable[[Choice, Settings, StackSettings, Watch], Server]] = {
    StackPart.MONGODB: _mongodb,
    StackPart.RABBITMQ: _rabbitmq,
    StackPart.CHAIN: _chain,
    StackPart.DOCKER: _docker,
    StackPart.IPFS: _ipfs,
}


def _down(part: StackPart, home: Path, ports: StackSettings, watch: Watch, *, wipe: bool) -> bool:
    """Stop what was started of a part; whether anything was. `wipe`: delete its files too."""
    begin, folder = time.monotonic(), home / "stack" / part
    if part in cluster.PARTS:
        cluster.end_partitions(part, home, ports)
    running = _running(part, folder)
    if running:
        watch(StackStep(part, "stopping", f"pid {', '.join(str(process.pid) for process in running)}"))
        _end(running)
    if part in cluster.PARTS:
        cluster.forget(folder)
    if part is StackPart.RABBITMQ:
        mapper = find("epmd", folder / "epmd" / "pid")
        if mapper is not None:
            mapper.stop()
    if part is StackPart.DOCKER:
        docker.clear(folder)
    if wipe:
        shutil.rmtree(folder, ignore_errors=True)
    watch(StackStep(part, "stopped" if running else "absent", "", time.monotonic() - begin))
    return bool(running)


def _running(part: StackPart, folder: Path) -> list[Process]:
    """What runs of a part, whatever its form: its single server, members of its cluster."""
    folders = [folder, *(folder / name for name in members.FOLDERS)]
    return [process for each in folders if (process := find(part.label, each / "pid")) is not None]


def _places(part: StackPart, home: Path, ports: StackSettings) -> list[Path]:
    """The folders of the servers that a part is to consist of."""
    if cluster.has_members(part, ports):
        return [member.folder for member in cluster.of_part(part, home, ports)]
    return [home.absolute() / "stack" / part]


def _end(running: Collection[Process]) -> None:
    """Stop servers side by side: one that is left alone of a cluster waits for the others."""
    with ThreadPoolExecutor(len(running) or 1) as threads:
        list(threads.map(lambda process: process.stop(timeout=rabbitmq.STOP_SECONDS), running))


def _folder(settings: Settings, part: StackPart) -> Path:
    """Where a part of the stack keeps its files."""
    return settings.home.absolute() / "stack" / part


def _write(home: Path, changed: Collection[StackPart], now: Stack) -> None:
    """stack.json for programs and stack.env for shells; both hold passwords, so only the owner may read them.

    `changed`: parts that this command concerned; what is known of the others stays.
    """
    others = {part: server for part, server in read(home).servers.items() if part not in changed}
    stack = Stack(others | now.servers)
    servers = {part: asdict(server) for part, server in stack.servers.items()}
    private_file.write(
        home / "stack.json", json.dumps({"servers": servers, "settings": stack.settings}, indent=1) + "\n"
    )
    private_file.write(home / "stack.env", private_file.exports(stack.settings))
