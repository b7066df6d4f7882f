"""An IPFS node without a network: kubo, offline, its RPC API and gateway on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx

from config.connections.http_client import http_client
from config.whole_files import write_whole
from ops.stack import ports
from ops.stack.go_modules import GoProgram
from ops.stack.process import Process, Program
from protocol.errors import NotReady, Unavailable

#: Seconds: 1 measured.
START_SECONDS = 120.0
#: The node's program, `ipfs`.
KUBO = GoProgram(
    "ipfs",
    Path(__file__).parent / "kubo",
    "github.com/ipfs/kubo/cmd/ipfs",
    takes="kubo (2 to 3 minutes)",
    fix="Put kubo's `ipfs` on PATH, or set SLUICE_IPFS_API and SLUICE_IPFS_GATEWAY.",
)


@dataclass(frozen=True, slots=True)
class Ipfs:
    """A running node."""

    api_port: int
    gateway_port: int
    process: Process

    @property
    def api(self) -> str:
        """URL of kubo's RPC API (full control: never on a public address)."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def gateway(self) -> str:
        """URL of the read-only HTTP gateway."""
        return f"http://127.0.0.1:{self.gateway_port}"

    def stop(self) -> None:
        """End the node with SIGTERM and wait until it has ended."""
        self.process.stop()


def binary() -> tuple[Path, str]:
    """(path of `ipfs`, where it is from); builds the pinned kubo once (2 to 3 minutes). Raises MissingTool."""
    on_path = shutil.which("ipfs")
    if on_path:
        return Path(on_path), "ipfs on PATH"
    return KUBO.build(), "kubo, built from a pinned Go module"


def start(folder: Path, api_port: int, gateway_port: int, *, seconds: float = START_SECONDS) -> Ipfs:
    """Start a node, or find it running, and wait until it answers. Raises PortTaken, NotReady, MissingTool."""
    folder = folder.absolute()
    program, _ = binary()
    repository = folder / "data"
    env = {"IPFS_PATH": str(repository), "IPFS_TELEMETRY": "off"}
    config = _configuration(api_port, gateway_port)
    wanted = Program("IPFS", [program, "daemon", "--offline"], folder, env, json.dumps(config))
    api = f"http://127.0.0.1:{api_port}"

    def before_start() -> None:
        """Check that the ports are free and write the node's configuration. Raises PortTaken."""
        ports.require_free(api_port, part="the IPFS API", setting="SLUICE_STACK_IPFS_API_PORT")
        ports.require_free(gateway_port, part="the IPFS gateway", setting="SLUICE_STACK_IPFS_GATEWAY_PORT")
        prepare(program, repository, env, config, log=folder / "log")

    process = wanted.ensure(
        lambda: ready(api) and ports.answers(gateway_port), seconds=seconds, before_start=before_start
    )
    return Ipfs(api_port, gateway_port, process)


def ready(api: str) -> bool:
    """Whether a kubo RPC API answers here."""
    try:
        with http_client(api, timeout=5.0) as client:
            return client.post("/api/v0/id").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _configuration(api_port: int, gateway_port: int) -> dict[str, object]:
    """Sections laid over kubo's own defaults."""
    return {
        "Addresses": {
            "API": f"/ip4/127.0.0.1/tcp/{api_port}",
            "Gateway": f"/ip4/127.0.0.1/tcp/{gateway_port}",
            "Swarm": [],
            "Announce": [],
            "AppendAnnounce": [],
            "NoAnnounce": [],
        },
        "Bootstrap": [],
        "AutoTLS": {"Enabled": False},
        "AutoConf": {"Enabled": False},
        "DNS": {"Resolvers": {}},
        "Routing": {"Type": "none", "DelegatedRouters": []},
        "Ipns": {"DelegatedPublishers": []},
        "Discovery": {"MDNS": {"Enabled": False}},
    }


def prepare(program: Path, repository: Path, env: dict[str, str], config: dict[str, object], *, log: Path) -> None:
    """Make the repository if there is none, and write our configuration into it.

    A new one is made in a folder beside and then moved: if `up` is killed, its `ipfs init` goes on, and what that
    writes must neither count as a repository nor get in the way of the next `up`.
    """
    if not (repository / "config").exists():
        repository.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=repository.parent, prefix="new-") as new:
            # ed25519 keys: RSA ones take seconds to make.
            command = [str(program), "init", "--empty-repo", "--algorithm", "ed25519"]
            done = subprocess.run(
                command, env=env | {"IPFS_PATH": new}, capture_output=True, text=True, timeout=60, check=False
            )
            if done.returncode != 0:
                raise NotReady(part="IPFS", seconds=60, log=log, why=f"`ipfs init` failed: {done.stderr.strip()}")
            shutil.rmtree(repository, ignore_errors=True)
            Path(new).rename(repository)
            Path(new).mkdir()
    file = repository / "config"
    try:
        known = json.loads(file.read_text())
    except ValueError as error:
        why = "it is no JSON; put it right, or begin with an empty repository: sluice stack down ipfs --wipe"
        raise Unavailable(what=f"IPFS's configuration {file}", why=why) from error
    write_whole(file, json.dumps(known | config, indent=1), mode=0o600)
