"""`sluice init` against a chain: each answer is checked there, and what it writes is what a scheduler starts with."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account import Account

from ops.new_pool.files import PASSWORDS, SECRETS
from ops.pool import on_chain
from ops.pool.on_chain import PoolOnChain
from ops.stack import private_file
from ops.stack.stack import Stack
from tests.documents import ROOT
from tests.integration import forged
from tests.integration.conftest import Chain, IpfsNode
from tests.integration.forged import Ended


@pytest.fixture
def pool(chain: Chain) -> PoolOnChain:
    """A workerpool, and its owner with gas."""
    return on_chain.prepare(chain.rpc, chain.at, chain_id=31337, workers=1, image="none")


@dataclass(frozen=True, slots=True)
class Place:
    """A folder with the owner's wallet, and a shell in it without settings."""

    folder: Path
    chain: Chain
    pool: PoolOnChain

    def sluice(self, *words: str, env: dict[str, str] | None = None) -> Ended:
        return forged.sluice(*words, env=env or {}, cwd=self.folder)

    def init(self, *more: str, **changed: str | None) -> Ended:
        options: dict[str, str | None] = {
            "rpc": self.chain.node.rpc_url,
            "hub": self.chain.at.hub,
            "workerpool": self.pool.workerpool,
            "host": "pool.example",
            "keystore": "owner.json",
            "password-file": "owner.password",
        }
        for name, value in changed.items():
            options[name.replace("_", "-")] = value
        given = [word for name, value in options.items() if value is not None for word in (f"--{name}", value)]
        return self.sluice("init", "--yes", *given, *more)

    def variables(self) -> dict[str, str]:
        lines = [line for line in (self.folder / ".env").read_text().splitlines() if not line.startswith("#")]
        return {name: value.strip("'") for name, value in (line.split("=", 1) for line in lines)}


@pytest.fixture
def place(chain: Chain, pool: PoolOnChain, tmp_path: Path) -> Place:
    folder = tmp_path / "operator"
    folder.mkdir()
    for name, secret in (("owner.json", pool.scheduler.secret), ("other.json", pool.workers[0].secret)):
        keystore = Account.encrypt(bytes.fromhex(secret), "secret", kdf="pbkdf2", iterations=10)
        private_file.write(folder / name, json.dumps(keystore))
    private_file.write(folder / "owner.password", "secret\n")
    return Place(folder, chain, pool)


def test_a_scheduler_has_all_it_needs_to_know_from_what_init_writes(place: Place, stack: Stack, ipfs: IpfsNode) -> None:
    names = {"mongodb": "SLUICE_MONGODB_URI", "amqp": "SLUICE_AMQP_URL", "rabbitmq_api": "SLUICE_RABBITMQ_API"}
    servers = {option: stack.settings[name] for option, name in names.items()}
    dry = place.init("--dry-run", "--json", ipfs_api=ipfs.api, **servers)
    assert (dry.code, json.loads(dry.out)["files"]) == (0, []), dry.err
    assert not (place.folder / ".env").exists()

    done = place.init("--json", ipfs_api=ipfs.api, **servers)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert answer["todo"] == [
        f"SLUICE_PUBLIC_RPC_URL is {place.chain.node.rpc_url}, which leads a machine elsewhere to itself."
    ]
    assert answer["wallet"] == place.pool.scheduler.key.wallet
    assert answer["next"][-1] == "sluice scheduler run"
    assert stat.S_IMODE((place.folder / ".env").stat().st_mode) == 0o600
    looked = place.sluice("scheduler", "doctor", "--json", env=place.variables())
    parts = {part["part"]: part for part in json.loads(looked.out)}
    for name in ("mongodb", "rabbitmq", "chain", "ownership", "gas"):
        assert parts[name]["ok"], parts[name]

    again = place.init()
    assert (again.code, "not overwritten" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("changed", "code", "why"),
    [
        ({"workerpool": None}, 2, "--workerpool is not given"),
        ({"host": None}, 2, "--host is not given"),
        ({"password_file": None}, 2, "--password-file is not given"),
        ({"rpc": "http://127.0.0.1:1"}, 1, "does not answer"),
        ({"rpc": "127.0.0.1:8545"}, 2, "does not begin with http"),
        ({"workerpool": "0x" + "12" * 20}, 1, "is not a workerpool registered"),
        ({"workerpool": "nonsense"}, 2, "give an address"),
        ({"hub": "0x" + "12" * 20}, 1, "no contract at the hub address"),
        ({"chain_id": "1"}, 2, "the node is on chain 31337"),
        ({"keystore": "other.json"}, 2, "owns the workerpool"),
        ({"keystore": "nothing.json"}, 2, "nothing.json is no file"),
        ({"host": "a b"}, 2, "is no host name"),
    ],
)
def test_an_answer_that_is_wrong_is_one_sentence_and_nothing_is_written(
    place: Place, changed: dict[str, str | None], code: int, why: str
) -> None:
    before = sorted(path.name for path in place.folder.rglob("*"))
    done = place.init(**changed)
    assert (done.code, done.out) == (code, ""), done
    assert why in done.err
    assert done.err.count("\n") == 1, done.err
    assert sorted(path.name for path in place.folder.rglob("*")) == before


def test_docker_compose_finds_every_variable_and_file_and_a_new_wallet_says_what_it_lacks(place: Place) -> None:
    shutil.copy(ROOT / "docker-compose.yml", place.folder)
    done = place.init("--new-wallet", keystore=None, password_file=None)
    assert done.code == 0, done.err
    example = (ROOT / "docker/pool.env.example").read_text().splitlines()
    wanted = {line.partition("=")[0] for line in example if line and not line.startswith("#")}
    # The WebSocket and what the gateway fetches have defaults.
    assert wanted - set(place.variables()) == {"SLUICE_WS_URL", "IPFS_GATEWAY_NO_FETCH"}
    assert all(place.variables().values())
    assert f"have {place.pool.scheduler.key.wallet} transfer it" in done.out
    assert "docker compose up --detach" in done.out
    for name in PASSWORDS:
        assert (place.folder / SECRETS / name).read_text().strip() not in done.out + done.err


def test_a_wallet_without_gas_and_a_node_with_a_key_are_said(place: Place) -> None:
    place.chain.rpc.call("anvil_setBalance", place.pool.scheduler.key.wallet, "0x1")
    keyed = place.chain.node.rpc_url + "/?key=s3cret"
    asked = place.init(rpc=keyed)
    assert (asked.code, "--public-rpc is not given" in asked.err) == (2, True), asked
    done = place.init("--json", rpc=keyed, public_rpc="https://public.example")
    assert done.code == 0, done.err
    assert any("gas: it has" in line for line in json.loads(done.out)["todo"])
    assert "s3cret" not in done.out + done.err
    assert place.variables()["SLUICE_PUBLIC_RPC_URL"] == "https://public.example"
