"""The systemd unit of docs/quickstart/worker.md, as printed, run by systemd as process 1 of a container."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from bench.rig.bench_pool import BenchPool
from tests.image import printed
from tests.image.base import docker
from tests.image.conftest import Image, does_a_task, keystore, needs
from tests.waiting import wait_until

UNIT = "sluice-worker.service"
_DOCKERFILE = """
FROM {image}
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends systemd systemd-sysv \\
    && ln -s /sluice/.venv /opt/sluice
ENTRYPOINT ["/sbin/init"]
CMD []
"""


@pytest.fixture(scope="module")
def system(image: Image, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tag of an image with systemd, and Sluice where the page installs it."""
    tag, folder = f"{image.tag}-systemd", tmp_path_factory.mktemp("systemd")
    (folder / "Dockerfile").write_text(_DOCKERFILE.format(image=image.tag))
    docker(image.host, "build", "--network", "host", "--tag", tag, folder)
    return tag


@pytest.fixture
def home() -> Iterator[Path]:
    """A machine's folder that has one path inside and outside of the container, and that the unit may write to."""
    above = Path("/run/sluice")
    above.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=above) as folder:
        yield Path(folder)


def test_systemd_has_nothing_to_say_against_the_unit(image: Image, system: str, tmp_path: Path) -> None:
    (tmp_path / UNIT).write_text(printed.unit())
    mounted = f"{tmp_path}/{UNIT}:/etc/systemd/system/{UNIT}:ro"
    words = ("run", "--rm", "--volume", mounted, "--entrypoint", "systemd-analyze", system)
    done = docker(image.host, *words, "verify", "--man=no", f"/etc/systemd/system/{UNIT}")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_machine_works_as_the_unit_on_the_page_says(
    image: Image, bench_pool: BenchPool, scheduler: str, system: str, home: Path, tmp_path: Path
) -> None:
    assert not image.ended(scheduler)
    name, settings = f"sluice-systemd-{secrets.token_hex(4)}", tmp_path / "etc"
    settings.mkdir()
    keystore(settings, bench_pool.pool.on_chain.workers[1], names=("wallet.json", "password"), owner=0)
    replaced = {"https://pool.example": bench_pool.pool.api_url, f"SLUICE_HOME={printed.HOME}": f"SLUICE_HOME={home}"}
    printed.write_settings(settings, replaced, needs(bench_pool))
    (tmp_path / UNIT).write_text(printed.unit())
    mounts = {
        settings: f"{printed.SETTINGS}:ro",
        home: home,
        tmp_path / UNIT: f"/etc/systemd/system/{UNIT}:ro",
        Path(image.host.removeprefix("unix://")): "/var/lib/engine.sock",
    }
    # What systemd needs to be process 1: its own groups of processes, and mounts.
    own = ("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--security-opt=seccomp=unconfined", "--cgroupns=private")
    words = ["run", "--detach", "--name", name, "--network", "host", "--stop-signal", "SIGRTMIN+3", *own]
    words += [f"--tmpfs={folder}" for folder in ("/run", "/run/lock", "/tmp")]
    words += [f"--volume={outside}:{inside}" for outside, inside in mounts.items()]

    def shell(*command: str, check: bool = True) -> str:
        return docker(image.host, "exec", name, *command, check=check).stdout.strip()

    def log() -> str:
        return shell("journalctl", "--unit", UNIT, "--output", "cat", "--no-pager")

    def shown(what: str) -> str:
        return shell("systemctl", "show", "--property", what, "--value", UNIT)

    with image.removed(name):
        docker(image.host, *words, system)
        # `starting`, `running` or `degraded`: its bus is there, and commands are heard.
        wait_until(lambda: shell("systemctl", "is-system-running", check=False), 20, what="systemd to listen")
        shell("ln", "-s", "/var/lib/engine.sock", "/run/docker.sock")
        shell("systemctl", "enable", "--now", UNIT)
        does_a_task(bench_pool, lambda: shown("ActiveState") != "active" or shown("NRestarts") != "0", log)
        shell("systemctl", "stop", UNIT)
        assert (shown("Result"), shown("ExecMainStatus")) == ("success", "0"), log()[-8000:]
        events = [json.loads(line)["event"] for line in log().splitlines() if line.startswith("{")]
        assert "Stopped. Nothing is left unfinished." in events
