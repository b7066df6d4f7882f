"""docker-compose.yml by docker compose, on what `sluice init` has written beside it: all services become healthy and
carry deals for a machine of the profile `worker`, through the proxy, also when MongoDB is killed or all is stopped.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import stat
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest

from bench.rig.bench_pool import BenchPool, prepared_pool
from config import topology
from config.settings import Settings
from ops.market.results import fetch
from ops.new_pool.files import OWNERS
from ops.pool.site import Servers
from ops.stack import ports
from pipeline.broker import monitor
from pipeline.broker.users import monitor_user
from protocol.poco.view import TaskStatus
from tests.documents import ROOT
from tests.image import composed, printed
from tests.image.base import docker
from tests.image.composed import Project
from tests.image.conftest import BLOCK_TIME, Image, does_a_task, keystore, needs
from tests.waiting import ample, wait_until

#: What a task of trust 1 goes through in Flower, which repeats what machines report.
STEPS = {"assign", "compute", "upload", "contribute_and_finalize"}
PROFILES = {profile for service in composed.FILE["services"].values() for profile in service.get("profiles", ())}


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool whose scheduler side is the compose file's, and its chain."""

    project: Project
    bench_pool: BenchPool
    #: What workers trust.
    ca: Path

    @property
    def operations(self) -> str:
        """Address of the operations port."""
        return f"http://127.0.0.1:{self.project.ports[18301]}"

    @property
    def url(self) -> str:
        """Where strangers reach API and gateway."""
        return f"https://127.0.0.1:{self.project.ports[8443]}"

    def stranger(self) -> httpx.Client:
        """Who trusts the pool's CA."""
        trusted = ssl.create_default_context(cafile=str(self.ca))
        return httpx.Client(base_url=self.url, verify=trusted, timeout=ample(5.0), trust_env=False)


@pytest.fixture(scope="module")
def pool(image: Image, shared_servers: Servers) -> Iterator[Pool]:
    """All services of the file are up and healthy."""
    inside = [port for each in composed.PORTS.values() for port in each]
    published = dict(zip(inside, itertools.count(ports.free_port(len(inside))), strict=False))
    with (
        prepared_pool(block_time=BLOCK_TIME, workers=1, servers=shared_servers) as bench_pool,
        closing(_bridge(image)) as at,
    ):
        forward(at, bench_pool.node.port)
        with composed.project(image.host, image.engine, _of_ports(published), published) as made:
            # The same address leads to the chain from here and from a container.
            _init(made.folder, bench_pool, ":".join(map(str, at.getsockname())))
            made.compose("up", "--detach", "--wait", "--wait-timeout", str(composed.UP_SECONDS))
            yield Pool(made, bench_pool, made.folder / "docker/secrets/ca.pem")


def _init(folder: Path, bench_pool: BenchPool, chain: str) -> None:
    """What an operator types in the folder of docker-compose.yml. `chain`: host and port of its node."""
    keystore(folder, bench_pool.pool.on_chain.scheduler, names=("owner.json", "owner.password"), owner=0)
    answers = {
        "rpc": f"http://{chain}",
        "ws": f"ws://{chain}",
        "hub": bench_pool.pool.env["SLUICE_HUB"],
        "workerpool": bench_pool.pool.env["SLUICE_WORKERPOOL"],
        "host": "127.0.0.1",
        "keystore": "owner.json",
        "password-file": "owner.password",
    }
    words = [word for name, value in answers.items() for word in (f"--{name}", value)]
    composed.init(folder, "--yes", *words)


def _bridge(image: Image) -> socket.socket:
    """A listener where containers of this engine find this machine (`host-gateway`)."""
    (config,) = image.engine.networks.get("bridge").attrs["IPAM"]["Config"]
    return socket.create_server((config["Gateway"], 0))


def forward(listener: socket.socket, port: int) -> None:
    """Pass on what arrives to a port of loopback, until the listener is closed."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for each in (source, target):
                each.close()

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
                near = socket.create_connection(("127.0.0.1", port))
            except OSError:
                return
            for pair in ((peer, near), (near, peer)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def _of_ports(published: Mapping[int, int]) -> dict[str, str]:
    """What machines are told of the ports that are this test's own."""
    proxy = f"https://127.0.0.1:{published[8443]}"
    return {
        "SLUICE_API_URL": proxy,
        "SLUICE_AMQP_PUBLIC_PORT": str(published[5671]),
        "SLUICE_IPFS_GATEWAY": proxy,
    }


@pytest.fixture(scope="module")
def machine(pool: Pool) -> str:
    """Id of the container of the machine beside it, whose files are as the page says."""
    settings, home = pool.project.machine_settings, pool.project.machine_home
    settings.mkdir()
    home.mkdir()
    keystore(settings, pool.bench_pool.pool.on_chain.workers[0], names=("wallet.json", "password"), owner=0)
    shutil.copy(pool.ca, settings / "ca.pem")
    replaced = {
        "https://pool.example": pool.url,
        printed.HOME: str(home),
        printed.SETTINGS: str(settings),
    }
    own = dict.fromkeys(("SLUICE_AMQP_CA_FILE", "SSL_CERT_FILE"), str(settings / "ca.pem"))
    own["SLUICE_RPC_URL"] = pool.bench_pool.node.rpc_url
    printed.write_settings(settings, replaced, needs(pool.bench_pool) | own)
    pool.project.compose("--profile", "worker", "up", "--detach", composed.MACHINE)
    return pool.project.container(composed.MACHINE)


def test_compose_takes_the_file_on_what_init_wrote_and_says_nothing(pool: Pool) -> None:
    for chosen in ([], *([profile] for profile in sorted(PROFILES)), PROFILES):
        words = [word for profile in chosen for word in ("--profile", profile)]
        done = pool.project.compose(*words, "config", "--quiet", files=["docker-compose.yml"])
        assert (done.stdout, done.stderr) == ("", "")


def test_secrets_of_init_are_files_of_the_users_who_read_them(pool: Pool) -> None:
    folder = pool.project.folder
    wanted = {name: (readers.user, readers.mode) for name, readers in OWNERS.items()}
    found = {name: (folder / "docker/secrets" / name).stat() for name in wanted}
    assert {name: (about.st_uid, stat.S_IMODE(about.st_mode)) for name, about in found.items()} == wanted
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    mounted = {Path(secret["file"]).name for secret in composed.FILE["secrets"].values()}
    assert mounted <= {path.name for path in (folder / "docker/secrets").iterdir()}


def test_all_services_become_healthy(pool: Pool) -> None:
    found = [json.loads(line) for line in pool.project.compose("ps", "--format", "json").stdout.splitlines()]
    assert {each["Service"]: (each["State"], each["Health"]) for each in found} == dict.fromkeys(
        composed.SERVICES, ("running", "healthy")
    )


def test_the_services_carry_a_deal_from_end_to_end(pool: Pool, image: Image, machine: str) -> None:
    does_a_task(
        pool.bench_pool, lambda: image.restarted(machine), lambda: f"{image.log(machine)[-4000:]}\n{pool.project.log()}"
    )


def test_flower_shows_a_tasks_way_at_its_published_port_to_its_own_user_alone(
    pool: Pool, image: Image, machine: str
) -> None:
    read = ("exec", "-T", "scheduler", "cat", f"/var/lib/sluice/{monitor.FILE}")
    user = monitor_user("core"), pool.project.compose(*read).stdout.strip()
    task = does_a_task(pool.bench_pool, lambda: image.restarted(machine), pool.project.log)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{pool.project.ports[18555]}", timeout=ample(10.0), trust_env=False
    ) as flower:
        for path in ("/", "/tasks", "/api/tasks"):
            assert flower.get(path).status_code == 401
            assert flower.get(path, auth=(user[0], "wrong")).status_code == 401
        assert flower.get("/tasks", auth=user).status_code == 200

        def steps() -> dict[str, str]:
            """What its page asks for: the steps of the task, and who did each."""
            found = flower.get("/api/tasks", auth=user).raise_for_status().json().values()
            return {
                item["name"]: item["worker"]
                for item in found
                if item["args"] == f"('{task}',)" and item["state"] == "SUCCESS"
            }

        wait_until(lambda: set(steps()) == STEPS, 30, what="every step of the task in Flower")
        wallet = pool.bench_pool.pool.on_chain.workers[0].key.wallet
        by = {name: who for name, who in steps().items() if name != "assign"}
        assert by == dict.fromkeys(STEPS - {"assign"}, topology.compute_queue_name(wallet))


def test_the_command_that_init_names_last_tells_how_the_pool_is(pool: Pool, image: Image, machine: str) -> None:
    assert not image.restarted(machine)

    def said() -> str:
        return pool.project.compose("exec", "-T", "scheduler", "sluice", "status", check=False).stdout

    # A part that answers late on a busy machine is told of too.
    wait_until(lambda: "The pool works." in said(), 60, what="a status without anything to see to")


# The client is one that would still take them.
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("port", [8443, 5671])
def test_strangers_get_tls_of_today_under_the_pools_name_and_nothing_older(pool: Pool, port: int) -> None:
    def version(oldest: ssl.TLSVersion, newest: ssl.TLSVersion) -> str | None:
        offered = ssl.create_default_context(cafile=str(pool.ca))
        # Else the client refuses what is older by itself.
        offered.set_ciphers("DEFAULT@SECLEVEL=0")
        offered.minimum_version, offered.maximum_version = oldest, newest
        with (
            socket.create_connection(("127.0.0.1", pool.project.ports[port]), timeout=ample(5.0)) as reached,
            offered.wrap_socket(reached, server_hostname="127.0.0.1") as secured,
        ):
            return secured.version()

    for each, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        assert version(each, each) == name
    with pytest.raises(ssl.SSLError):
        version(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


def test_the_api_counts_by_the_address_that_the_proxy_sees_and_believes_nobody_else(pool: Pool, machine: str) -> None:
    deal, most = f"/deals/0x{'ab' * 32}", int(Settings.model_fields["rate_logs"].default.partition("/")[0])
    with pool.stranger() as stranger:

        def refused() -> bool:
            forged = ({"X-Forwarded-For": f"9.9.{each // 256}.{each % 256}"} for each in range(2 * most))
            return any(stranger.get(deal, headers=headers).status_code == 429 for headers in forged)

        # The minute that is counted may end in the middle.
        wait_until(refused, 60, what="a stranger to be told that it asks too often")
        asked = (
            "import http.client, ssl; reached = http.client.HTTPSConnection("
            "'proxy', 8443, context=ssl._create_unverified_context());"
            f" reached.request('GET', '{deal}'); print(reached.getresponse().status)"
        )
        # Another address is not kept waiting for it.
        assert pool.project.compose("exec", "-T", "scheduler", "python3", "-c", asked).stdout == "404\n"
    wallet = pool.bench_pool.pool.on_chain.workers[0].key.wallet
    told = pool.project.compose("exec", "-T", "scheduler", "sluice", "worker", "show", wallet, "--json").stdout
    assert ip_address(json.loads(told)["address"]) not in pool.project.edge


def test_a_result_that_a_browser_shows_has_no_rights_under_the_pools_name(pool: Pool, machine: str) -> None:
    with pool.stranger() as stranger:
        # Any answer of the gateway's.
        answer = stranger.get("/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn/")
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert stranger.post("/ipfs/x").status_code == 403
        # kubo's own API, which could unpin everything.
        assert stranger.post("/api/v0/id").status_code == 404


def test_a_deal_ends_although_mongodb_is_killed_in_the_middle(
    pool: Pool, image: Image, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not image.restarted(machine)
    mongodb = pool.project.container("mongodb")
    deal = pool.bench_pool.buy(trust=1, volume=4, args="sleep 2")
    # From outside of Docker, as the kernel does it: the engine takes its own `kill` for a wish.
    os.kill(image.state(mongodb)["Pid"], signal.SIGKILL)
    views = pool.bench_pool.wait([deal])
    assert {view.status for view in views.values()} == {TaskStatus.COMPLETED}, pool.project.log()[-8000:]
    assert docker(image.host, "inspect", "--format", "{{.RestartCount}}", mongodb).stdout == "1\n"
    monkeypatch.setenv("SSL_CERT_FILE", str(pool.ca))
    for view in views.values():
        assert fetch(pool.url, view.results)
    wait_until(lambda: image.state(mongodb)["Health"]["Status"] == "healthy", 60, what="MongoDB's health")
    assert "parts" in httpx.get(f"{pool.operations}/health", timeout=ample(5.0)).text


def test_a_deal_ends_although_all_services_are_stopped_in_the_middle(pool: Pool, image: Image, machine: str) -> None:
    deal = pool.bench_pool.buy(trust=1, volume=3, args="sleep 2")
    pool.project.compose("stop")
    pool.project.compose("up", "--detach", "--wait", "--wait-timeout", str(composed.UP_SECONDS))
    views = pool.bench_pool.wait([deal])
    assert {view.status for view in views.values()} == {TaskStatus.COMPLETED}, pool.project.log()[-8000:]
    assert not image.restarted(machine)


def test_a_backup_is_taken_and_put_back_by_the_commands_of_the_page(pool: Pool, image: Image, machine: str) -> None:
    page = (ROOT / "docs/care.md").read_text().partition("**Under docker compose**")[2].partition("\n\n**")[0]
    for command in re.findall(r"`((?:docker compose|chown) [^`]*)`", page):
        words = shlex.split(command.replace("$PWD", str(pool.project.folder)))
        if words[0] == "chown":
            os.chown(pool.project.folder / words[2], int(words[1]), -1)
            continue
        _, _, verb, *rest = words
        match verb:
            case "exec" | "run":
                rest = ["-T", *rest]
            case "cp":
                rest = [rest[0], str(pool.project.folder)]
            case "up":
                rest += ["--wait", "--wait-timeout", str(composed.UP_SECONDS)]
        if verb == "stop":
            # What the backup does not know.
            deal = pool.bench_pool.buy(trust=1, volume=2)
            pool.bench_pool.wait([deal])
        done = pool.project.compose(verb, *rest)
        if verb == "run":
            assert "Restored: " in done.stdout
    assert {view.status for view in pool.bench_pool.wait([deal]).values()} == {TaskStatus.COMPLETED}

    def open_tasks() -> list[str]:
        told = pool.project.compose("exec", "-T", "scheduler", "sluice", "task", "ls", "--all", "--json").stdout
        return [item["stage"] for item in json.loads(told) if item["task_id"] in deal.tasks]

    wait_until(lambda: open_tasks() == ["COMPLETED"] * 2, 60, what="what happened since the backup")


def test_all_of_it_goes_down_in_time_and_leaves_nothing(pool: Pool, image: Image, machine: str) -> None:
    ids = {service: pool.project.container(service) for service in (*composed.SERVICES, composed.MACHINE)}
    pool.project.compose("--profile", "worker", "stop", composed.MACHINE)
    pool.project.compose("stop")
    ended = {service: image.state(container)["ExitCode"] for service, container in ids.items()}
    # 137 would be SIGKILL, after the grace period.
    assert ended == dict.fromkeys(ids, 0)
    pool.project.compose("--profile", "*", "down", "--volumes")
    label: dict[str, str | list[str] | bool] = {"label": f"com.docker.compose.project={pool.project.name}"}
    client = image.engine
    assert not [*client.containers.list(all=True, filters=label), *client.networks.list(filters=label)]
    assert not client.volumes.list(filters=label)
