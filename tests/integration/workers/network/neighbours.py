"""What stands around an app: one host that it may reach, and all that it must not; and apps that try to."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from docker import DockerClient

from config.settings import Settings
from protocol.results.params import DealParams
from tests.integration.workers.conftest import IMAGE
from tests.integration.workers.network.outside import BANNER, HERE, end, greet, ip, outside_world
from tests.unit.workers.assignments import WORKERPOOL, assignment, task_id
from tests.waiting import ample, wait_until
from workers.context import WorkerContext
from workers.sandbox.engine.container import Engine
from workers.sandbox.network import egress
from workers.sandbox.profile import Sandbox, sandbox_of
from workers.sandbox.spec import ContainerSpec, container_spec

#: Port of the other app, and of a container of the machine's owner.
PORT = 7000
_SERVE = ("nc", "-ll", "-p", str(PORT), "-e", "echo", BANNER)


@contextmanager
def machine_services() -> Iterator[tuple[int, socket.socket]]:
    """A TCP service on all addresses of this machine, as a broker, database or API is; and a UDP one."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        port = server.getsockname()[1]
        datagrams.bind(("0.0.0.0", port))
        greet(server)
        try:
            yield port, datagrams
        finally:
            end(server)


def app(settings: Settings, context: WorkerContext, sandbox: Sandbox, number: int, *command: str) -> ContainerSpec:
    folders = context.layout.task(task_id(number))
    folders.make()
    spec = container_spec(
        assignment(number, image=IMAGE),
        DealParams(),
        worker_name=settings.worker_name,
        workerpool=WORKERPOOL,
        inputs=str(folders.inputs),
        outputs=str(folders.outputs),
        limits=context.machine.limits,
        sandbox=sandbox,
    )
    return replace(spec, command=command)


def run(engine: Engine, spec: ContainerSpec, before_start: Callable[[], object] = bool) -> str:
    """What the app prints, stdout only."""
    container = engine.create(spec)
    try:
        before_start()
        engine.start(container)
        assert engine.wait(container, ample(60))
        return engine.printed(container)[0].decode()
    finally:
        engine.remove(container)


def tries(neighbours: Neighbours, *names: str) -> str:
    """A script that connects to the host on the internet and to each target, and prints `name=` with what it gets."""
    targets = {name: neighbours.refused[name] for name in names or neighbours.refused}
    # The first waits for an answer that comes; the others, for one that does not.
    lines = [("internet", *neighbours.internet, 60), *((name, *target, 2) for name, target in targets.items())]
    return "".join(
        f'echo "{name}=$(nc -w {seconds} {address} {port} </dev/null 2>/dev/null)" &\n'
        for name, address, port, seconds in lines
    )


def datagram(address: str, port: int) -> str:
    """A command that sends UDP: it asks for a file."""
    return f"timeout 1 tftp -g -r x -l /tmp/x {address} {port}"


def reached(printed: str) -> dict[str, bool]:
    found = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    return {name: BANNER in answer for name, answer in found.items()}


def from_here(target: tuple[str, int]) -> bool:
    """Whether this machine itself gets the banner."""
    try:
        with closing(socket.create_connection(target, ample(20))) as peer:
            return peer.makefile().readline().strip() == BANNER
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What stands around an app. `refused`: targets by name, of which each answers this machine."""

    internet: tuple[str, int]
    refused: dict[str, tuple[str, int]]
    #: Name of the other app's container in the engine's DNS.
    other: str
    #: Name of a network of the machine's owner, which is not filtered.
    unfiltered: str
    datagrams: socket.socket
    #: The host's on the internet, at the port of name servers.
    name_server: socket.socket


@contextmanager
def stand_around(settings: Settings, context: WorkerContext, engine_host: str) -> Iterator[Neighbours]:
    """All that an app must not reach, and one host that it may."""
    engine = context.engine
    apart = engine.confine_apps()
    client = DockerClient(base_url=engine_host)
    other = app(settings, context, sandbox_of(settings), 2, *_SERVE)
    # Not Docker's default bridge: engines that share a machine share that, with its addresses.
    name = f"sluice-test-{os.getpid()}"
    unfiltered = client.networks.create(name)
    owners = client.containers.run(IMAGE, list(_SERVE), detach=True, ports={f"{PORT}/tcp": None}, network=name)
    try:
        container = engine.create(other)
        engine.start(container)
        owners.reload()
        published = int(owners.attrs["NetworkSettings"]["Ports"][f"{PORT}/tcp"][0]["HostPort"])
        process, address = engine.process_of(container)
        # This machine cannot ask another app's container either; in its own network it answers.
        wait_until(lambda: egress.reached(process, address, [(address, PORT)]) == [True], 20, what="the other app")
        owners_own = owners.attrs["NetworkSettings"]["Networks"][name]
        (link_local, *_) = wait_until(
            lambda: re.findall(r"inet6 (fe80::[0-9a-f:]+)", ip("-6", "addr", "show", "dev", apart.bridge)),
            20,
            what="an IPv6 address of the bridge",
        )
        name_servers = list[socket.socket]()
        with outside_world(name_servers) as world, machine_services() as (port, datagrams):
            internet = world.pop("internet")
            asked = {
                "this machine, at the bridge": (apart.gateway, port),
                "this machine, at another bridge": (owners_own["Gateway"], port),
                "this machine, at an address of the internet": (HERE, port),
                "a container of the owner": (owners_own["IPAddress"], PORT),
                "a published port, at the bridge": (apart.gateway, published),
                "a published port, at an address of the internet": (HERE, published),
                **world,
            }
            for kind, target in {"internet": internet, **asked}.items():
                wait_until(lambda target=target: from_here(target), 20, what=kind)  # type: ignore[misc]
            # The bridge first asks whether others have the address, from when its first container is up.
            at_bridge = (f"{link_local}%{apart.bridge}", port)
            wait_until(lambda: from_here(at_bridge), 20, what="this machine by IPv6")
            refused = {
                **asked,
                "this machine, by IPv6": (f"{link_local}%eth0", port),
                "another app": (address, PORT),
                "another app, by a name that leads to a private address": (container[:12], PORT),
            }
            datagrams.settimeout(ample(20))
            datagrams.sendto(b"mine", (apart.gateway, port))
            assert datagrams.recv(16) == b"mine"
            yield Neighbours(internet, refused, container[:12], name, datagrams, name_servers[0])
    finally:
        owners.remove(force=True)
        unfiltered.remove()
        client.close()
