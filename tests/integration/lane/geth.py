"""geth in development mode: a second opinion to anvil. Built once from its Go module, or the one on PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chain.rpc.client import Rpc
from ops.stack import ports, tools
from ops.stack.process import Program
from protocol.errors import RpcUnavailable
from protocol.ethereum.signing import Key

VERSION = "v1.17.10"
CHAIN_ID = 1337
#: Seconds between its blocks: whole numbers only.
PERIOD = 1
_START_SECONDS = 60.0
_BALANCE = 10**20


def binary() -> Path:
    """The program; five minutes of building the first time. Raises MissingTool."""
    on_path = shutil.which("geth")
    if on_path:
        return Path(on_path)
    built = tools.cache_folder() / f"geth-{VERSION}" / "geth"
    with tools.locked(tools.cache_folder() / "geth.lock"):
        if not built.exists():
            built.parent.mkdir(parents=True, exist_ok=True)
            tools.run(
                [
                    "env",
                    f"GOBIN={built.parent}",
                    "nice",
                    "go",
                    "install",
                    f"github.com/ethereum/go-ethereum/cmd/geth@{VERSION}",
                ],
                tool="geth",
                fix="Put geth 1.17 on PATH, or install Go 1.25 or later.",
                cwd=Path(os.sep),
            )
    return built


@contextmanager
def running(folder: Path, key: Key) -> Iterator[Rpc]:
    """A fresh chain on which `key` has native tokens."""
    port = ports.free_port()
    command: list[str | Path] = [
        binary(),
        *("--dev", "--dev.period", str(PERIOD), "--dev.gaslimit", "30000000", "--datadir", folder.absolute() / "data"),
        *("--http", "--http.port", str(port), "--http.api", "eth,net,web3,debug,txpool"),
        *("--nodiscover", "--maxpeers", "0", "--port", str(ports.free_port()), "--ipcdisable"),
    ]
    program = Program("geth", command, folder)
    process = program.start()
    try:
        with Rpc(f"http://127.0.0.1:{port}") as rpc:
            program.wait_ready(process, lambda: _ready(rpc), seconds=_START_SECONDS)
            (owner,) = rpc.call("eth_accounts")
            rpc.call("eth_sendTransaction", {"from": owner, "to": key.wallet, "value": hex(_BALANCE)})
            yield rpc
    finally:
        process.stop()


def _ready(rpc: Rpc) -> bool:
    try:
        return bool(rpc.call("eth_accounts"))
    except RpcUnavailable:
        return False
