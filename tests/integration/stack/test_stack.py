"""The whole stack as commands: up again and again, killed, and down without touching anybody else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.settings import Settings, read_settings
from config.values.stack_settings import StackSettings
from ops import cli
from ops.stack import ports, stack, status
from ops.stack.parts import StackPart
from ops.stack.process import find
from ops.stack.servers import anvil
from ops.stack.stack import StackStep
from protocol.errors import PortTaken, StackError, Unavailable, WrongChain
from tests.waiting import wait_until

#: Parts that start in under a second; the others have tests of their own.
QUICK = (StackPart.MONGODB, StackPart.CHAIN, StackPart.IPFS)


@dataclass(frozen=True, slots=True)
class Place:
    """A stack of this test alone."""

    settings: Settings
    ports: StackSettings

    def up(self, *parts: StackPart) -> stack.Stack:
        return stack.up(self.settings, self.ports, parts or QUICK, _nobody)

    def down(self, *parts: StackPart, wipe: bool = False) -> list[StackPart]:
        return stack.down(self.settings.home, self.ports, parts or QUICK, _nobody, wipe=wipe)

    def pids(self) -> dict[StackPart, int | None]:
        return {state.part: state.pid for state in status.of(self.settings, self.ports, QUICK)}

    def environment(self) -> dict[str, str]:
        numbers = {f"SLUICE_STACK_{name.upper()}": str(port) for name, port in self.ports.model_dump().items()}
        return {"SLUICE_HOME": str(self.settings.home), **numbers}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLUICE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    row = ports.free_port(10)
    numbers = StackSettings(
        mongodb_port=row, rpc_port=row + 1, ipfs_api_port=row + 2, ipfs_gateway_port=row + 3, rabbitmq_port=row + 4
    )
    place = Place(read_settings(home=tmp_path / "home"), numbers)
    yield place
    place.down()


def test_up_twice_is_up_once(place: Place) -> None:
    first = place.up()
    pids = place.pids()
    assert all(pids.values())
    second = place.up()
    assert place.pids() == pids
    assert second == first


def test_up_tells_every_process_where_things_are(place: Place) -> None:
    place.up()
    sourced = subprocess.run(
        ["sh", "-c", '. "$0" && env', str(place.settings.home / "stack.env")],
        capture_output=True,
        text=True,
        check=True,
    )
    told = dict(line.split("=", 1) for line in sourced.stdout.splitlines() if line.startswith("SLUICE_"))
    assert told["SLUICE_RPC_URL"] == f"http://127.0.0.1:{place.ports.rpc_port}"
    assert told["SLUICE_MONGODB_URI"].startswith(f"mongodb://127.0.0.1:{place.ports.mongodb_port}/?replicaSet=")
    assert told["SLUICE_HUB"].startswith("0x")
    assert (place.settings.home / "stack.env").stat().st_mode & 0o077 == 0
    assert (
        json.loads((place.settings.home / "stack.json").read_text())["settings"]
        == stack.read(place.settings.home).settings
    )


def test_an_up_that_is_killed_half_way_is_finished_by_the_next_without_a_second_copy(place: Place) -> None:
    command = [sys.executable, "-m", "ops.cli", "stack", "up", *QUICK]
    process = subprocess.Popen(command, env={**os.environ, **place.environment()}, stderr=subprocess.DEVNULL)
    pid_file = place.settings.home / "stack" / StackPart.MONGODB / "pid"
    wait_until(pid_file.exists, 30, what="the start of MongoDB")
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = find("MongoDB", pid_file)
    assert started is not None
    place.up()
    assert place.pids()[StackPart.MONGODB] == started.pid
    assert all(state.answers for state in status.of(place.settings, place.ports, QUICK))


def test_what_was_killed_comes_up_again_and_the_rest_stays(place: Place) -> None:
    place.up()
    before = place.pids()
    pid = before[StackPart.MONGODB]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    place.up()
    after = place.pids()
    assert after[StackPart.MONGODB] not in (None, pid)
    assert (after[StackPart.CHAIN], after[StackPart.IPFS]) == (before[StackPart.CHAIN], before[StackPart.IPFS])


def test_down_stops_all_that_was_started_and_a_second_down_nothing(place: Place) -> None:
    place.up()
    assert place.down() == list(QUICK)
    assert place.down() == []
    assert all(ports.is_free(port) for port in place.ports.model_dump().values())
    assert stack.read(place.settings.home).servers == {}


def test_down_of_one_part_leaves_the_others_known(place: Place) -> None:
    place.up()
    place.down(StackPart.IPFS)
    assert set(stack.read(place.settings.home).servers) == {StackPart.MONGODB, StackPart.CHAIN}


def test_down_leaves_a_chain_alone_that_the_settings_named(place: Place, tmp_path: Path) -> None:
    theirs = anvil.start(tmp_path / "theirs", ports.free_port(), block_time=None)
    try:
        named = Place(read_settings(home=place.settings.home, rpc_url=theirs.rpc_url), place.ports)
        server = named.up(StackPart.CHAIN).servers[StackPart.CHAIN]
        assert server.pid is None
        assert "SLUICE_RPC_URL" in server.source
        assert named.down(StackPart.CHAIN) == []
        assert theirs.process.alive()
    finally:
        theirs.stop()


def test_down_leaves_a_stranger_alone_who_has_an_old_pid(place: Place) -> None:
    place.up(StackPart.CHAIN)
    pid_file = place.settings.home / "stack" / StackPart.CHAIN / "pid"
    boot, stat, fingerprint = pid_file.read_text().splitlines()
    pid = stat.split(" ", 1)[0]
    place.down(StackPart.CHAIN)
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        pid_file.write_text(f"{boot}\n{stat.replace(pid, str(stranger.pid), 1)}\n{fingerprint}\n")
        assert place.down(StackPart.CHAIN) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_chain_keeps_its_blocks_over_down_and_up_until_it_is_wiped(place: Place) -> None:
    hub = place.up(StackPart.CHAIN).settings["SLUICE_HUB"]
    state = place.settings.home / "stack" / StackPart.CHAIN / "state.json"
    fresh = state.read_bytes()
    place.down(StackPart.CHAIN)
    assert state.read_bytes() != fresh
    assert place.up(StackPart.CHAIN).settings["SLUICE_HUB"] == hub
    place.down(StackPart.CHAIN, wipe=True)
    assert not state.exists()


def test_a_named_node_with_another_chain_id_is_refused(place: Place, tmp_path: Path) -> None:
    theirs = anvil.start(tmp_path / "theirs", ports.free_port(), chain_id=4242, block_time=None)
    try:
        named = Place(read_settings(home=place.settings.home, rpc_url=theirs.rpc_url), place.ports)
        with pytest.raises(WrongChain, match="the node says chain id 4242, the settings 31337"):
            named.up(StackPart.CHAIN)
    finally:
        theirs.stop()


def test_a_named_server_that_is_silent_is_reported_with_its_setting_and_without_its_password(place: Place) -> None:
    uri = f"mongodb://me:secret@127.0.0.1:{ports.free_port()}/"
    named = Place(read_settings(home=place.settings.home, mongodb_uri=uri), place.ports)
    with pytest.raises(Unavailable, match="SLUICE_MONGODB_URI") as caught:
        named.up(StackPart.MONGODB)
    assert "secret" not in str(caught.value)


def test_a_part_that_fails_does_not_take_the_others_down_and_is_named(place: Place, tmp_path: Path) -> None:
    somebody = anvil.start(tmp_path / "somebody", place.ports.mongodb_port, block_time=None)
    try:
        with pytest.raises(PortTaken, match="SLUICE_STACK_MONGODB_PORT"):
            place.up()
        pids = place.pids()
        assert pids[StackPart.MONGODB] is None
        assert pids[StackPart.CHAIN] is not None
        assert pids[StackPart.IPFS] is not None
    finally:
        somebody.stop()


def test_two_failures_are_told_together(place: Place, tmp_path: Path) -> None:
    somebody = anvil.start(tmp_path / "one", place.ports.mongodb_port, block_time=None)
    another = anvil.start(tmp_path / "two", place.ports.rpc_port, block_time=None)
    try:
        with pytest.raises(StackError) as caught:
            place.up()
        assert "SLUICE_STACK_MONGODB_PORT" in str(caught.value)
        assert "SLUICE_STACK_RPC_PORT" in str(caught.value)
    finally:
        somebody.stop()
        another.stop()


def test_the_command_prints_json_alone_on_standard_output(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in place.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("ops.commands.run.stack.settings", read_settings)
    assert cli.run(["stack", "up", "mongodb", "--json"]) == 0
    up = capfd.readouterr()
    assert json.loads(up.out)["mongodb"]["endpoint"] == f"mongodb://127.0.0.1:{place.ports.mongodb_port}"
    assert cli.run(["stack", "status", "mongodb", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["mongodb"]["answers"] is True
    assert cli.run(["stack", "down", "mongodb", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"stopped": ["mongodb"]}
    assert cli.run(["stack", "status", "mongodb", "--json"]) == 1


def _nobody(_: StackStep) -> None:
    """Nobody watches."""
