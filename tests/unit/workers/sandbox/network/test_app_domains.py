"""The hosts that apps may reach and nothing else: what the setting takes, what is pinned, what the filter does."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import read_settings
from protocol.errors import BadSetting, RefusedHere
from tests.unit.workers.sandbox.network.test_app_network import API, FRESH, config
from tests.unit.workers.sandbox.test_rehearsal import Engine as RehearsalEngine
from tests.unit.workers.sandbox.test_rehearsal import machine_of
from tests.unit.workers.sandbox.test_sandbox import spec
from workers.data.guard import is_public
from workers.fitness import doctor
from workers.sandbox import rehearsal
from workers.sandbox.engine.container import Engine
from workers.sandbox.engine.container_state import ContainerState
from workers.sandbox.engine.host_config import host_config
from workers.sandbox.images.image_words import NOTHING_ASKED
from workers.sandbox.memory import MemoryWatch
from workers.sandbox.network import bridge as network
from workers.sandbox.network import listed_apps, packet_filter
from workers.sandbox.network.allow_list import (
    ADDRESSES,
    HOSTS,
    AllowedHost,
    PinnedHost,
    answered,
    label_of,
    pin,
    read_hosts,
    targets_of,
    words,
)
from workers.sandbox.network.packet_filter import restore_input, rules_listed
from workers.sandbox.profile import NetworkAccess, sandbox_of
from workers.sandbox.run_app import AppRun, run_app
from workers.sandbox.spec import LABEL_PINS, ContainerSpec

LIST = "data.example.org,api.example.com:8443"
HOSTS_OF_LIST = read_hosts(LIST)
PINS = (PinnedHost(HOSTS_OF_LIST[0], ("8.8.4.4", "8.8.8.8")), PinnedHost(HOSTS_OF_LIST[1], ("1.1.1.1",)))
LISTED = sandbox_of(read_settings(app_domains=LIST))

# -- the setting -------------------------------------------------------------------------------------------------------


def test_hosts_have_the_ports_of_the_web_unless_one_is_named_and_are_told_apart_by_their_names_alone() -> None:
    assert read_hosts("") == read_hosts("  ") == ()
    assert (AllowedHost("data.example.org", (80, 443)), AllowedHost("api.example.com", (8443,))) == HOSTS_OF_LIST
    assert read_hosts(" A.example.org:22 ,a.example.org") == (AllowedHost("a.example.org", (22, 80, 443)),)
    assert read_hosts("bücher.example")[0].name == "xn--bcher-kva.example"
    assert words(HOSTS_OF_LIST) == LIST


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("*.example.org", "wildcard"),
        ("data.example.org,*", "wildcard"),
        ("https://data.example.org", "not a host name"),
        ("data.example.org/x", "not a host name"),
        ("data.example.org:0", "port"),
        ("data.example.org:65536", "port"),
        ("data.example.org:http", "port"),
        ("data.example.org:80:81", "port"),
        ("93.184.216.34", "addresses are not taken"),
        ("0x7f.1", "addresses are not taken"),
        ("2001:db8::1", "port"),
        ("[2001:db8::1]:80", "port"),
        ("localhost", "with a dot"),
        ("a..b", "with a dot"),
        ("-a.example", "with a dot"),
        ("a.example -j ACCEPT", "with a dot"),
        ("a.example\nb.example", "with a dot"),
        ("a.example,,b.example", "with a dot"),
        (f"{'a' * 64}.example", "with a dot"),
        (",".join(f"h{number}.example" for number in range(HOSTS + 1)), f"{HOSTS} are the most"),
    ],
)
def test_what_is_no_list_of_hosts_is_refused_in_words(text: str, why: str) -> None:
    with pytest.raises(BadSetting, match=rf"(?s)SLUICE_APP_DOMAINS.*{why}"):
        sandbox_of(read_settings(app_domains=text))


@given(st.text(max_size=80))
def test_whatever_is_written_only_host_names_and_ports_come_of_it(text: str) -> None:
    try:
        hosts = read_hosts(text)
    except BadSetting:
        return
    for host in hosts:
        assert set(host.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        assert all(0 < port < 2**16 for port in host.ports)
    assert read_hosts(words(hosts)) == hosts


@pytest.mark.parametrize("other", [{"app_network": "none"}, {"app_network": "open"}, {"sandbox": "strict"}])
def test_a_list_contradicts_a_network_that_is_less_or_more(other: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="names what apps reach"):
        sandbox_of(read_settings(app_domains=LIST, **other))


def test_a_list_goes_with_a_runtime_of_its_own() -> None:
    found = sandbox_of(read_settings(app_domains=LIST, app_network="public", sandbox="isolated"))
    assert (found.network, found.runtime) == (NetworkAccess.LISTED, "runsc")


# -- the addresses -----------------------------------------------------------------------------------------------------


@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=12, unique=True))
def test_a_name_is_pinned_to_addresses_of_the_internet_or_refused_as_a_whole(
    found: list[ipaddress.IPv4Address],
) -> None:
    host = HOSTS_OF_LIST[:1]
    if all(is_public(address) for address in found):
        (pinned,) = pin(host, lambda _: [str(address) for address in found])
        assert pinned.addresses == tuple(str(address) for address in sorted(found)[:ADDRESSES])
    else:
        with pytest.raises(RefusedHere, match=r"data\.example\.org leads to .*, which is not an address of the inter"):
            pin(host, lambda _: [str(address) for address in found])


def unresolved(_: str) -> list[str]:
    raise OSError("Temporary failure in name resolution")


@pytest.mark.parametrize("resolve", [unresolved, lambda _: [], lambda _: ["::1"], lambda _: ["not one"]])
def test_a_name_without_an_address_is_this_machines_trouble(resolve: Callable[[str], list[str]]) -> None:
    with pytest.raises(RefusedHere, match=r"SLUICE_APP_DOMAINS: .*\.example"):
        pin(HOSTS_OF_LIST, resolve)


def test_what_a_container_reaches_is_in_its_hosts_file_and_its_label_and_it_has_no_name_server() -> None:
    made = spec(sandbox=LISTED).pinned(PINS)
    assert made.labels[LABEL_PINS] == "8.8.4.4:80,8.8.4.4:443,8.8.8.8:80,8.8.8.8:443,1.1.1.1:8443"
    found = host_config(API, made)
    assert found["ExtraHosts"] == [
        "data.example.org:8.8.4.4",
        "data.example.org:8.8.8.8",
        "api.example.com:1.1.1.1",
    ]
    assert found["Dns"] == ["192.0.2.1"]
    assert any(ipaddress.ip_address(found["Dns"][0]) in ipaddress.ip_network(block) for block in packet_filter.BLOCKED)
    assert found["SecurityOpt"] == ["no-new-privileges"]
    assert found["NetworkMode"] == network.listed_network(made.labels["sluice.wallet"])
    assert not {"ExtraHosts", "Dns"} & {name for name, value in config().items() if value}


# -- the packet filter -------------------------------------------------------------------------------------------------


def test_the_filter_lets_through_what_the_containers_of_now_reach_and_refuses_all_else() -> None:
    targets = targets_of([label_of(PINS), "9.9.9.9:443,1.1.1.1:8443"])
    rules = rules_listed(targets)
    assert [rule for rule in rules if "RETURN" in rule] == [
        f"-d {address}/32 -p tcp --dport {port} -j RETURN"
        for address, port in (
            ("1.1.1.1", 8443),
            ("8.8.4.4", 80),
            ("8.8.4.4", 443),
            ("8.8.8.8", 80),
            ("8.8.8.8", 443),
            ("9.9.9.9", 443),
        )
    ]
    # This machine's own addresses and published ports first, the rest last.
    assert "DNAT" in rules[0]
    assert "LOCAL" in rules[1]
    assert rules[-1].startswith("-j REJECT")
    assert not any("53" in rule for rule in rules)


@given(st.lists(st.text(max_size=40) | st.just("8.8.8.8:443"), max_size=4))
def test_no_label_becomes_anything_but_addresses_and_ports(labels: list[str]) -> None:
    for address, port in targets_of(labels):
        assert str(ipaddress.IPv4Address(address)) == address
        assert 0 < port < 2**16


def test_each_filter_of_sluice_comes_before_all_that_is_not_sluices_and_neither_displaces_the_other() -> None:
    chain, hook = "SLUICE-SLIST0", "-i slist0 -j SLUICE-SLIST0"
    present = f"{FRESH}-N SLUICE-APPS\n-A INPUT -i sluice+ -j SLUICE-APPS\n-A INPUT {hook}\n-A INPUT -j ACCEPT\n"
    assert "INPUT" not in restore_input([], present)
    assert "INPUT" not in restore_input([], present, chain, hook)
    behind = present.replace(f"-A INPUT {hook}\n-A INPUT -j ACCEPT\n", f"-A INPUT -j ACCEPT\n-A INPUT {hook}\n")
    assert restore_input([], behind, chain, hook).splitlines()[-3:-1] == [f"-D INPUT {hook}", f"-I INPUT 1 {hook}"]


@given(st.text(min_size=1), st.integers(1, 2**160 - 1))
def test_a_machine_with_a_list_has_a_bridge_of_its_own_that_the_other_filter_does_not_take(
    root: str, number: int
) -> None:
    wallet = f"0x{number:040x}"
    bridge = network._listed_bridge(root, wallet)
    assert len(bridge) <= 15
    assert not bridge.startswith(packet_filter.BRIDGE_PREFIX)
    assert bridge != network._listed_bridge(root, f"0x{number - 1:040x}")
    # iptables takes 28 characters.
    assert len(f"SLUICE-{bridge}") <= 28


# -- the course of things ----------------------------------------------------------------------------------------------


def test_a_container_that_was_made_and_never_started_is_made_again_with_the_addresses_of_now() -> None:
    made = ContainerState(
        "old",
        "created",
        running=False,
        paused=False,
        exit_code=0,
        out_of_memory=False,
        started=None,
        finished=None,
    )
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    ended = replace(made, container="new", status="exited", started=moment, finished=moment)
    acts: list[str] = []

    def create(asked: ContainerSpec) -> str:
        acts.append(f"create {asked.labels[LABEL_PINS]}")
        return "new"

    engine = SimpleNamespace(
        host="unix:///nowhere",
        find=lambda _: made,
        remove=lambda container: acts.append(f"remove {container}"),
        require_fit=lambda _: NOTHING_ASKED,
        create=create,
        data_folder=None,
        start=lambda container, _: acts.append(f"start {container}"),
        wait=lambda *_: True,
        state=lambda _: ended,
        printed=lambda _: (b"", b""),
        signalled=lambda _, untold: untold,
    )
    watch = nullcontext(SimpleNamespace(raise_if_over=lambda: None))

    def nothing(*_: object) -> None:
        """Do nothing."""

    app = AppRun(
        engine=cast("Any", engine),
        spec=spec(sandbox=LISTED),
        known_image=lambda: "image",
        fetch_image=lambda: "image",
        pinned=lambda asked: asked.pinned(PINS[1:]),
        gpus=lambda: nullcontext(()),
        room=lambda _: nullcontext(),
        clear=nothing,
        created=lambda container: acts.append(f"filter for {container}"),
        found=nothing,
        watch=lambda _: cast("Any", watch),
        memory=lambda container: MemoryWatch(container, 1, lambda _: {}),
        wait=nothing,
        wait_before_retry=nothing,
    )
    assert run_app(app, resumed=True).exit_code == 0
    assert acts == ["remove old", "create 1.1.1.1:8443", "filter for new", "start new"]


def test_a_machine_that_cannot_resolve_a_name_of_its_list_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listed_apps, "resolve", unresolved)
    monkeypatch.setattr(rehearsal, "Engine", lambda _: RehearsalEngine())
    machine = machine_of(tmp_path)
    machine.sandbox = LISTED
    with pytest.raises(BadSetting, match=r"every task would be declined\. .*data\.example\.org cannot be resolved"):
        rehearsal.rehearse(machine)


def test_the_doctor_says_what_is_allowed_and_which_host_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "info", lambda _: {"DefaultRuntime": "runc"})
    found = doctor.sandbox(read_settings(docker_host="unix:///nowhere", app_domains=LIST))
    assert f"network listed ({LIST})" in found.says
    assert (found.numbers["domains"], found.numbers["votes_failures"]) == (LIST, False)
    assert answered(PINS, {("8.8.4.4", 80): True}) == "no answer of api.example.com:8443"
    assert answered(PINS, {("8.8.4.4", 80): True, ("1.1.1.1", 8443): True}) == "each of them answered"
