"""Which name servers apps may ask; what a name server's answer says."""

from __future__ import annotations

import ipaddress
import json
import struct
from pathlib import Path

import docker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.settings import read_settings
from protocol.errors import BadSetting
from tests.unit.workers.sandbox.test_sandbox import spec
from workers.data.layout import Layout
from workers.sandbox.engine.host_config import host_config
from workers.sandbox.network import app_names, name_servers, packet_filter
from workers.sandbox.network.name_servers import of_container, of_daemon_json, question, response_code
from workers.sandbox.profile import sandbox_of
from workers.sandbox.spec import ContainerSpec

#: The docker client makes parameters without asking an engine, if it is given a version.
API = docker.APIClient(base_url="unix:///nowhere", version="1.41")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of the machine's files."""
    monkeypatch.setattr(name_servers, "RESOLV_CONF", (tmp_path / "resolv.conf",))
    monkeypatch.setattr(name_servers, "DAEMON_JSON", tmp_path / "daemon.json")
    monkeypatch.setattr(name_servers, "LEARNED", tmp_path / "learned")
    (tmp_path / "resolv.conf").write_text("nameserver 192.168.1.1\n")
    return tmp_path


def test_name_servers_that_the_engine_gives_its_containers_are_let_through(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def run(_: list[str], text: str = "") -> str:
        given.append(text)
        return ""

    monkeypatch.setattr(packet_filter, "_run", run)
    (machine / "daemon.json").write_text('{"dns": ["10.0.0.2", "fd00::1"], "data-root": "/x"}')
    assert name_servers.learn(of_container("nameserver 127.0.0.11\n\n# ExtServers: [10.0.0.3 host(127.0.0.53)]\n"))
    packet_filter.apply()
    for server in ("192.168.1.1", "10.0.0.2", "10.0.0.3"):
        assert any(f"-d {server}/32 -p udp --dport 53 -j RETURN" in text for text in given)


def test_name_servers_of_a_container_are_kept_for_the_next_time_the_filter_is_set(machine: Path) -> None:
    assert name_servers.learn(["10.0.0.3"])
    assert not name_servers.learn(["10.0.0.3", "192.168.1.1"])
    assert name_servers.learn(["10.0.0.4"])
    assert name_servers.allowed() == ["192.168.1.1", "10.0.0.3", "10.0.0.4"]
    (machine / "learned").unlink()
    (machine / "learned").mkdir()
    with pytest.raises(BadSetting, match=r"10\.0\.0\.9 cannot be noted"):
        name_servers.learn(["10.0.0.9"])


@given(st.text(max_size=100) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_no_settings_of_an_engine_become_anything_but_addresses(text: str) -> None:
    for content in (text, f'{{"dns": {text}}}', f"# ExtServers: [{text}]"):
        for server in of_daemon_json(content) + of_container(content):
            assert str(ipaddress.IPv4Address(server)) == server


@pytest.mark.parametrize(
    ("resolv_conf", "servers"),
    [
        ("# ExtServers: [10.0.0.2 1.1.1.1]", ["10.0.0.2", "1.1.1.1"]),
        ("# ExtServers: [host(127.0.0.53) fd00::1]", []),
        ("nameserver 127.0.0.11\noptions ndots:0\n", []),
    ],
)
def test_the_servers_that_dockers_resolver_asks_are_read_from_its_comment(resolv_conf: str, servers: list[str]) -> None:
    assert of_container(resolv_conf) == servers


def test_a_question_is_a_message_of_dns_for_an_address() -> None:
    assert question("a.example", 7) == b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\7example\0\0\1\0\1"


@given(st.binary(max_size=40))
def test_what_is_no_answer_to_the_question_says_nothing(answer: bytes) -> None:
    code = response_code(answer, 7)
    assert code is None or answer[:2] == b"\0\7"
    assert response_code(question("a.example", 7), 7) is None


@pytest.mark.parametrize(("code", "reached"), [(0, True), (3, True), (2, False), (5, False), (None, False)])
def test_an_app_without_a_name_server_is_told_from_a_name_that_is_not_known(
    code: int | None, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = b"" if code is None else struct.pack(">6H", 7, 0x8180 | code, 1, 0, 0, 0)
    monkeypatch.setattr(name_servers, "_asked", lambda *_: response_code(answer, 7))
    assert name_servers.answers("a.example") is reached


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://[::1]:1", "http://localhost", "nonsense", ""])
def test_no_name_server_is_asked_for_an_address_or_a_name_of_this_machine(url: str) -> None:
    assert name_servers.asked_name(url) is None


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A machine's folder."""
    made = Layout(tmp_path / "home")
    made.make()
    return made


def isolated(**settings: str) -> ContainerSpec:
    """An app that a runtime of its own runs."""
    return spec(sandbox=sandbox_of(read_settings(sandbox="isolated", **settings)))


def test_an_app_with_a_kernel_of_its_own_gets_the_name_servers_themselves(machine: Path, layout: Layout) -> None:
    made = app_names.with_names(layout, isolated())
    assert made.resolv_conf is not None
    assert Path(made.resolv_conf).read_text() == "nameserver 192.168.1.1\n"
    (mount,) = [each for each in host_config(API, made)["Mounts"] if each["Target"] == "/etc/resolv.conf"]
    assert (mount["Source"], mount["ReadOnly"]) == (made.resolv_conf, True)
    # Those that the engine gives its containers, where it is told to; what a container was found to have comes first.
    (machine / "daemon.json").write_text('{"dns": ["10.0.0.2"]}')
    app_names.with_names(layout, isolated())
    assert Path(made.resolv_conf).read_text() == "nameserver 10.0.0.2\n"
    assert name_servers.learn(["10.0.0.3"])
    app_names.with_names(layout, isolated())
    assert Path(made.resolv_conf).read_text() == "nameserver 10.0.0.3\n"
    assert set(name_servers.of_containers()) <= set(name_servers.allowed())


@pytest.mark.parametrize("asked", [isolated(app_network="none"), isolated(app_network="open"), spec()])
def test_no_other_app_has_a_file_of_this_machine(machine: Path, layout: Layout, asked: ContainerSpec) -> None:
    assert machine.is_dir()
    assert app_names.with_names(layout, asked) == asked
    assert "/etc/resolv.conf" not in {each["Target"] for each in host_config(API, asked)["Mounts"]}


def test_where_no_name_server_is_known_a_runtime_of_its_own_keeps_the_engines_file(
    machine: Path, layout: Layout
) -> None:
    (machine / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    assert app_names.with_names(layout, isolated()).resolv_conf is None
