"""What an app reaches, tried by an app: each target is shown to answer the machine itself first."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import pytest
from docker import DockerClient
from docker.errors import APIError

from config.settings import Settings
from protocol.errors import BadSetting
from tests.integration.workers.network.neighbours import (
    Neighbours,
    app,
    datagram,
    from_here,
    reached,
    run,
    stand_around,
    tries,
)
from tests.integration.workers.network.outside import (
    DNS_PORT,
    ELSEWHERE,
    INTERNET,
    outside_world,
)
from tests.integration.workers.scripts import done, result
from tests.unit.workers.assignments import WORKER_KEY
from tests.waiting import ample, wait_until
from workers.context import WorkerContext
from workers.fitness import doctor
from workers.sandbox.engine import host_config
from workers.sandbox.network import bridge as network
from workers.sandbox.network import listed_apps
from workers.sandbox.profile import CAPABILITIES, NetworkAccess, sandbox_of
from workers.sandbox.rehearsal import METADATA, rehearse
from workers.sandbox.spec import LABEL_WALLET
from workers.task.replicate import ReplicateStage


@pytest.fixture
def neighbours(settings: Settings, context: WorkerContext, engine_host: str) -> Iterator[Neighbours]:
    """All that an app must not reach, and one host that it may."""
    with stand_around(settings, context, engine_host) as found:
        yield found


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


DOMAINS = "allowed.example.org:80"


@pytest.fixture
def listed(
    settings: Settings, context: WorkerContext, engine_host: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings with an allow list of one host, which is the one on the internet: there, its name server is as well."""
    monkeypatch.setattr(listed_apps, "resolve", lambda _: [INTERNET])
    monkeypatch.setattr(host_config, "NO_NAME_SERVER", INTERNET)
    asked = settings.model_copy(update={"app_domains": DOMAINS})
    object.__setattr__(context.machine, "settings", asked)
    yield asked
    # An engine that is stopped leaves the bridges of its networks.
    with closing(DockerClient(base_url=engine_host)) as client, suppress(APIError):
        client.networks.get(network.listed_network(WORKER_KEY.wallet)).remove()


def test_with_an_allow_list_an_app_reaches_its_hosts_by_name_and_no_other_address_name_port_or_name_server(
    listed: Settings, context: WorkerContext, neighbours: Neighbours
) -> None:
    sandbox, settings = sandbox_of(listed), listed
    elsewhere = (ELSEWHERE, METADATA[1])
    neighbours.refused["another host on the internet"] = elsewhere
    assert from_here(elsewhere)
    neighbours.name_server.settimeout(ample(20))
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as peer:
        peer.sendto(b"mine", (INTERNET, DNS_PORT))
    assert neighbours.name_server.recv(16) == b"mine"
    gateway, port = neighbours.refused["this machine, at the bridge"]
    script = tries(neighbours) + (
        'echo "by name=$(nc -w 60 allowed.example.org 80 </dev/null 2>/dev/null)"\n'
        f"{datagram(gateway, port)}; {datagram(INTERNET, DNS_PORT)}; wait\n"
        "for name in other.example.org allowed.example.org; do nslookup $name >/dev/null 2>&1 || echo no answer; done\n"
        "cat /etc/hosts"
    )
    spec = listed_apps.pinned(app(settings, context, sandbox, 1, "sh", "-c", script))
    wallet = WORKER_KEY.wallet
    printed = run(context.engine, spec, lambda: listed_apps.confine(context.engine, context.layout, wallet))
    found = reached(printed)
    assert (found.pop("internet"), found.pop("by name")) == (True, True), printed
    assert found == dict.fromkeys(neighbours.refused, False), printed
    assert printed.count("no answer") == 2, printed
    for datagrams in (neighbours.datagrams, neighbours.name_server):
        datagrams.setblocking(False)
        with pytest.raises(BlockingIOError):
            datagrams.recv(16)
    # Once its container is gone, nobody gets there.
    spec = replace(spec, pins=(), labels={LABEL_WALLET: wallet}, command=("sh", "-c", tries(neighbours, "metadata")))
    late = spec.command[2].replace(" -w 60 ", " -w 2 ")
    unlisted = replace(spec, command=("sh", "-c", f"{late} wait"))
    printed = run(context.engine, unlisted, lambda: listed_apps.confine(context.engine, context.layout, wallet))
    assert reached(printed) == {"internet": False, "metadata": False}, printed


def test_a_task_runs_with_the_allow_list_of_its_machine(listed: Settings, context: WorkerContext) -> None:
    assert listed.app_domains == DOMAINS
    with outside_world():
        found = done(context, result("nc -w 60 allowed.example.org 80 </dev/null | grep -q . && echo x > /iexec_out/r"))
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)
    assert doctor.packet_filter(context.machine).ok


def test_a_machine_whose_apps_reach_it_or_what_its_list_does_not_have_is_refused_at_start(
    listed: Settings, context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert listed.app_domains == DOMAINS
    monkeypatch.setattr("workers.sandbox.network.name_servers.asked_name", lambda _: "pool.example.com")
    elsewhere = (ELSEWHERE, METADATA[1])
    with outside_world():
        assert rehearse(context.machine, outside=elsewhere).network == (
            f"apps reach {DOMAINS} only; from inside a container, this machine, {METADATA[0]}, {ELSEWHERE},"
            " name servers were refused, and each of them answered"
        )
        # As with a firewall of the machine's owner that lets all through before: the chain has no effect.
        monkeypatch.setattr("workers.sandbox.network.packet_filter.rules_listed", lambda _: [])
        monkeypatch.setattr("workers.sandbox.network.name_servers.asked_name", lambda _: None)
        with pytest.raises(
            BadSetting, match=rf"would reach this machine and .*{ELSEWHERE}:80, which is not in SLUICE_"
        ):
            rehearse(context.machine, outside=elsewhere)


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


def test_a_runtime_that_the_engine_lacks_is_said_at_start(settings: Settings, context: WorkerContext) -> None:
    asked = settings.model_copy(update={"sandbox": "isolated", "sandbox_runtime": "no-such-runtime"})
    object.__setattr__(context.machine, "settings", asked)
    assert context.machine.sandbox.network is NetworkAccess.PUBLIC
    assert "compat, runtime runc, network public; root in a container is root outside" in doctor.sandbox(settings).says
    with pytest.raises(BadSetting, match=r"needs the runtime no-such-runtime, and this Docker engine has .*runc"):
        rehearse(context.machine)
