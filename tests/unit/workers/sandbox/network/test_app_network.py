"""How apps are confined, by the settings; the rules of the packet filter."""

from __future__ import annotations

import ipaddress
import struct
import subprocess
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st

from config.settings import read_settings
from protocol.errors import BadSetting
from tests.unit.workers.sandbox.test_sandbox import spec
from workers.data.guard import is_public
from workers.fitness import doctor
from workers.sandbox.engine.container import Engine
from workers.sandbox.engine.host_config import host_config
from workers.sandbox.network import bridge as network
from workers.sandbox.network import packet_filter, pause_program
from workers.sandbox.network.bridge import AppNetwork, bridge_name, confine, network_options, read_network
from workers.sandbox.network.name_servers import of_resolv_conf
from workers.sandbox.network.packet_filter import BLOCKED, BRIDGE_PREFIX, restore_input, rules_4
from workers.sandbox.profile import (
    CAPABILITIES,
    NetworkAccess,
    Profile,
    check_runtime,
    has_user_namespaces,
    sandbox_of,
)

#: The docker client makes parameters without asking an engine, if it is given a version.
API = docker.APIClient(base_url="unix:///nowhere", version="1.41")
FRESH = "-P INPUT ACCEPT\n-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n"


def config(**settings: Any) -> dict[str, Any]:
    """Docker's HostConfig of an app under these settings."""
    return host_config(API, spec(sandbox=sandbox_of(read_settings(**settings))))


# -- profiles ----------------------------------------------------------------------------------------------------------


def test_an_app_gets_public_network_and_the_capabilities_of_ordinary_entry_points() -> None:
    found = config()
    assert found["NetworkMode"] == "sluice-apps"
    assert (found["CapDrop"], found["CapAdd"]) == (["ALL"], list(CAPABILITIES))
    assert not found["ReadonlyRootfs"]
    assert "Runtime" not in found


def test_a_strict_app_gets_no_network_no_capability_and_a_tmp_of_a_quarter_of_its_memory() -> None:
    found = config(sandbox="strict")
    assert found["NetworkMode"] == "none"
    assert found["CapDrop"] == ["ALL"]
    assert not found.get("CapAdd")
    assert found["ReadonlyRootfs"]
    assert found["Tmpfs"] == {"/tmp": f"size={2**28},mode=1777,nosuid,nodev"}


def test_an_isolated_app_is_run_by_the_runtime_that_the_operator_names() -> None:
    assert config(sandbox="isolated")["Runtime"] == "runsc"
    # Its own threads count with the app's.
    assert config(sandbox="isolated")["PidsLimit"] > config()["PidsLimit"]
    found = config(sandbox="isolated", sandbox_runtime="kata")
    assert (found["Runtime"], found["NetworkMode"]) == ("kata", "sluice-apps")


@pytest.mark.parametrize(("access", "mode"), [("none", "none"), ("open", "default"), ("public", "sluice-apps")])
def test_the_operator_may_choose_another_network(access: str, mode: str) -> None:
    assert config(app_network=access)["NetworkMode"] == mode


@given(
    st.sampled_from(list(Profile)),
    st.sampled_from([None, NetworkAccess.PUBLIC, NetworkAccess.NONE, NetworkAccess.OPEN]),
)
def test_whatever_the_profile_no_app_gains_privileges_devices_or_namespaces_of_the_machine(
    profile: Profile, access: NetworkAccess | None
) -> None:
    if profile is Profile.STRICT and access not in (None, NetworkAccess.NONE):
        with pytest.raises(BadSetting, match="strict gives apps no network"):
            config(sandbox=profile, app_network=access)
        return
    found = config(sandbox=profile, app_network=access)
    assert found["SecurityOpt"] == ["no-new-privileges"]
    assert found["CapDrop"] == ["ALL"]
    assert found["PidsLimit"] > 0
    assert not {"Privileged", "Devices", "PidMode", "UsernsMode", "UTSMode", "Sysctls", "Binds"} & found.keys()
    assert found["NetworkMode"] != "host"


def test_a_runtime_that_the_engine_lacks_is_named_with_those_it_has() -> None:
    isolated = sandbox_of(read_settings(sandbox="isolated"))
    with pytest.raises(BadSetting, match="runtime runsc, and this Docker engine has io, runc"):
        check_runtime(isolated, {"Runtimes": {"runc": {}, "io": {}}})
    with pytest.raises(BadSetting, match="has none"):
        check_runtime(isolated, {})
    check_runtime(isolated, {"Runtimes": {"runsc": {}}})
    check_runtime(sandbox_of(read_settings(sandbox="isolated", sandbox_runtime="io.containerd.kata.v2")), {})
    check_runtime(sandbox_of(read_settings()), {})


def test_podman_is_named_and_refused_under_every_profile() -> None:
    # Keys of its `info` that Docker's has not.
    info = {"BuildahVersion": "1.28.2", "Rootless": False, "DefaultRuntime": "runc", "Runtimes": {"runsc": {}}}
    for profile in Profile:
        with pytest.raises(BadSetting, match=r"SLUICE_DOCKER_HOST.*Podman answers there"):
            check_runtime(sandbox_of(read_settings(sandbox=profile)), info)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("runsc", {"path": "/usr/bin/runsc"}),
        ("kata-fc", {"path": ""}),
        ("secure", {"path": "/opt/gvisor/run"}),
        ("mine", {"runtimeType": "io.containerd.kata.v2"}),
    ],
)
def test_an_engine_that_runs_apps_in_a_kernel_of_their_own_is_refused_unless_failures_are_not_voted(
    monkeypatch: pytest.MonkeyPatch, name: str, runtime: dict[str, str]
) -> None:
    info = {"DefaultRuntime": name, "Runtimes": {"runc": {"path": "runc"}, name: runtime}}
    with pytest.raises(BadSetting, match=f"default runtime {name} .*SLUICE_SANDBOX_RUNTIME={name}"):
        check_runtime(sandbox_of(read_settings()), info)
    monkeypatch.setattr(Engine, "info", lambda _: info)
    for stricter in ({"sandbox": "isolated", "sandbox_runtime": name}, {"sandbox": "strict"}, {"app_network": "none"}):
        check_runtime(sandbox_of(read_settings(**stricter)), info)
        says = doctor.sandbox(read_settings(docker_host="unix:///nowhere", **stricter)).says
        assert f"{name} gives apps a kernel of their own" in says


@pytest.mark.parametrize("name", ["runc", "crun", "nvidia", "io.containerd.runc.v2", ""])
def test_an_engine_whose_default_runtime_shares_the_kernel_is_taken(name: str) -> None:
    check_runtime(sandbox_of(read_settings()), {"DefaultRuntime": name, "Runtimes": {name: {"path": name}}})
    check_runtime(sandbox_of(read_settings()), {"DefaultRuntime": name, "Runtimes": {name: None}})


def test_user_namespaces_are_seen_by_what_the_engine_says() -> None:
    assert has_user_namespaces({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]})
    assert has_user_namespaces({"SecurityOptions": ["name=rootless"]})
    assert not has_user_namespaces({"SecurityOptions": ["name=seccomp,profile=default"]})
    assert not has_user_namespaces({"SecurityOptions": None})


# -- the packet filter -------------------------------------------------------------------------------------------------


@given(st.ip_addresses(v=4))
@example(ipaddress.ip_address("169.254.169.254"))
@example(ipaddress.ip_address("168.63.129.16"))
@example(ipaddress.ip_address("255.255.255.255"))
def test_the_filter_refuses_what_downloads_refuse(address: ipaddress.IPv4Address) -> None:
    blocked = any(address in ipaddress.ip_network(block) for block in BLOCKED)
    assert blocked is not is_public(address)


@given(st.sampled_from(BLOCKED), st.integers(0, 2**32))
def test_each_refused_range_is_refused_whole(block: str, offset: int) -> None:
    within = ipaddress.ip_network(block)
    assert not is_public(within[offset % within.num_addresses])


def test_name_servers_are_asked_on_port_53_before_anything_is_refused() -> None:
    servers = of_resolv_conf(
        "# nameserver 1.1.1.1\nnameserver 192.168.1.1\noptions ndots:0\nnameserver 127.0.0.53\nnameserver fd00::1\n"
        "nameserver\nnameserver 192.168.1.1\nnameserver not-an-address; -j ACCEPT\n"
    )
    assert servers == ["192.168.1.1"]
    rules = rules_4(servers)
    assert rules[:2] == [f"-d 192.168.1.1/32 -p {kind} --dport 53 -j RETURN" for kind in ("udp", "tcp")]
    assert not any("RETURN" in rule or "ACCEPT" in rule for rule in rules[2:])


@given(st.text(max_size=200))
def test_no_resolv_conf_becomes_anything_but_addresses(text: str) -> None:
    for server in of_resolv_conf(f"nameserver {text}\n{text}"):
        assert str(ipaddress.IPv4Address(server)) == server


def test_the_filter_is_the_first_rule_of_forward_docker_user_and_input() -> None:
    lines = restore_input(["-j REJECT"], FRESH).splitlines()
    assert lines == [
        "*filter",
        ":SLUICE-APPS - [0:0]",
        "-A SLUICE-APPS -j REJECT",
        "-I FORWARD 1 -i sluice+ -j SLUICE-APPS",
        "-I DOCKER-USER 1 -i sluice+ -j SLUICE-APPS",
        "-I INPUT 1 -i sluice+ -j SLUICE-APPS",
        "COMMIT",
    ]


def test_a_filter_that_is_set_is_only_filled_anew() -> None:
    present = f"{FRESH}-N SLUICE-APPS\n-A INPUT -i sluice+ -j SLUICE-APPS\n-A INPUT -p tcp -j ACCEPT\n"
    for chain in ("FORWARD", "DOCKER-USER"):
        present = present.replace(f"-A {chain}", f"-A {chain} -i sluice+ -j SLUICE-APPS\n-A {chain}", 1)
    assert " 1 -i sluice+" not in restore_input(["-j REJECT"], present)


def test_a_rule_that_came_before_the_filter_comes_after_it_again() -> None:
    present = f"{FRESH}-N SLUICE-APPS\n-A INPUT -p tcp -j ACCEPT\n-A INPUT -i sluice+ -j SLUICE-APPS\n"
    lines = restore_input([], present).splitlines()
    assert lines[-3:-1] == ["-D INPUT -i sluice+ -j SLUICE-APPS", "-I INPUT 1 -i sluice+ -j SLUICE-APPS"]


def test_a_firewall_that_accepts_before_it_asks_dockers_chain_accepts_nothing_of_apps() -> None:
    accepting = FRESH.replace("-A FORWARD", "-A FORWARD -s 172.16.0.0/12 -j ACCEPT\n-A FORWARD", 1)
    present = accepting.replace("-A DOCKER-USER", "-A DOCKER-USER -i sluice+ -j SLUICE-APPS\n-A DOCKER-USER", 1)
    assert "-I FORWARD 1 -i sluice+ -j SLUICE-APPS" in restore_input([], present).splitlines()


def test_without_a_chain_of_docker_the_filter_is_the_first_rule_of_forward() -> None:
    assert "-I FORWARD 1 -i sluice+ -j SLUICE-APPS" in restore_input([], "-P INPUT ACCEPT\n-A FORWARD -j OTHER\n")


@pytest.mark.parametrize(
    "answer", [FileNotFoundError(), PermissionError(), subprocess.TimeoutExpired("iptables", 1), "Permission denied"]
)
def test_a_machine_that_cannot_filter_is_refused_with_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, answer: Exception | str
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if isinstance(answer, Exception):
            raise answer
        return subprocess.CompletedProcess(command, 4, "", f"{answer}\nmore")

    monkeypatch.setattr("workers.sandbox.network.packet_filter.subprocess.run", run)
    with pytest.raises(BadSetting, match="SLUICE_APP_NETWORK=none, or open"):
        packet_filter.apply()


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:2375", "ssh://elsewhere", "http://127.0.0.1"])
def test_an_engine_on_another_machine_is_refused(host: str) -> None:
    with pytest.raises(BadSetting, match="does not share the network"):
        confine(host, AppNetwork("sluice0", "127.0.0.1"))


def test_a_kernel_without_a_limit_of_connections_gets_the_rest_of_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def run(command: list[str], **options: str) -> subprocess.CompletedProcess[str]:
        refused = "connlimit" in options["input"]
        if command[0] == "iptables-restore" and not refused:
            given.append(options["input"])
        return subprocess.CompletedProcess(command, int(refused), "", "Extension connlimit is not supported.")

    monkeypatch.setattr("workers.sandbox.network.packet_filter.subprocess.run", run)
    assert not packet_filter.apply()
    assert len(given) == 1
    assert "169.254.0.0/16" in given[0]


@pytest.mark.parametrize("content", ["0\n", None])
def test_a_kernel_that_hides_packets_between_containers_from_the_filter_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    switch = tmp_path / "switch"
    if content is not None:
        switch.write_text(content)
    monkeypatch.setattr(network, "_BRIDGED", switch)
    monkeypatch.setattr(network, "is_own_address", lambda _: True)
    applied: list[bool] = []

    def apply() -> bool:
        applied.append(True)
        return True

    monkeypatch.setattr(packet_filter, "apply", apply)
    with pytest.raises(BadSetting, match="br_netfilter is off"):
        confine("unix:///nowhere", AppNetwork("sluice0", "172.18.0.1"))
    # What apps of an earlier start reach is refused all the same.
    assert applied


# -- the network -------------------------------------------------------------------------------------------------------


@given(st.text(min_size=1))
def test_a_bridge_is_named_by_its_engine_and_within_what_the_kernel_takes(root: str) -> None:
    name = bridge_name(root)
    assert name.startswith(BRIDGE_PREFIX)
    assert len(name) <= 15
    assert name != bridge_name(f"{root}/")


def test_a_network_of_that_name_with_other_options_is_refused() -> None:
    good = {
        "Driver": "bridge",
        "EnableIPv6": False,
        "Options": network_options("sluice0"),
        "IPAM": {"Config": [{"Gateway": "172.18.0.1"}]},
    }
    assert read_network(good, "sluice0") == AppNetwork("sluice0", "172.18.0.1")
    chatty = {**network_options("sluice0"), "com.docker.network.bridge.enable_icc": "true"}
    for wrong in ({"Driver": "macvlan"}, {"EnableIPv6": True}, {"Options": None}, {"Options": chatty}):
        with pytest.raises(BadSetting, match="docker network rm sluice-apps"):
            read_network({**good, **wrong}, "sluice0")
    with pytest.raises(BadSetting, match="not the worker's own"):
        read_network(good, "sluice1")


class SlowEngine:
    """An engine at which another worker makes the network: it refuses a second one before the first can be seen."""

    def __init__(self) -> None:
        self.looks = 0

    def info(self) -> dict[str, str]:
        return {"DockerRootDir": "/data"}

    def create_network(self, *_: object, **__: object) -> None:
        forbidden = requests.Response()
        forbidden.status_code = requests.codes.forbidden
        raise docker.errors.APIError("a network with the same bridge name", response=forbidden)

    def inspect_network(self, name: str) -> dict[str, Any]:
        self.looks += 1
        if self.looks < 4:
            raise docker.errors.NotFound(name)
        options = network_options(bridge_name("/data"))
        return {"Driver": "bridge", "Options": options, "IPAM": {"Config": [{"Gateway": "172.17.0.1"}]}}


def test_a_network_that_another_worker_is_making_is_waited_for() -> None:
    made = network.make(SlowEngine())  # type: ignore[arg-type]  # what `make` asks of it
    assert made == AppNetwork(bridge_name("/data"), "172.17.0.1")


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 62), ("arm64", 183)])
def test_the_program_that_waits_is_a_whole_elf_file(architecture: str, machine: int) -> None:
    program = pause_program.program(architecture)
    assert program is not None
    assert program[:4] == b"\x7fELF"
    assert struct.unpack_from("<HH", program, 16) == (2, machine)
    (entry,) = struct.unpack_from("<Q", program, 24)
    address, file_size = struct.unpack_from("<Q", program, 64 + 16)[0], struct.unpack_from("<Q", program, 64 + 32)[0]
    assert file_size == len(program)
    assert entry == address + 64 + 56
    assert pause_program.program("riscv64") is None
