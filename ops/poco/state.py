"""The chain with PoCo on it as a file: made once, loaded by every later start in a tenth of a second.

<home>/cache/poco-<key>.json             what `anvil --load-state` takes
<home>/cache/poco-<key>.addresses.json   where the contracts are; written last, so that both exist if it does

The key is a hash of the contracts' files and of the code that deploys them: either changes, a new state is made.

The same number of blocks with the same transactions and times in them on every machine: the chain mines when it is told
to, never by the clock, and begins at a fixed time. (Anvil draws each block's randomness, so hashes of blocks differ.)
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from chain.rpc.client import Rpc
from config.whole_files import write_whole
from ops.poco import accounts, artifacts, deploy, sender
from ops.poco.artifacts import ArtifactStore
from ops.poco.deploy import PocoAddresses
from ops.poco.sender import DirectSender, TxRequest
from ops.stack import ports, tools
from ops.stack.servers import anvil
from protocol.ethereum.hexbytes import to_bytes
from protocol.types import TxHash

log = structlog.get_logger(__name__)

#: The chain id of the saved state. A node that loads it may be told another, but the hub's orders are bound to this.
CHAIN_ID = 31337
#: Unix time of the first block, long past: a node that loads the state goes on with the clock's time.
GENESIS_TIME = 1_700_000_000
#: Seconds between two blocks.
BLOCK_SECONDS = 1
#: Code whose change makes another chain: these, and this module.
_SCRIPT = (deploy, artifacts, sender, accounts, sys.modules[__name__])


@dataclass(frozen=True, slots=True)
class PocoState:
    """A saved chain: `path` for `anvil.start(load=…)`, and the addresses of the contracts on it."""

    path: Path
    addresses: PocoAddresses


@dataclass(frozen=True, slots=True)
class _BlockByBlock(DirectSender):
    """Has each batch mined in a block of its own, all of it, the moment it is sent."""

    def send(self, calls: Sequence[TxRequest]) -> list[TxHash]:
        """Sign and send `calls`, then mine one block with all of them."""
        sent = DirectSender.send(self, calls)
        latest = self.rpc.call("eth_getBlockByNumber", "latest", False)
        self.rpc.call("evm_mine", hex(int(latest["timestamp"], 16) + BLOCK_SECONDS))
        return sent


def ensure_state(home: Path) -> PocoState:
    """The saved chain under `home`, made if it is absent (about 2 s). Raises MissingTool, NotReady.

    Safe to call from several programs at once: one makes the chain, the others wait.
    """
    store = ArtifactStore(tools.npm_packages())
    folder = home / "cache"
    key = _cache_key(store)
    state, addresses = folder / f"poco-{key}.json", folder / f"poco-{key}.addresses.json"
    with tools.locked(folder / "poco.lock"):
        if not addresses.exists():
            tools.announce("deploying the PoCo contracts, once", action="poco_deploy")
            _make_state(store, state, addresses)
    return PocoState(state, PocoAddresses.from_json(json.loads(addresses.read_text())))


def _cache_key(store: ArtifactStore) -> str:
    """Sixteen hex digits that identify the contracts and the deploy script, for the cache's file names."""
    digest = hashlib.sha256()
    for file in (*store.files(), *(Path(str(module.__file__)) for module in _SCRIPT)):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _make_state(store: ArtifactStore, state: Path, addresses: Path) -> None:
    """Deploy PoCo on a fresh anvil chain and write the chain and its addresses to these files."""
    with tempfile.TemporaryDirectory(prefix="sluice-poco-") as folder:
        by_hand = ("--no-mining", "--timestamp", str(GENESIS_TIME))
        chain = anvil.start(Path(folder), ports.free_port(), chain_id=CHAIN_ID, block_time=None, extra=by_hand)
        try:
            with Rpc(chain.rpc_url) as rpc:
                owner = _BlockByBlock(accounts.dev_key(0), rpc, CHAIN_ID)
                funded = tuple(accounts.dev_key(index).wallet for index in range(1, accounts.FUNDED_ACCOUNTS))
                at = deploy.deploy(owner, store, fund=funded)
                dump = to_bytes(rpc.call("anvil_dumpState"))
        finally:
            chain.stop()
    write_whole(state, gzip.decompress(dump))
    write_whole(addresses, json.dumps(at.to_json(), indent=2))
    log.info("Chain state saved.", action="poco_state_saved", path=str(state), hub=at.hub)
