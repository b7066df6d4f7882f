"""A local Ethereum chain: anvil's native binary from npm, mining at an interval, from a saved state.

The native binary, not npm's wrapper: a killed wrapper would leave the node running. Interval mining, not automine:
automine loses transactions that come faster than blocks.
"""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from chain.rpc.client import Rpc
from ops.stack import ports, tools
from ops.stack.process import Program
from ops.stack.servers.node import BLOCK_GAS, Node
from protocol.errors import MissingTool, RpcError, RpcUnavailable

#: npm's name for this machine's architecture.
_NPM_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
#: Seconds: 0.1 measured from a saved state. The wait ends at once when the node does: a long timeout is free.
START_SECONDS = 120.0
#: Seconds for one answer of a node of this machine, which takes some milliseconds: one that does not is asked again.
_ANSWER_SECONDS = 2.0
#: Public key phrase of every development chain: its accounts must never hold real money.
MNEMONIC = "test test test test test test test test test test test junk"


class Anvil(Node):
    """A chain that anvil makes."""

    __slots__ = ()


def binary() -> tuple[Path, str]:
    """(path of the native `anvil`, where it is from); fetches it if it is not there. Raises MissingTool."""
    architecture = _NPM_ARCHITECTURE.get(platform.machine(), platform.machine())
    installed = tools.root() / f"node_modules/@foundry-rs/anvil-linux-{architecture}/bin/anvil"
    if not installed.exists():
        on_path = shutil.which("anvil")
        if on_path:
            return Path(on_path), "anvil on PATH"
        tools.npm_packages()
    if not installed.exists():
        raise MissingTool(
            tool="anvil",
            why=f"package.json names no build of it for {platform.machine()}",
            fix="Put an anvil 1.7 on PATH, or set SLUICE_RPC_URL and SLUICE_HUB to a chain with PoCo.",
        )
    return installed, "anvil from npm"


def start(
    folder: Path,
    port: int,
    *,
    chain_id: int = 31337,
    block_time: float | None = 1.0,
    load: Path | None = None,
    keep: Path | None = None,
    block_gas: int = BLOCK_GAS,
    extra: tuple[str, ...] = (),
    seconds: float = START_SECONDS,
) -> Anvil:
    """Start a chain, or find it running, and wait until it answers.

    `block_time`: seconds between blocks, fractions allowed; None: a block per transaction (set-up only).
    `load`: state file to begin with; `keep`: state file to begin with if it exists, and to write at the end.
    Raises PortTaken, NotReady, MissingTool.
    """
    folder = folder.absolute()
    command: list[str | Path] = [
        binary()[0],
        *("--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id), "--mnemonic", MNEMONIC),
        *("--gas-limit", str(block_gas), "--cache-path", str(folder / "cache"), "--quiet", *extra),
    ]
    if block_time is not None:
        command += ["--block-time", f"{block_time:g}"]
    if load is not None:
        command += ["--load-state", load.absolute()]
    if keep is not None:
        command += ["--state", keep.absolute()]
    wanted = Program("anvil", command, folder)
    with Rpc(f"http://127.0.0.1:{port}", timeout=_ANSWER_SECONDS) as rpc:
        process = wanted.ensure(
            lambda: _answers(rpc, "eth_chainId") is not None,
            seconds=seconds,
            before_start=lambda: ports.require_free(port, part="the chain", setting="SLUICE_STACK_RPC_PORT"),
        )
        # A loaded state brings its own gas limit and wins over the option.
        wanted.wait_ready(
            process, lambda: _answers(rpc, "evm_setBlockGasLimit", hex(block_gas)) is not None, seconds=seconds
        )
    return Anvil(port, process)


def ready(rpc_url: str) -> int | None:
    """The chain id that the node answers; None if it does not."""
    with Rpc(rpc_url, timeout=_ANSWER_SECONDS) as rpc:
        answer = _answers(rpc, "eth_chainId")
    return int(str(answer), 16) if answer is not None else None


def _answers(rpc: Rpc, method: str, *params: object) -> object | None:
    """The node's answer; None if it gives none."""
    try:
        result: object | None = rpc.call(method, *params)
    except (RpcUnavailable, RpcError):
        return None
    return result
