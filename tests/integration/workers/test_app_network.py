"""What an app reaches, tried by an app: each target is shown to answer the machine itself first."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from docker import DockerClient

from config.settings import Settings
from protocol.errors import BadSetting
from protocol.results.params import DealParams
from tests.integration.workers.conftest import IMAGE
from tests.integration.workers.test_compute import done, result
from tests.unit.workers.assignments import WORKER_KEY, WORKERPOOL, assignment, task_id
from tests.waiting import ample, wait_until
from workers.context import WorkerContext
from workers.fitness import doctor
from workers.sandbox import egress, host_config, network, packet_filter
from workers.sandbox.container import Engine
from workers.sandbox.profile import CAPABILITIES, NetworkAccess, Sandbox, sandbox_of
from workers.sandbox.rehearsal import METADATA, rehearse
from workers.sandbox.spec import ContainerSpec, container_spec
from workers.task.replicate import ReplicateStage

BANNER = "reached"
#: Port of the other app, and of a container of the machine's owner.
PORT = 7000
_SERVE = ("nc", "-ll", "-p", str(PORT), "-e", "echo", BANNER)
#: Addresses that no other test process of this machine uses.
_OWN = f"{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
#: A range of the open internet from which nothing is announced; here, two ends of a cable.
HERE, INTERNET, PRIVATE = f"25.{_OWN}.1", f"25.{_OWN}.2", f"10.{_OWN}.2"


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _ip(*words: str, thread: int | None = None) -> str:
    inside = ["nsenter", f"--net=/proc/{thread}/ns/net"] if thread else []
    return _run(*inside, "ip", *words)


def _leave_network() -> None:
    """Give this thread, and what it starts, an empty network namespace of its own."""
    assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0


def _greet(server: socket.socket) -> None:
    """Send BANNER to whoever connects, until the socket is closed."""

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with closing(peer):
                peer.sendall(f"{BANNER}\n".encode())

    threading.Thread(target=serve, daemon=True).start()


def _end(server: socket.socket) -> None:
    # Wakes the thread that accepts.
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@contextmanager
def outside_world() -> Iterator[dict[str, egress.Target]]:
    """A host behind a cable of this machine, with an address on the internet, a private one and that of metadata.

    A network namespace of one thread: it goes with this process whatever happens.
    """
    ready, over = threading.Event(), threading.Event()
    made: list[int] = []
    servers: list[socket.socket] = []

    def live() -> None:
        _leave_network()
        made.append(threading.get_native_id())
        servers.append(socket.create_server(("0.0.0.0", METADATA[1])))
        ready.set()
        over.wait()

    thread = threading.Thread(target=live)
    thread.start()
    assert ready.wait(ample(20))
    link, far = f"t{os.getpid()}", f"u{os.getpid()}"
    try:
        _ip("link", "add", link, "type", "veth", "peer", "name", far, "netns", str(made[0]))
        _ip("addr", "add", f"{HERE}/30", "dev", link)
        _ip("link", "set", link, "up")
        for address in (f"{INTERNET}/30", f"{PRIVATE}/32", f"{METADATA[0]}/32"):
            _ip("addr", "add", address, "dev", far, thread=made[0])
        _ip("link", "set", far, "up", thread=made[0])
        _ip("route", "add", "default", "via", HERE, thread=made[0])
        _ip("route", "add", f"{PRIVATE}/32", "dev", link)
        _ip("route", "add", f"{METADATA[0]}/32", "dev", link, "metric", str(os.getpid() + 1))
        _greet(servers[0])
        yield {
            "internet": (INTERNET, METADATA[1]),
            "private range": (PRIVATE, METADATA[1]),
            "metadata": METADATA,
        }
    finally:
        _end(servers[0])
        subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
        over.set()
        thread.join()


@contextmanager
def machine_services() -> Iterator[tuple[int, socket.socket]]:
    """A TCP service on all addresses of this machine, as a broker, database or API is; and a UDP one."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        port = server.getsockname()[1]
        datagrams.bind(("0.0.0.0", port))
        _greet(server)
        try:
            yield port, datagrams
        finally:
            _end(server)


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


def run(engine: Engine, spec: ContainerSpec) -> str:
    """What the app prints, stdout only."""
    container = engine.create(spec)
    try:
        engine.start(container)
        assert engine.wait(container, ample(60))
        return engine.stream(container, stdout=True).decode()
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


@pytest.fixture
def neighbours(settings: Settings, context: WorkerContext, engine_host: str) -> Iterator[Neighbours]:
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
            lambda: re.findall(r"inet6 (fe80::[0-9a-f:]+)", _ip("-6", "addr", "show", "dev", apart.bridge)),
            20,
            what="an IPv6 address of the bridge",
        )
        with outside_world() as world, machine_services() as (port, datagrams):
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
            yield Neighbours(internet, refused, container[:12], name, datagrams)
    finally:
        owners.remove(force=True)
        unfiltered.remove()
        client.close()


def test_an_app_reaches_the_internet_and_nothing_else(
    settings: Settings, context: WorkerContext, neighbours: Neighbours
) -> None:
    gateway, port = neighbours.refused["this machine, at the bridge"]
    script = tries(neighbours) + (
        f"{datagram(gateway, port)}; wait; nslookup {neighbours.other} | grep Address; ping -c 1 {gateway} 2>&1\n"
        "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status"
    )
    printed = run(context.engine, app(settings, context, sandbox_of(settings), 1, "sh", "-c", script))
    found = reached(printed)
    assert found.pop("internet"), printed
    assert found == dict.fromkeys(neighbours.refused, False), printed
    # Names are resolved; it is the address that is refused.
    assert neighbours.refused["another app"][0] in printed
    neighbours.datagrams.setblocking(False)
    with pytest.raises(BlockingIOError):
        neighbours.datagrams.recv(16)
    # No raw sockets: nothing can be sent in another's name.
    assert "permission denied" in printed
    assert int(re.findall(r"CapBnd:\s*(\w+)", printed)[0], 16).bit_count() == len(CAPABILITIES)
    assert re.findall(r"(?:NoNewPrivs|Seccomp):\s*(\d)", printed) == ["1", "2"]


def test_a_strict_app_has_no_network_no_capability_and_a_read_only_root(
    settings: Settings, context: WorkerContext, neighbours: Neighbours
) -> None:
    sandbox = sandbox_of(settings.model_copy(update={"sandbox": "strict"}))
    script = tries(neighbours) + (
        "wait; ls /sys/class/net; grep -E 'CapBnd|NoNewPrivs' /proc/self/status\n"
        "echo x > /here || echo root is read-only; dd if=/dev/zero of=/tmp/x bs=1M count=17 || echo tmp is full\n"
        "echo x > /iexec_out/r && echo result is written"
    )
    printed = run(context.engine, app(settings, context, sandbox, 1, "sh", "-c", script))
    assert reached(printed) == dict.fromkeys(["internet", *neighbours.refused], False), printed
    assert re.findall(r"(?:CapBnd|NoNewPrivs):\s*(\w+)", printed) == ["0" * 16, "1"]
    tail = printed.splitlines()
    assert "lo" in tail
    assert "eth0" not in tail
    assert tail[-3:] == ["root is read-only", "tmp is full", "result is written"]


def test_where_nothing_is_in_the_way_an_app_reaches_what_the_machine_reaches(
    settings: Settings, context: WorkerContext, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Shows that the tries above do get through.
    sandbox = sandbox_of(settings.model_copy(update={"app_network": "open"}))
    monkeypatch.setitem(host_config._NETWORKS, NetworkAccess.OPEN, neighbours.unfiltered)
    names = ("private range", "metadata", "this machine, at another bridge", "a container of the owner")
    script = tries(neighbours, *names) + datagram(*neighbours.refused["this machine, at another bridge"]) + "; wait"
    found = reached(run(context.engine, app(settings, context, sandbox, 1, "sh", "-c", script)))
    assert found == dict.fromkeys(["internet", *names], True)
    assert b"octet" in neighbours.datagrams.recv(64)


def test_a_network_that_another_program_removed_is_made_again(
    context: WorkerContext, engine_host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As after `docker network prune`, with which owners clean up. A name of its own: others use the real one now.
    name = f"sluice-test-{os.getpid()}"
    monkeypatch.setattr(network, "NETWORK", name)
    monkeypatch.setattr(network, "GONE", network.GONE.replace("sluice-apps", name))
    monkeypatch.setattr(network, "bridge_name", lambda _: f"sluicet{os.getpid()}")
    monkeypatch.setitem(host_config._NETWORKS, NetworkAccess.PUBLIC, name)
    try:
        found = done(context, result("echo x > /iexec_out/r"))
        assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)
        wait_until(lambda: not context.engine.containers_of(WORKER_KEY.wallet), 10, what="the container's removal")
    finally:
        with closing(DockerClient(base_url=engine_host)) as client:
            client.networks.get(name).remove()


def test_a_packet_filter_without_effect_is_found_out_at_start(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "this machine and 169.254.169.254 were refused" in doctor.network(context.machine).says
    assert doctor.packet_filter(context.machine).ok
    with outside_world() as world:
        # An address that apps do reach, in place of one that they must not.
        monkeypatch.setattr("workers.sandbox.rehearsal.METADATA", world["internet"])
        with pytest.raises(BadSetting, match=r"would reach .*, where clouds keep credentials, although"):
            rehearse(context.machine)


def test_the_filter_is_set_again_after_another_program_emptied_or_preceded_it() -> None:
    def rules() -> list[str]:
        return [line for line in _run("iptables", "-w", "-S").splitlines() if not line.startswith("-P")]

    def check() -> None:
        packet_filter.apply()
        first = rules()
        assert "-A INPUT -i sluice+ -j SLUICE-APPS" in first
        assert len([rule for rule in first if rule.endswith("icmp-admin-prohibited")]) == len(packet_filter.BLOCKED) + 3
        packet_filter.apply()
        assert rules() == first
        # As a firewall does that is loaded anew.
        _run("iptables", "-w", "-F")
        packet_filter.apply()
        assert sorted(rules()) == sorted(first)
        _run("iptables", "-w", "-I", "INPUT", "-j", "ACCEPT")
        packet_filter.apply()
        assert [rule for rule in rules() if rule.startswith("-A INPUT")] == [
            "-A INPUT -i sluice+ -j SLUICE-APPS",
            "-A INPUT -j ACCEPT",
        ]

    # In a network namespace of its own: other tests rely on this machine's filter.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(_leave_network).result()
        apart.submit(check).result()


def test_an_app_cannot_fill_the_machines_table_of_connections(settings: Settings, context: WorkerContext) -> None:
    assert context.engine.confine_apps().limited
    container = context.engine.create(app(settings, context, sandbox_of(settings), 1, "sleep", "600"))
    context.engine.start(container)
    process, address = context.engine.process_of(container)

    def flood() -> None:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
            datagrams.bind((address, 0))
            for port in range(1, 4 * packet_filter.CONNECTIONS):
                with suppress(OSError):
                    datagrams.sendto(b"x", (INTERNET, port))

    with outside_world(), ThreadPoolExecutor(1) as inside:
        assert inside.submit(egress._enter, process).result()
        inside.submit(flood).result()
        # Not what got out in all: the kernel forgets a datagram after 30 s, and another one may go.
        held = Path("/proc/net/nf_conntrack").read_text().count(f" src={address} ")
    # Four times as many were tried.
    assert 0 < held <= packet_filter.CONNECTIONS * 17 / 16


def test_a_runtime_that_the_engine_lacks_is_said_at_start(settings: Settings, context: WorkerContext) -> None:
    asked = settings.model_copy(update={"sandbox": "isolated", "sandbox_runtime": "no-such-runtime"})
    object.__setattr__(context.machine, "settings", asked)
    assert context.machine.sandbox.network is NetworkAccess.PUBLIC
    assert "compat, runtime runc, network public; root in a container is root outside" in doctor.sandbox(settings).says
    with pytest.raises(BadSetting, match=r"needs the runtime no-such-runtime, and this Docker engine has .*runc"):
        rehearse(context.machine)
