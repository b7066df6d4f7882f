"""Every code block of README and docs, run as printed beside the shared pool: a section is one session in one shell.

Only what the reader would fill in is replaced (PRINTED), and servers that a page would start are the shared pool's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from eth_account import Account

from bench.arena import Arena
from config.settings import read_settings
from ops.demo import report
from ops.poco.accounts import give_coins
from ops.pool import ground, site
from ops.pool.ground import GAS_MONEY, NewWallet
from ops.pool.site import Names
from ops.stack import private_file
from pipeline.store.client import Store
from tests.documents import PAGES, ROOT, SHELL, Block, blocks, not_run
from tests.integration import sdk
from tests.integration.conftest import given
from tests.waiting import ample

#: Seconds for a page: the requester's buys three deals; the first run installs the SDK.
PAGE_SECONDS = ample(120)
#: Commands that run until they are stopped, and the line of their log after which a reader has what they promise.
UNTIL_STOPPED = {"sluice scheduler run": "The pool is up at", "sluice worker run": "compute@.* ready"}
#: Runs a command until its log has a line, then ends it as Ctrl-C would; fails if it ends by itself before.
UNTIL = """
until_line() {
  "${@:2}" >>session.log 2>&1 & pid=$!
  until grep --quiet --extended-regexp "$1" session.log; do kill -0 $pid && sleep 0.2; done
  kill -TERM $pid; wait $pid
}
"""

#: What a page uses curl for, on a machine without it.
_FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


@pytest.fixture
def folder(hall: Arena, tmp_path: Path) -> Iterator[Path]:
    """Where a reader's shell stands: in a clone, with a wallet's files, a kept demo, and our programs on PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sluice").symlink_to(Path(sys.executable).with_name("sluice"))
    (programs / "node").symlink_to(sdk.node())
    _script(programs / "make", 'case "$2" in *--json*) cat "$DEMO_JSON" ;; esac')
    _script(programs / "npm", f"ln -s {sdk.folder() / 'node_modules'} node_modules")
    if shutil.which("curl") is None:
        _script(programs / "curl", f"for url; do :; done; exec {sys.executable} -c '{_FETCH}' \"$url\"")
    (tmp_path / ".sluice").mkdir()
    (tmp_path / ".sluice/demo").symlink_to(hall.pool.home.absolute())
    private_file.write(tmp_path / ".sluice/stack.env", private_file.exports(_stack(hall)))
    wallet = NewWallet()
    _keystore(tmp_path / "wallet.json", wallet.secret)
    _keystore(tmp_path / "owner.json", hall.pool.ground.scheduler.secret)
    private_file.write(tmp_path / "password", "secret")
    give_coins(hall.rpc, (wallet.key.wallet,), GAS_MONEY)
    yield tmp_path
    # A machine that a page started gets no task any more.
    Store.open(read_settings(**given(hall.pool.env))).workers.set_banned(wallet.key.wallet, banned=True)


@pytest.fixture
def second(hall: Arena) -> Iterator[Names]:
    """Names for a scheduler beside the pool's own, so that they do not take each other's messages."""
    names = Names.fresh()
    yield names
    site.clear(hall.servers, names)


@pytest.mark.timeout(PAGE_SECONDS * 2)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_as_printed_what_it_says(hall: Arena, folder: Path, second: Names, page: Path) -> None:
    found = blocks(page)
    for block in found:
        if block.file is not None:
            (folder / block.file).write_text(block.text)
    shell = [block for block in found if block.language == SHELL]
    if not any(not not_run(command) for block in shell for command in block.commands()):
        return
    printed = _printed(hall, folder)
    if page.name == "operator.md":
        printed |= _another_pool(hall, folder)
    demo = folder / "told.json"
    demo.write_text(json.dumps(report.as_json([], hall.pool.ground, _endpoints(hall), seconds=0, block_time=1.0)))
    sections = ["\n".join(_commands(block, printed) for block in part) for _, part in groupby(shell, _section)]
    script = "\n".join([UNTIL, *(f"(\n{section}\n)" for section in sections)])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=_environment(hall, folder, second, demo) | (_chain(hall) if page.name == "local-stack.md" else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
        check=False,
    )
    log = (folder / "session.log").read_text()[-4000:] if (folder / "session.log").exists() else ""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    if page.name == "requester.md":
        assert "args: hello" in done.stdout
        assert "TASK_COMPLETED" in done.stdout
        assert "told to fail" in done.stdout


def _section(block: Block) -> str:
    return block.section


def _commands(block: Block, printed: dict[str, str]) -> str:
    """A block as bash runs it: each command said beforehand, so that a failure names its line."""
    lines = [f"echo '-- {block.place}' >&2"]
    for command in block.commands():
        if not_run(command):
            continue
        for words, replacement in printed.items():
            command = command.replace(words, replacement)  # noqa: PLW2901 - step by step
        assert not re.search(r"\.example|…", command), f"{block.place}: {command} needs a value in PRINTED"
        started = next((start for start in UNTIL_STOPPED if command.startswith(start)), None)
        lines.append(f"until_line '{UNTIL_STOPPED[started]}' {command}" if started else command)
    return "\n".join(lines)


def _printed(hall: Arena, folder: Path) -> dict[str, str]:
    """What a reader puts in the place of what is printed; the longer first."""
    env = hall.pool.env
    head = int(hall.rpc.call("eth_blockNumber"), 16)
    return {
        "SLUICE_CHAIN_ID=421614": f"SLUICE_CHAIN_ID={hall.chain.chain_id}",
        "SLUICE_BLOCK_TIME=0.25": f"SLUICE_BLOCK_TIME={hall.chain.block_time}",
        "SLUICE_START_BLOCK=123456789": f"SLUICE_START_BLOCK={head}",
        "0xB2157BF2fAb286b2A4170E3491Ac39770111Da3E": env["SLUICE_HUB"],
        "0x0123456789abcdef0123456789abcdef01234567": env["SLUICE_WORKERPOOL"],
        "https://public-rpc.example": hall.chain.rpc_url,
        "https://rpc.example": hall.chain.rpc_url,
        "wss://rpc.example": hall.chain.ws_url,
        "mongodb://mongodb.example:27017/?replicaSet=rs0": hall.servers.mongodb_uri,
        "amqp://sluice:change-me@rabbitmq.example:5672": hall.servers.amqp_url,
        "http://rabbitmq.example:15672": hall.servers.rabbitmq_api,
        "http://ipfs.example:5001": hall.servers.ipfs_api,
        "https://ipfs.example": hall.servers.ipfs_gateway,
        "https://pool.example": hall.pool.api_url,
        "SLUICE_API_HOST=0.0.0.0": "SLUICE_API_HOST=127.0.0.1",
        "SLUICE_AMQP_PUBLIC_HOST=pool.example": "SLUICE_AMQP_PUBLIC_HOST=127.0.0.1",
        "SLUICE_AMQP_PUBLIC_PORT=5671": f"SLUICE_AMQP_PUBLIC_PORT={hall.servers.amqp_port}",
        # The tests' broker has no certificate.
        "SLUICE_AMQP_PUBLIC_TLS=true": "SLUICE_AMQP_PUBLIC_TLS=false",
        "/etc/sluice/wallet.json": str(folder / "owner.json"),
        "/etc/sluice/password": str(folder / "password"),
        "http://127.0.0.1:18301": f"http://127.0.0.1:{hall.names.operations_port}",
    }


def _another_pool(hall: Arena, folder: Path) -> dict[str, str]:
    """What the reader of the operator's page has: a workerpool whose owner's wallet no other scheduler uses."""
    at = ground.prepare(
        hall.rpc, hall.chain.addresses, chain_id=hall.chain.chain_id, workers=0, image=hall.pool.ground.app_image
    )
    owner = folder / "another-owner.json"
    _keystore(owner, at.scheduler.secret)
    return {"0x0123456789abcdef0123456789abcdef01234567": at.workerpool, "/etc/sluice/wallet.json": str(owner)}


def _environment(hall: Arena, folder: Path, second: Names, demo: Path) -> dict[str, str]:
    """A shell without settings but for what keeps this page apart from others on the same servers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return inherited | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "DEMO_JSON": str(demo),
        "SLUICE_HOME": str(folder / "home"),
        "SLUICE_DOCKER_HOST": hall.servers.docker_host,
        "SLUICE_API_PORT": str(second.api_port),
        "SLUICE_FLOWER_PORT": str(second.flower_port),
        "SLUICE_OPERATIONS_PORT": str(second.operations_port),
        "SLUICE_MONGODB_DATABASE": second.database,
        "SLUICE_AMQP_CORE_VHOST": second.core,
        "SLUICE_AMQP_POOL_VHOST": second.pool,
        **{name: value for name, value in _stack(hall).items() if name.startswith("SLUICE_STACK_")},
    }


def _stack(hall: Arena) -> dict[str, str]:
    """Addresses of the servers, as `.sluice/stack.env` has them, and the ports by which the stack knows its own."""
    inherited = {name: value for name, value in os.environ.items() if name.startswith("SLUICE_STACK_")}
    names = ("SLUICE_MONGODB_URI", "SLUICE_AMQP_URL", "SLUICE_RABBITMQ_API", "SLUICE_IPFS_API", "SLUICE_IPFS_GATEWAY")
    return inherited | {name: hall.pool.env[name] for name in names}


def _chain(hall: Arena) -> dict[str, str]:
    """The pool's chain, for a page that would start one."""
    return {name: hall.pool.env[name] for name in ("SLUICE_RPC_URL", "SLUICE_HUB", "SLUICE_CHAIN_ID")}


def _endpoints(hall: Arena) -> dict[str, str]:
    return {
        "rpc": hall.chain.rpc_url,
        "hub": hall.chain.addresses.hub,
        "api": hall.pool.api_url,
        "ipfs_gateway": hall.servers.ipfs_gateway,
    }


def _keystore(path: Path, secret: str) -> None:
    """A V3 keystore as other tools write it, with little work in its key derivation."""
    private_file.write(path, json.dumps(Account.encrypt(bytes.fromhex(secret), "secret", kdf="pbkdf2", iterations=10)))


def _script(path: Path, commands: str) -> None:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
