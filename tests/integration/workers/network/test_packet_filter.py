"""The packet filter of apps: set, set again, found out where it is without effect or keeps apps from name servers."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from config.settings import Settings
from protocol.errors import BadSetting
from tests.integration.workers.network.neighbours import app
from tests.integration.workers.network.outside import INTERNET, leave_network, outside_world, run_command
from workers.context import WorkerContext
from workers.fitness import doctor
from workers.sandbox.engine import container, host_config
from workers.sandbox.network import egress, name_servers, packet_filter
from workers.sandbox.profile import sandbox_of
from workers.sandbox.rehearsal import rehearse


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
        return [line for line in run_command("iptables", "-w", "-S").splitlines() if not line.startswith("-P")]

    def check() -> None:
        packet_filter.apply()
        first = rules()
        assert "-A INPUT -i sluice+ -j SLUICE-APPS" in first
        assert len([rule for rule in first if rule.endswith("icmp-admin-prohibited")]) == len(packet_filter.BLOCKED) + 3
        packet_filter.apply()
        assert rules() == first
        # As a firewall does that is loaded anew.
        run_command("iptables", "-w", "-F")
        packet_filter.apply()
        assert sorted(rules()) == sorted(first)
        run_command("iptables", "-w", "-I", "INPUT", "-j", "ACCEPT")
        packet_filter.apply()
        assert [rule for rule in rules() if rule.startswith("-A INPUT")] == [
            "-A INPUT -i sluice+ -j SLUICE-APPS",
            "-A INPUT -j ACCEPT",
        ]

    # In a network namespace of its own: other tests rely on this machine's filter.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(leave_network).result()
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


def test_a_machine_whose_apps_cannot_ask_a_name_server_is_refused_with_what_to_do(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with an engine that gives its containers name servers of a private network which the filter does not know.
    made = host_config.host_config
    monkeypatch.setattr(container, "host_config", lambda api, spec: made(api, spec) | {"Dns": ["10.255.255.254"]})
    monkeypatch.setattr(name_servers, "asked_name", lambda _: "pool.example.com")
    monkeypatch.setattr(name_servers, "of_container", lambda _: [])
    # No answer comes, however long one waits.
    monkeypatch.setattr(name_servers, "ANSWER_SECONDS", 0.5)
    with pytest.raises(BadSetting, match=r"an app cannot: .*\n?.*daemon\.json"):
        rehearse(context.machine)


def test_the_doctor_finds_out_that_apps_do_not_reach_the_internet(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A private address, which the filter refuses, in place of the pool's.
    monkeypatch.setattr(doctor, "_find_public_api", lambda _: ("10.255.255.254", 1))
    found = doctor._found("network", lambda: doctor.network(context.machine))
    assert not found.ok
    assert "no answer from the internet: 10.255.255.254:1" in found.says
