"""docker-compose.yml, run by docker compose: the plugin, images in place of the servers' own, a project of one pool.

No image registry is needed: the images are made on the base of `base`, of programs that the repository has anyway, and
have the names that the file pins for as long as the project is up. An engine that has an image of such a name keeps it,
and the project uses that.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import yaml
from docker import DockerClient
from docker.errors import ImageNotFound

from ops.stack import tools
from ops.stack.go_modules import GoProgram, go
from ops.stack.servers import anvil, mongodb
from ops.stack.servers.ipfs import KUBO, binary
from tests.documents import ROOT
from tests.image import base
from tests.integration import sdk

FOLDER = Path(__file__).parent / "compose"
VERSION = "v2.40.3"
PLUGIN = GoProgram(
    "docker-compose",
    FOLDER,
    "github.com/docker/compose/v2/cmd",
    takes="docker compose (4 minutes)",
    fix="Install Docker's compose plugin.",
    static=True,
    flags=("-ldflags", f"-s -w -X github.com/docker/compose/v2/internal.Version={VERSION}"),
)
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
#: Services that `docker compose up` starts: those of no profile.
SERVICES = [name for name, service in FILE["services"].items() if "profiles" not in service]
#: Ports of a container that the file publishes, by service.
PORTS = {"rabbitmq": (15672,), "proxy": (8443, 5671), "chain": (8545,), "scheduler": (18555, 18301)}
#: Services whose images are built here in place of those that the file names.
BUILT = ("mongodb", "rabbitmq", "ipfs", "proxy", "chain")
#: Of the profile of a machine beside the pool.
MACHINE = "machine"
#: Seconds until all services are up and healthy: 40 on an idle machine.
UP_SECONDS = 900

#: Ends whatever a project has.
DOWN = ("--profile", "*", "down", "--volumes", "--rmi", "local", "--remove-orphans", "--timeout", "60")


def build() -> None:
    """Build the plugin where none is installed."""
    if not program():
        PLUGIN.build()


def program() -> list[str | Path]:
    """Words that run docker compose: the installed plugin, else the one that was built; none if there is none."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    found = PLUGIN.built()
    return [found] if found else []


@dataclass(frozen=True, slots=True)
class Project:
    """The file's services, in a folder of their own.

    `ports`: where a container's port is on this machine; `edge`: the network of the proxy and the API.
    """

    name: str
    folder: Path
    host: str
    ports: Mapping[int, int]
    edge: IPv4Network

    @property
    def machine_settings(self) -> Path:
        """In the place of /etc/sluice."""
        return self.folder / "etc"

    @property
    def machine_home(self) -> Path:
        """In the place of /var/lib/sluice."""
        return self.folder / "var"

    def compose(
        self,
        *words: str,
        check: bool = True,
        seconds: float = UP_SECONDS,
        files: Sequence[str] = ("docker-compose.yml", "local.yml"),
    ) -> subprocess.CompletedProcess[str]:
        """Run docker compose on the project."""
        command = [*program(), "--project-name", self.name, "--project-directory", self.folder]
        for file in files:
            command += ["--file", self.folder / file]
        env = os.environ | {"DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "0", "EDGE_SUBNET": str(self.edge)}
        done = subprocess.run([*command, *words], env=env, capture_output=True, text=True, timeout=seconds, check=False)
        if check and done.returncode:
            logs = "" if "logs" in words else self.log()
            raise AssertionError(f"compose {words[0]}: {done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{logs[-20000:]}")
        return done

    def log(self) -> str:
        """The last lines of all services."""
        return self.compose("logs", "--tail", "60", "--no-color", check=False).stdout

    def container(self, service: str) -> str:
        """Id of a service's container."""
        return self.compose("--profile", "*", "ps", "--quiet", "--all", service).stdout.strip()


@contextmanager
def project(host: str, engine: DockerClient, env: Mapping[str, str], ports: Mapping[int, int]) -> Iterator[Project]:
    """The file and what it mounts in a new folder, where `.env` and secrets are still to be made; all of it is removed
    at the end.

    `ports`: published ones on loopback, in place of the file's; `env`: the scheduler's settings that tell of them.
    """
    build()
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="sluice-compose-")))
        # Secrets are read by the users of containers.
        folder.chmod(0o755)
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "docker", folder / "docker", ignore=shutil.ignore_patterns("secrets"))
        for service in BUILT:
            undo.enter_context(_image(host, engine, service))
        made = Project(f"sluice-{secrets.token_hex(4)}", folder, host, ports, _edge())
        (folder / "local.yml").write_text(_on_this_machine(made, env, engine.info()["DockerRootDir"]))
        undo.callback(made.compose, *DOWN, check=False)
        yield made


def init(folder: Path, *words: str) -> None:
    """Run `sluice init` there, in a shell without settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    command: list[str | Path] = [Path(sys.executable).with_name("sluice"), "init", *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _edge() -> IPv4Network:
    """A network that hardly any other project has: 16 addresses, as the file's own."""
    return IPv4Network(f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}.{16 * secrets.randbelow(16)}/28")


def _on_this_machine(made: Project, env: Mapping[str, str], data: str) -> str:
    """What a second file says for a test: ports of its own, on loopback, the image that `base.build` has made, and
    places of the machine's. `data`: the engine's folder.
    """
    lines = ["services:"]
    for service, inside in PORTS.items():
        published = ", ".join(f'"127.0.0.1:{made.ports[port]}:{port}"' for port in inside)
        lines += [f"  {service}:", f"    ports: !override [{published}]"]
        files = FILE["services"][service].get("ulimits", {}).get("nofile", 0)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        # An engine without the right to raise this machine's own limit starts no container that asks for more.
        lines += [f"    ulimits: {{ nofile: {most} }}"] if 0 <= most < files else []
    built = ["    build: !reset null", f"    image: {base.TAG}"]
    # The last of them is the scheduler.
    lines += [*built, f"    environment: {json.dumps(env)}"]
    settings, home = made.machine_settings, made.machine_home
    mounted = [
        f"{made.host.removeprefix('unix://')}:/var/run/docker.sock",
        f"{home}:{home}",
        f"{settings}:{settings}:ro",
        f"{data}:{data}:ro",
    ]
    lines += [f"  {MACHINE}:", *built, f"    env_file: !override [{settings}/worker.env]"]
    lines += [f"    volumes: !override {json.dumps(mounted)}"]
    return "\n".join(lines) + "\n"


@contextmanager
def _image(host: str, engine: DockerClient, service: str) -> Iterator[None]:
    """An image for a service under the name that the file pins, for as long as the block runs."""
    name = FILE["services"][service]["image"]
    try:
        engine.images.get(name)
    except ImageNotFound:
        pass
    else:
        yield
        return
    with tempfile.TemporaryDirectory() as made:
        context = Path(made)
        source, files = _FILES[service](), FOLDER / _FOLDERS[service]
        for file in [*filter(Path.is_file, files.iterdir()), *source]:
            if file.is_dir():
                shutil.copytree(file, context / file.name, symlinks=True)
            else:
                shutil.copy(file, context)
        base.docker(host, "build", "--network", "host", "--tag", f"sluice-compose-{service}",
                    "--build-arg", f"BASE={base.base_image(engine)}", context)  # fmt: skip
    base.docker(host, "tag", f"sluice-compose-{service}", name)
    try:
        yield
    finally:
        base.docker(host, "rmi", name, check=False)


def _of_mongodb() -> Sequence[Path]:
    return (mongodb.server()[0], sdk.node(), sdk.installed(FOLDER / "mongodb") / "node_modules")


def _nothing() -> Sequence[Path]:
    """Debian's packages are all."""
    return ()


def _of_kubo() -> Sequence[Path]:
    """The program, and the scripts of the same module that start it in its own image."""
    command: list[str | Path] = [go(KUBO.module), "mod", "download", "-json", "github.com/ipfs/kubo"]
    found = json.loads(tools.run(command, tool="kubo", fix=KUBO.fix, cwd=KUBO.module))
    scripts = [Path(found["Dir"]) / "bin" / name for name in ("container_daemon", "container_init_run")]
    return (binary()[0], *scripts)


def _of_anvil() -> Sequence[Path]:
    return (anvil.binary()[0],)


_FILES = {"mongodb": _of_mongodb, "rabbitmq": _nothing, "ipfs": _of_kubo, "proxy": _nothing, "chain": _of_anvil}
_FOLDERS = {"mongodb": "mongodb", "rabbitmq": "rabbitmq", "ipfs": "kubo", "proxy": "haproxy", "chain": "anvil"}


if __name__ == "__main__":
    # Before the tests, of which each has a time limit.
    build()
