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
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from eth_account import Account

from bench.rig.bench_pool import BenchPool
from config.settings import read_settings
from ops.demo import report
from ops.poco.accounts import give_ether
from ops.pool import on_chain, site
from ops.pool.on_chain import GAS_MONEY, NewWallet
from ops.pool.site import Names
from ops.stack import private_file
from pipeline.store.client import Store
from tests.documents import CONFIDENTIAL, PAGES, ROOT, SHELL, Block, blocks, not_run
from tests.integration import sdk
from tests.integration.conftest import given
from tests.integration.forged_program import sluice_program
from tests.waiting import ample

#: Seconds for a page: the requester's buys three deals; the first run installs the SDK.
PAGE_SECONDS = ample(120)
#: Commands that run until they are stopped, and the line of their log after which a reader has what they promise.
UNTIL_STOPPED = {
    "sluice scheduler run": "The pool is up at",
    "sluice worker run": "compute@.* ready",
    "sluice sms run": "The secret service listens",
}
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
def folder(shared_pool: BenchPool, tmp_path: Path) -> Iterator[Path]:
    """Where a reader's shell stands: in a clone, with a wallet's files, a kept demo, and our programs on PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "node").symlink_to(sdk.node())
    _script(programs / "make", 'case "$2" in *--json*) cat "$DEMO_JSON" ;; esac')
    modules = sdk.folder() / "node_modules"
    sdk_8 = f"rm -rf node_modules; ln -s {modules} node_modules"
    sdk_9 = f"mkdir node_modules; ln -s {modules / 'iexec9'} node_modules/iexec"
    _script(programs / "npm", f'case "$2" in iexec@9*) {sdk_9} ;; *) {sdk_8} ;; esac')
    if shutil.which("curl") is None:
        _script(programs / "curl", f"for url; do :; done; exec {sys.executable} -c '{_FETCH}' \"$url\"")
    (tmp_path / ".sluice").mkdir()
    (tmp_path / ".sluice/demo").symlink_to(shared_pool.pool.home.absolute())
    private_file.write(tmp_path / ".sluice/stack.env", private_file.exports(_stack(shared_pool)))
    wallet = NewWallet()
    _keystore(tmp_path / "wallet.json", wallet.secret)
    _keystore(tmp_path / "owner.json", shared_pool.pool.on_chain.scheduler.secret)
    private_file.write(tmp_path / "password", "secret")
    give_ether(shared_pool.rpc, (wallet.key.wallet,), GAS_MONEY)
    # Sockets' paths are short.
    with TemporaryDirectory() as short, sluice_program(programs / "sluice", Path(short) / "door"):
        yield tmp_path
    # A machine that a page started gets no task any more.
    Store.open(read_settings(**given(shared_pool.pool.env))).workers.set_banned(wallet.key.wallet, banned=True)


@pytest.fixture
def second(shared_pool: BenchPool) -> Iterator[Names]:
    """Names for a scheduler beside the pool's own, so that they do not take each other's messages."""
    names = Names.fresh()
    yield names
    site.clear(shared_pool.servers, names)


@pytest.mark.timeout(PAGE_SECONDS * 2)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != CONFIDENTIAL], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_page_does_as_printed_what_it_says(shared_pool: BenchPool, folder: Path, second: Names, page: Path) -> None:
    printed = said_as_printed(shared_pool, folder, second, page)
    if page.name == "requester.md":
        assert "args: hello" in printed
        assert "TASK_COMPLETED" in printed
        assert "told to fail" in printed


def said_as_printed(
    shared_pool: BenchPool, folder: Path, second: Names, page: Path, env: Mapping[str, str] | None = None
) -> str:
    """What a page's commands say when they are run as printed. `env`: what keeps them apart besides."""
    found = blocks(page)
    for block in found:
        if block.file is not None:
            (folder / block.file).write_text(block.text)
    shell = [block for block in found if block.language == SHELL]
    if not any(not not_run(command) for block in shell for command in block.commands()):
        return ""
    printed = _printed(shared_pool, folder)
    if page.name == "operator.md":
        printed |= _another_pool(shared_pool, folder)
    demo = folder / "told.json"
    told = report.as_json([], shared_pool.pool.on_chain, _endpoints(shared_pool), seconds=0, block_time=1.0)
    demo.write_text(json.dumps(told))
    sections = ["\n".join(_commands(block, printed) for block in part) for _, part in groupby(shell, _section)]
    script = "\n".join([UNTIL, *(f"(\n{section}\n)" for section in sections)])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=_environment(shared_pool, folder, second, demo)
        | (_chain(shared_pool) if page.name == "local-stack.md" else {})
        | dict(env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
        check=False,
    )
    log = (folder / "session.log").read_text()[-4000:] if (folder / "session.log").exists() else ""
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    return done.stdout


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


def _printed(shared_pool: BenchPool, folder: Path) -> dict[str, str]:
    """What a reader puts in the place of what is printed; the longer first."""
    env = shared_pool.pool.env
    head = int(shared_pool.rpc.call("eth_blockNumber"), 16)
    return {
        "SLUICE_CHAIN_ID=421614": f"SLUICE_CHAIN_ID={shared_pool.chain.chain_id}",
        "SLUICE_BLOCK_TIME=0.25": f"SLUICE_BLOCK_TIME={shared_pool.chain.block_time}",
        "SLUICE_START_BLOCK=123456789": f"SLUICE_START_BLOCK={head}",
        "0xB2157BF2fAb286b2A4170E3491Ac39770111Da3E": env["SLUICE_HUB"],
        "0x0123456789abcdef0123456789abcdef01234567": env["SLUICE_WORKERPOOL"],
        "https://public-rpc.example": shared_pool.chain.rpc_url,
        "https://rpc.example": shared_pool.chain.rpc_url,
        "wss://rpc.example": shared_pool.chain.ws_url,
        "mongodb://mongodb.example:27017/?replicaSet=rs0": shared_pool.servers.mongodb_uri,
        "amqp://sluice:change-me@rabbitmq.example:5672": shared_pool.servers.amqp_url,
        "http://rabbitmq.example:15672": shared_pool.servers.rabbitmq_api,
        "http://ipfs.example:5001": shared_pool.servers.ipfs_api,
        "https://ipfs.example": shared_pool.servers.ipfs_gateway,
        "https://pool.example": shared_pool.pool.api_url,
        "SLUICE_API_HOST=0.0.0.0": "SLUICE_API_HOST=127.0.0.1",
        "SLUICE_AMQP_PUBLIC_HOST=pool.example": "SLUICE_AMQP_PUBLIC_HOST=127.0.0.1",
        "SLUICE_AMQP_PUBLIC_PORT=5671": f"SLUICE_AMQP_PUBLIC_PORT={shared_pool.servers.amqp_port}",
        "/etc/sluice/wallet.json": str(folder / "owner.json"),
        "/etc/sluice/password": str(folder / "password"),
        "http://127.0.0.1:18320": env.get("SLUICE_ENCLAVE_SMS_URL", ""),
        "the-content-of-admin.token": (shared_pool.pool.home / "scheduler" / "admin.token").read_text().strip(),
        "http://127.0.0.1:18301": f"http://127.0.0.1:{shared_pool.names.operations_port}",
    }


def _another_pool(shared_pool: BenchPool, folder: Path) -> dict[str, str]:
    """What the reader of the operator's page has: a workerpool whose owner's wallet no other scheduler uses."""
    at = on_chain.prepare(
        shared_pool.rpc,
        shared_pool.chain.addresses,
        chain_id=shared_pool.chain.chain_id,
        workers=0,
        image=shared_pool.pool.on_chain.app_image,
    )
    owner = folder / "another-owner.json"
    _keystore(owner, at.scheduler.secret)
    return {"0x0123456789abcdef0123456789abcdef01234567": at.workerpool, "/etc/sluice/wallet.json": str(owner)}


def _environment(shared_pool: BenchPool, folder: Path, second: Names, demo: Path) -> dict[str, str]:
    """A shell without settings but for what keeps this page apart from others on the same servers."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    return inherited | {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "DEMO_JSON": str(demo),
        "SLUICE_HOME": str(folder / "home"),
        "SLUICE_DOCKER_HOST": shared_pool.servers.docker_host,
        "SLUICE_API_PORT": str(second.api_port),
        "SLUICE_FLOWER_PORT": str(second.flower_port),
        "SLUICE_OPERATIONS_PORT": str(second.operations_port),
        "SLUICE_MONGODB_DATABASE": second.database,
        "SLUICE_AMQP_CORE_VHOST": second.core,
        "SLUICE_AMQP_POOL_VHOST": second.pool,
        # Their broker's certificate is of a CA that the system does not know.
        "SLUICE_AMQP_CA_FILE": shared_pool.servers.amqp_public["SLUICE_AMQP_CA_FILE"],
        **{name: value for name, value in _stack(shared_pool).items() if name.startswith("SLUICE_STACK_")},
    }


def _stack(shared_pool: BenchPool) -> dict[str, str]:
    """Addresses of the servers, as `.sluice/stack.env` has them, and the ports by which the stack knows its own."""
    inherited = {name: value for name, value in os.environ.items() if name.startswith("SLUICE_STACK_")}
    names = ("SLUICE_MONGODB_URI", "SLUICE_AMQP_URL", "SLUICE_RABBITMQ_API", "SLUICE_IPFS_API", "SLUICE_IPFS_GATEWAY")
    return inherited | {name: shared_pool.pool.env[name] for name in names}


def _chain(shared_pool: BenchPool) -> dict[str, str]:
    """The pool's chain, for a page that would start one."""
    return {name: shared_pool.pool.env[name] for name in ("SLUICE_RPC_URL", "SLUICE_HUB", "SLUICE_CHAIN_ID")}


def _endpoints(shared_pool: BenchPool) -> dict[str, str]:
    found = {
        "rpc": shared_pool.chain.rpc_url,
        "hub": shared_pool.chain.addresses.hub,
        "app_image": shared_pool.pool.on_chain.app_image,
        "api": shared_pool.pool.api_url,
        "ipfs_api": shared_pool.servers.ipfs_api,
        "ipfs_gateway": shared_pool.servers.ipfs_gateway,
    }
    service = shared_pool.pool.env.get("SLUICE_ENCLAVE_SMS_URL")
    return found | ({report.SECRET_SERVICE: service} if service else {})


def _keystore(path: Path, secret: str) -> None:
    """A V3 keystore as other tools write it, with little work in its key derivation."""
    private_file.write(path, json.dumps(Account.encrypt(bytes.fromhex(secret), "secret", kdf="pbkdf2", iterations=10)))


def _script(path: Path, commands: str) -> None:
    path.write_text(f"#!/bin/sh\n{commands}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
