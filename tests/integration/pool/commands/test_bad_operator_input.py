"""What an operator may get wrong: one clear error on standard error, exit code 2 or 1, and nothing was started."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from bench.rig.bench_pool import BenchPool
from ops.stack import ports
from ops.stack.servers import anvil, rabbitmq
from tests.integration.forged import Ended, sluice
from tests.waiting import wait_until

# They end while these commands run.
pytestmark = pytest.mark.usefixtures("unservable_deals")

#: A command's exit code for wrong words, and for everything else.
BAD_INPUT, FAILED = 2, 1
ROLES = ("scheduler", "worker")


@pytest.fixture
def env(shared_pool: BenchPool, tmp_path: Path) -> dict[str, str]:
    """Settings of a process that would work in the shared pool: own home, keystore and ports."""
    keystore, password = tmp_path / "wallet.json", tmp_path / "password"
    _write_keystore(keystore, shared_pool.pool.on_chain.workers[-1].secret, "right")
    password.write_text("right\n")
    return {
        **shared_pool.pool.env,
        "SLUICE_HOME": str(tmp_path / "home"),
        "SLUICE_KEYSTORE": str(keystore),
        "SLUICE_KEYSTORE_PASSWORD_FILE": str(password),
        "SLUICE_API_PORT": str(ports.free_port()),
        "SLUICE_FLOWER_PORT": str(ports.free_port()),
        "SLUICE_OPERATIONS_PORT": str(ports.free_port()),
    }


@pytest.fixture
def empty_chain(shared_pool: BenchPool, tmp_path: Path) -> Iterator[str]:
    """A node with the pool's chain id and no contract."""
    node = anvil.start(tmp_path / "empty", ports.free_port(), chain_id=shared_pool.chain.chain_id, block_time=None)
    yield node.rpc_url
    node.stop()


@pytest.fixture
def other_chain(tmp_path: Path) -> Iterator[str]:
    """A node of another chain."""
    node = anvil.start(tmp_path / "other", ports.free_port(), chain_id=4242, block_time=None)
    yield node.rpc_url
    node.stop()


def refused(role: str, env: dict[str, str], code: int, pattern: str) -> None:
    """`sluice ROLE run` must end with `code` and one error like `pattern`, having started nothing."""
    done = sluice(role, "run", env=env)
    assert done.code == code, done.err
    assert_one_error(done, pattern)
    assert list(Path(env["SLUICE_HOME"]).glob("run/*.pid")) == []
    assert ports.is_free(int(env["SLUICE_API_PORT"])) or "Port" in pattern


def assert_one_error(done: Ended, pattern: str) -> None:
    assert len(done.errors) == 1, done.err
    assert re.search(pattern, done.errors[0]), done.errors
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.parametrize("role", ROLES)
def test_a_node_of_another_chain_is_refused(role: str, env: dict[str, str], other_chain: str) -> None:
    refused(role, env | {"SLUICE_RPC_URL": other_chain}, FAILED, r"not the one the settings describe: .*4242.*31337")


@pytest.mark.parametrize("role", ROLES)
def test_a_chain_id_that_is_not_the_nodes_is_refused(role: str, env: dict[str, str]) -> None:
    code, pattern = {
        "scheduler": (FAILED, r"not the one the settings describe: .*31337.*4242"),
        "worker": (BAD_INPUT, r"SLUICE_CHAIN_ID is wrong: it is 4242, the pool at .* has 31337"),
    }[role]
    refused(role, env | {"SLUICE_CHAIN_ID": "4242"}, code, pattern)


@pytest.mark.parametrize("role", ROLES)
def test_a_hub_address_without_a_contract_is_refused(role: str, env: dict[str, str], empty_chain: str) -> None:
    refused(role, env | {"SLUICE_RPC_URL": empty_chain}, FAILED, r"settings describe: .*(code|contract)")


@pytest.mark.parametrize("role", ROLES)
def test_a_keystore_that_is_not_there_is_refused(role: str, env: dict[str, str]) -> None:
    missing = env["SLUICE_KEYSTORE"] + ".gone"
    refused(role, env | {"SLUICE_KEYSTORE": missing}, BAD_INPUT, rf"Wallet file {missing} cannot be used: it is absent")


@pytest.mark.parametrize("role", ROLES)
def test_a_file_that_is_no_keystore_is_refused(role: str, env: dict[str, str]) -> None:
    Path(env["SLUICE_KEYSTORE"]).write_text('{"version": 3, "crypto": {"kdf": "none"}}')
    refused(role, env, BAD_INPUT, r"cannot be used: it is not an Ethereum V3 keystore")


@pytest.mark.parametrize("role", ROLES)
def test_a_wrong_password_is_refused_without_showing_it(role: str, env: dict[str, str]) -> None:
    Path(env["SLUICE_KEYSTORE_PASSWORD_FILE"]).write_text("hunter2")
    refused(role, env, BAD_INPUT, r"cannot be used: the password does not open it(?!.*hunter2)")


def test_a_taken_api_port_stops_the_scheduler_before_it_starts(shared_pool: BenchPool, env: dict[str, str]) -> None:
    taken = str(shared_pool.names.api_port)
    pattern = rf"Port {taken}, wanted for the API, is taken .* SLUICE_API_PORT"
    refused("scheduler", env | {"SLUICE_API_PORT": taken}, FAILED, pattern)


def test_a_wallet_that_does_not_own_the_workerpool_is_refused(shared_pool: BenchPool, env: dict[str, str]) -> None:
    owner = shared_pool.pool.on_chain.scheduler.key.wallet
    pattern = (
        rf"does not own the workerpool {shared_pool.pool.on_chain.workerpool}, its owner is {owner}.*SLUICE_KEYSTORE"
    )
    refused("scheduler", env, FAILED, pattern)


def test_servers_that_are_away_are_one_line_each_and_no_traceback(env: dict[str, str]) -> None:
    nowhere = f"127.0.0.1:{ports.free_port()}"
    away = {
        "SLUICE_MONGODB_URI": f"mongodb://{nowhere}/?replicaSet=rs0",
        "SLUICE_RABBITMQ_API": f"http://{nowhere}",
        "SLUICE_IPFS_API": f"http://{nowhere}",
    }
    done = sluice("scheduler", "run", "--wait", "2", env=env | away)
    assert done.code == FAILED
    assert_one_error(done, r"Not ready: mongodb, rabbitmq, ownership; each has a line above")
    said = [line for line in done.err.splitlines() if '"action": "preflight"' in line]
    assert len(said) == 4, done.err


def test_a_machine_without_docker_engine_does_not_sign_in(
    shared_pool: BenchPool, env: dict[str, str], tmp_path: Path
) -> None:
    engine = f"unix://{tmp_path}/nobody.sock"
    refused("worker", env | {"SLUICE_DOCKER_HOST": engine}, FAILED, r"Docker engine at .*nobody.sock does not answer")


def test_a_taken_port_of_the_stack_is_named_and_nothing_of_it_runs(shared_pool: BenchPool, tmp_path: Path) -> None:
    env = {"SLUICE_HOME": str(tmp_path / "home"), "SLUICE_STACK_RPC_PORT": str(shared_pool.node.port)}
    done = sluice("stack", "up", "chain", env=env)
    assert done.code == FAILED
    assert_one_error(done, rf"Port {shared_pool.node.port}, wanted for the chain, is taken .* SLUICE_STACK_RPC_PORT")
    assert list((tmp_path / "home").rglob("pid")) == []


def test_a_missing_tool_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    nothing_on_path = {"PATH": str(tmp_path), "SLUICE_STACK_RABBITMQ_PORT": str(ports.free_port(rabbitmq.PORTS))}
    done = sluice("stack", "up", "rabbitmq", env=nothing_on_path | {"SLUICE_HOME": str(tmp_path / "home")})
    assert done.code == FAILED
    assert_one_error(done, r"(epmd|rabbitmq-server) is missing and could not be installed: .*([Ii]nstall) ")
    assert list((tmp_path / "home").rglob("pid")) == []


def test_the_pool_still_works_for_those_who_got_it_right(shared_pool: BenchPool) -> None:
    wait_until(lambda: all(process.alive() for process in shared_pool.pool.running.values()), 5, what="the shared pool")


def _write_keystore(path: Path, secret: str, password: str) -> None:
    """A V3 keystore as other tools write it, with little work in its key derivation."""
    path.write_text(json.dumps(Account.encrypt(bytes.fromhex(secret), password, kdf="pbkdf2", iterations=10)))
