"""geth in development mode: a second opinion to anvil, on a fresh chain or on anvil's saved state. Built from its Go
module, for who asks for it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from chain.rpc.client import Rpc
from ops.stack import ports, tools
from ops.stack.go_modules import GoProgram
from ops.stack.process import Program
from ops.stack.servers.node import BLOCK_GAS, Node
from protocol.errors import RpcUnavailable

GETH = GoProgram(
    "geth",
    Path(__file__).parent / "geth",
    "github.com/ethereum/go-ethereum/cmd/geth",
    takes="geth (5 minutes)",
    fix="Put geth 1.17 on PATH, or install Go 1.25 or later.",
)
#: The chain id of a fresh chain: what `--dev` has.
DEVELOPMENT_CHAIN_ID = 1337
#: Seconds until it answers: it makes a key, which takes a second. The wait ends at once when the node does.
START_SECONDS = 60.0
#: Forks that a chain made of a saved state begins with. Prague, the next one, needs contracts that the state has not.
_FORKS_BY_BLOCK = (
    *("homestead", "eip150", "eip155", "eip158", "byzantium", "constantinople", "petersburg", "istanbul"),
    *("muirGlacier", "berlin", "london", "arrowGlacier", "grayGlacier", "mergeNetsplit"),
)
_FORKS_BY_TIME = ("shanghai", "cancun")
#: What blocks with blobs may hold (EIP-4844), which a chain with Cancun must say; nobody sends any.
_BLOBS = {"cancun": {"target": 3, "max": 6, "baseFeeUpdateFraction": 3_338_477}}


class Geth(Node):
    """A chain that geth makes."""

    __slots__ = ()


def binary() -> Path:
    """The program: the one on PATH, else the one that was built, else built now (5 minutes). Raises MissingTool."""
    on_path = shutil.which(GETH.name)
    return Path(on_path) if on_path else GETH.build()


def start(
    folder: Path, port: int, *, block_seconds: int = 1, load: Path | None = None, chain_id: int = DEVELOPMENT_CHAIN_ID
) -> Geth:
    """Start a chain and wait until it answers.

    `block_seconds`: whole seconds between blocks. `load`: a state that anvil has saved, which becomes the first block
    of a chain with id `chain_id`. Raises NotReady, MissingTool.
    """
    data = folder.absolute() / "data"
    if load is not None:
        _begin_with(load, data, chain_id)
    command: list[str | Path] = [
        binary(),
        *("--dev", "--dev.period", str(block_seconds), "--dev.gaslimit", str(BLOCK_GAS), "--datadir", data),
        *("--http", "--http.port", str(port), "--http.api", "eth,net,web3,debug,txpool"),
        *("--ws", "--ws.port", str(port), "--ws.api", "eth,net,web3"),
        *("--nodiscover", "--maxpeers", "0", "--port", str(ports.free_port()), "--ipcdisable"),
    ]
    program = Program("geth", command, folder.absolute())
    process = program.start()
    node = Geth(port, process)
    with Rpc(node.rpc_url) as rpc:
        program.wait_ready(process, lambda: _has_blocks(rpc), seconds=START_SECONDS)
    return node


def _begin_with(state: Path, data: Path, chain_id: int) -> None:
    """Write the accounts of a state saved by anvil as block 0 of a new chain under `data`."""
    saved = json.loads(state.read_text())
    genesis: dict[str, Any] = {
        "config": {
            "chainId": chain_id,
            **{f"{fork}Block": 0 for fork in _FORKS_BY_BLOCK},
            **{f"{fork}Time": 0 for fork in _FORKS_BY_TIME},
            "terminalTotalDifficulty": 0,
            "blobSchedule": _BLOBS,
        },
        "difficulty": "0x0",
        "gasLimit": hex(BLOCK_GAS),
        "baseFeePerGas": hex(saved["block"]["basefee"]),
        "timestamp": saved["block"]["timestamp"],
        "alloc": {
            address: {**account, "nonce": hex(int(account["nonce"]))} for address, account in saved["accounts"].items()
        },
    }
    data.mkdir(parents=True)
    file = data.parent / "genesis.json"
    file.write_text(json.dumps(genesis))
    tools.run([binary(), "init", "--datadir", data, file], tool=GETH.name, fix=GETH.fix)


def _has_blocks(rpc: Rpc) -> bool:
    try:
        return bool(rpc.call("eth_accounts")) and int(rpc.call("eth_blockNumber"), 16) > 0
    except RpcUnavailable:
        return False


if __name__ == "__main__":
    binary()
