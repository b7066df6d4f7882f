"""The image is built and run as its pages and the compose file say: `make image-test`, minutes the first time."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

import httpx
import pytest

from bench.rig.bench_pool import BenchPool
from tests.image import confined, printed
from tests.image.base import docker
from tests.image.conftest import Image, does_a_task, keystore, needs
from tests.waiting import ample


def test_the_image_says_its_version_and_its_commands(image: Image) -> None:
    assert docker(image.host, "run", "--rm", image.tag, "--version").stdout.startswith("sluice ")
    for words in ((), ("--help",)):
        told = docker(image.host, "run", "--rm", image.tag, *words).stdout
        assert "scheduler" in told
        assert "worker" in told


def test_the_image_is_not_root_and_remembers_nothing_of_its_build(
    image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = json.loads(docker(image.host, "inspect", image.tag).stdout)
    assert found["Config"]["User"] == "sluice"
    uid = docker(image.host, "run", "--rm", "--entrypoint", "id", image.tag, "--user").stdout.strip()
    assert uid != "0"
    history = docker(image.host, "history", "--no-trunc", "--format", "{{.CreatedBy}}", image.tag).stdout
    given = {line.partition("=")[0] for line in found["Config"]["Env"]}
    assert given == {"PATH", "SLUICE_HOME"}
    for word in ("PIP_", "SSL_CERT", "TOKEN", "PASSWORD", "SECRET", "://"):
        assert word not in history.upper()
    with capsys.disabled():
        sys.stdout.write(f"\nThe image has {found['Size'] / 1e6:.0f} MB, its base included.\n")


def test_the_scheduler_works_as_confined_by_the_compose_file(
    image: Image, bench_pool: BenchPool, scheduler: str
) -> None:
    docker(image.host, "exec", scheduler, *confined.health_check(bench_pool))
    (found,) = json.loads(docker(image.host, "inspect", scheduler).stdout)
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["CapDrop"] == ["ALL"]
    url = f"http://127.0.0.1:{bench_pool.names.operations_port}"
    # No machine has signed in yet, which /health may well say; that it answers is what is asked here.
    assert "parts" in httpx.get(f"{url}/health", timeout=ample(5.0)).text
    assert "sluice" in httpx.get(f"{url}/metrics", timeout=ample(5.0)).text


def test_a_machine_works_as_the_docker_line_on_the_page_says(
    image: Image, bench_pool: BenchPool, scheduler: str, tmp_path: Path
) -> None:
    wallet = bench_pool.pool.on_chain.workers[0]
    name, settings, home = f"sluice-worker-{secrets.token_hex(4)}", tmp_path / "etc", tmp_path / "var"
    settings.mkdir()
    home.mkdir()
    keystore(settings, wallet, names=("wallet.json", "password"), owner=0)
    replaced = {
        "https://pool.example": bench_pool.pool.api_url,
        "/var/run/docker.sock:": f"{image.host.removeprefix('unix://')}:",
        printed.HOME: str(home),
        printed.SETTINGS: str(settings),
        printed.ENGINE: str(image.engine.info()["DockerRootDir"]),
    }
    printed.write_settings(settings, replaced, needs(bench_pool))
    words = printed.docker_run(replaced | {"sluice-worker": name})
    at = words.index("sluice")
    with image.removed(name):
        docker(image.host, *words[:at], image.tag, *words[at + 1 :])
        does_a_task(bench_pool, lambda: image.restarted(name), lambda: image.log(name))
        docker(image.host, "stop", name)
        assert image.state(name)["ExitCode"] == 0
        last = json.loads(image.log(name).strip().splitlines()[-1])
        assert last["event"] == "Stopped. Nothing is left unfinished."
