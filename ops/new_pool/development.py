"""`sluice init --dev`: a chain with PoCo, on which the pool's wallet owns a workerpool, for the compose profile `dev`.

    saved chain (`ops.poco.state`) ─► a node here, for seconds: gas, workerpool, stakes ─► docker/dev/chain.json
    docker compose up              ─► a container goes on with that file, and keeps it

No real chain may see these wallets: everybody knows the keys of some of them.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from chain.keystore import open_keystore
from chain.rpc.client import Rpc
from config.whole_files import write_whole
from ops import wallet_files
from ops.market.contracts import NewWorkerpool, open_market
from ops.new_pool import files
from ops.new_pool.files import CHAIN, Places
from ops.new_pool.plan import Given, PoolPlan
from ops.poco.accounts import dev_key, give_ether
from ops.poco.deploy import PocoAddresses
from ops.poco.sender import DirectSender
from ops.poco.state import CHAIN_ID, ensure_state
from ops.pool.on_chain import DEPOSIT, GAS_MONEY, PROVIDER, REQUESTER
from ops.stack import ports, tools
from ops.stack.servers import anvil
from protocol.errors import BadInput
from protocol.ethereum.hexbytes import to_bytes

#: Where this host reaches that container, and its pace in seconds.
OUTSIDE, BLOCK_TIME = "http://127.0.0.1:8545", 1.0
#: Seconds between blocks while the chain is prepared.
_QUICK = 0.1


@dataclass(frozen=True, slots=True)
class DevelopmentChain:
    """A node of this machine with PoCo on it."""

    places: Places
    rpc: Rpc
    at: PocoAddresses

    def given(self, given: Given) -> Given:
        """The options with this chain, and a workerpool on it that is the wallet's; a new wallet unless one is named.

        Raises BadInput, BadKeystore.
        """
        keystore, password_file = given.keystore, given.password_file
        if keystore is None:
            keystore, password_file = self.places.keystore, self.places.password_file
            # One that an attempt before has left is as good.
            if not keystore.exists():
                files.make_wallet(self.places)
        if password_file is None:
            raise BadInput(what="--dev asks for nothing: give --password-file beside --keystore.")
        boss = DirectSender(open_keystore(keystore, wallet_files.password_in(password_file)), self.rpc, CHAIN_ID)
        give_ether(self.rpc, (boss.wallet,), GAS_MONEY)
        deposits = dict.fromkeys((boss.wallet, dev_key(REQUESTER).wallet), DEPOSIT)
        payer = DirectSender(dev_key(PROVIDER), self.rpc, CHAIN_ID)
        (workerpool,) = open_market(boss, payer, self.at, [NewWorkerpool("development")], deposits)
        return replace(
            given,
            rpc=self.rpc.url,
            hub=self.at.hub,
            workerpool=workerpool,
            keystore=keystore,
            password_file=password_file,
            host=given.host or "127.0.0.1",
        )

    def save(self) -> list[Path]:
        """Write the chain as it is for the container. Returns what was written."""
        path = self.places.folder / CHAIN
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, gzip.decompress(to_bytes(self.rpc.call("anvil_dumpState"))))
        return [path]


@contextmanager
def development_chain(places: Places) -> Iterator[DevelopmentChain]:
    """A node for as long as the block lasts. Raises BadInput, MissingTool, NotReady."""
    if not places.compose:
        raise BadInput(what="--dev is for the folder of docker-compose.yml; elsewhere `sluice demo` has a whole pool.")
    state = ensure_state(tools.root() / ".sluice")
    with tempfile.TemporaryDirectory(prefix="sluice-dev-") as folder:
        node = anvil.start(Path(folder), ports.free_port(), chain_id=CHAIN_ID, block_time=_QUICK, load=state.path)
        try:
            with Rpc(node.rpc_url) as rpc:
                yield DevelopmentChain(places, rpc, state.addresses)
        finally:
            node.stop()


def in_containers(plan: PoolPlan) -> PoolPlan:
    """The plan with the container in the place of the node that prepared its chain. All of it is for this host."""
    changed = {
        "SLUICE_RPC_URL": "http://chain:8545",
        "SLUICE_WS_URL": "ws://chain:8545",
        "SLUICE_PUBLIC_RPC_URL": OUTSIDE,
        "SLUICE_BLOCK_TIME": f"{BLOCK_TIME:g}",
        "COMPOSE_PROFILES": "dev",
    }
    return replace(plan, env={**plan.env, **changed}, todo=())
