"""Dockerfile, compose file and the pages for operators say what the code has."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from config import topology
from config.settings import VARIABLES
from ops.new_pool.files import CHAIN, OWNERS
from ops.stack.clusters import members
from ops.stack.servers import mongodb, rabbitmq
from ops.stack.servers.broker_sockets import advanced_config
from tests.image import composed, confined, printed
from tests.image.conftest import IMAGE_USER

ROOT = Path(__file__).parents[4]
PAGES = (
    "docker-compose.yml",
    "docker/Dockerfile",
    "docker/pool.env.example",
    "README.md",
    *(str(page.relative_to(ROOT)) for page in (ROOT / "docs/quickstart").iterdir()),
)


def _read(path: str) -> str:
    return (ROOT / path).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_is_named_exists(page: str) -> None:
    assert set(re.findall(r"SLUICE_[A-Z][A-Z_]*[A-Z]", _read(page))) <= VARIABLES


def test_the_image_holds_every_package() -> None:
    packages = tomllib.loads(_read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = re.findall(r"^COPY (\w+) \1$", _read("docker/Dockerfile"), re.MULTILINE)
    assert sorted(copied) == sorted(packages)


def test_the_image_is_built_with_the_uv_of_the_makefile() -> None:
    made = re.search(r"UV_VERSION := (\S+)", _read("Makefile"))
    assert made is not None
    assert f"uv=={made[1]}" in _read("docker/Dockerfile")


def test_the_libraries_of_the_image_are_compiled_when_it_is_built() -> None:
    built, _, _ = _read("docker/Dockerfile").partition("uv sync")
    assert "ENV UV_COMPILE_BYTECODE=1" in built.splitlines()


def test_the_compose_file_has_the_stacks_kubo() -> None:
    pinned = re.search(r"github.com/ipfs/kubo (v\S+)", _read("ops/stack/servers/kubo/go.mod"))
    assert pinned is not None
    assert f"ipfs/kubo:{pinned[1]}" in _read("docker-compose.yml")


def test_no_secret_is_sent_to_the_engine_that_builds_the_image() -> None:
    ignored = _read(".dockerignore").splitlines()
    mounted = re.findall(r"file: \./(\S+)/\S+ \}", _read("docker-compose.yml"))
    assert mounted
    assert {*mounted, ".env"} <= set(ignored)


COMPOSE: dict[str, Any] = yaml.safe_load(_read("docker-compose.yml"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = dict(line.split("=", 1) for line in _read("docker/pool.env.example").splitlines() if line[:1].isupper())
#: What may be reached from everywhere, all of the proxy: API and gateway, RabbitMQ.
PUBLIC = {"0.0.0.0:443:8443", "0.0.0.0:5671:5671"}
SCHEDULERS = {"scheduler", "scheduler-2"}
#: Runs other people's apps on this host's engine, as machines elsewhere do.
MACHINE = "machine"


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {MACHINE}))
def test_a_container_of_the_compose_file_can_do_nothing_but_its_work(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["read_only"] is True
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"} & service.keys()
    # Without root there is nothing that a dropped capability would be missed for; the scheduler's image has its user.
    assert "build" in service or not service["user"].startswith(("0", "root"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_of_the_compose_file_has_an_image_of_one_version_and_limits(name: str) -> None:
    service = SERVICES[name]
    assert "build" in service or re.fullmatch(r"\S+:v?\d+\.\d+\.\d+(-management)?", service["image"])
    assert {"mem_limit", "pids_limit"} <= service.keys()
    # Whoever connects has lines written: they must not fill the disk that queues and results are on.
    assert service["logging"]["driver"] == "json-file"
    assert {"max-size", "max-file"} == service["logging"]["options"].keys()
    assert service["restart"] == "unless-stopped"
    assert {"healthcheck"} <= service.keys() or name in {MACHINE, "ipfs"}


def test_the_scheduler_alone_is_run_in_tests_with_all_that_the_compose_file_says_of_its_container() -> None:
    assert {"--read-only", "--cap-drop=ALL", "--log-driver=json-file", "--log-opt=max-file=4"} <= {
        *confined.confinement()
    }


def test_strangers_reach_the_proxy_of_the_compose_file_and_nothing_else() -> None:
    published = {port for service in SERVICES.values() for port in service.get("ports", ())}
    assert {port for port in published if not port.startswith("127.0.0.1:")} == PUBLIC == {*SERVICES["proxy"]["ports"]}
    assert not any("ports" in service for name, service in SERVICES.items() if name.startswith("mongodb"))
    assert not [port for port in published if port.endswith((":27017", ":5001", ":5672", ":18300"))]


def test_the_proxy_has_tls_of_today_and_passes_on_no_word_of_strangers_about_their_address() -> None:
    said = _read("docker/haproxy.cfg")
    assert "ssl-min-ver TLSv1.2" in said
    sections = dict(re.findall(r"^(?:frontend|backend) (\w+)\n(.*?)(?=^\S|\Z)", said, re.MULTILINE | re.DOTALL))
    assert "http-request set-header X-Forwarded-For %[src]" in sections["strangers"]
    assert "http-request del-header Forwarded" in sections["strangers"]
    # Each leads to one port of a service, by a name that it has on one of the proxy's networks.
    led = {
        name: re.findall(r"^    server-template \S+ \d (\S+)$", text, re.MULTILINE) for name, text in sections.items()
    }
    assert {name: to for name, to in led.items() if to} == {
        "api": ["schedulers:18300"],
        "gateway": ["ipfs:8080"],
        "nodes": ["brokers:5671"],
    }
    proxy = SERVICES["proxy"]
    named = {each["target"]: each["source"] for each in proxy["secrets"]}
    assert named == {"cert.pem": "broker_certificate", "cert.pem.key": "broker_key"}
    assert proxy["user"] == SERVICES["rabbitmq"]["user"]
    binds = re.findall(r"^    bind (\S*?):(\d+)", said, re.MULTILINE)
    assert {port for host, port in binds if not host} == {port.rpartition(":")[2] for port in proxy["ports"]}


def test_the_api_believes_addresses_of_the_network_of_the_proxy_alone() -> None:
    edge = COMPOSE["networks"]["edge"]
    assert edge["internal"] is True
    (subnet,) = edge["ipam"]["config"]
    for name in SCHEDULERS:
        assert SERVICES[name]["environment"]["SLUICE_TRUSTED_PROXIES"] == subnet["subnet"]
        assert SERVICES[name]["networks"]["edge"] == {"aliases": ["schedulers"]}
    assert {name for name in SERVICES if "edge" in SERVICES[name].get("networks", ())} == SCHEDULERS | {"proxy"}


def test_a_machine_of_the_compose_file_is_what_the_page_for_machines_runs() -> None:
    machine = SERVICES[MACHINE]
    (env_file,) = machine["env_file"]
    words = ["run", "--detach", "--name", "sluice-worker", *(["--init"] if machine["init"] else [])]
    words += ["--restart", machine["restart"], "--stop-timeout", machine["stop_grace_period"].removesuffix("s")]
    words += ["--user", machine["user"], "--env-file", env_file["path"], "--log-driver", machine["logging"]["driver"]]
    words += [
        word for name, value in machine["logging"]["options"].items() for word in ("--log-opt", f"{name}={value}")
    ]
    words += ["--network", machine["network_mode"]]
    words += [word for each in machine["cap_add"] for word in ("--cap-add", each)]
    words += ["--cgroupns", machine["cgroup"]]
    words += [word for each in machine["volumes"] for word in ("--volume", each)]
    assert [*words, "sluice", *machine["command"]] == printed.docker_run({})
    assert _of_profile("worker") == {MACHINE}


def test_a_machine_of_the_compose_file_sees_what_apps_write_and_stops_them_before_rabbitmq_takes_no_message() -> None:
    """Both are on the engine's disk: an app with a volume must not block the pool's broker."""
    machine = SERVICES[MACHINE]
    folders = {volume.split(":")[0]: volume.split(":")[2:] for volume in machine["volumes"]}
    assert folders["/var/lib/docker"] == ["ro"]
    limit = re.search(r"^disk_free_limit\.absolute = (\d+)GB$", _read("docker/rabbitmq.conf"), re.MULTILINE)
    assert limit is not None
    # Twice: the disk is looked at every few seconds.
    assert int(machine["environment"]["SLUICE_LEAST_FREE_BYTES"]) >= 2 * int(limit[1]) * 10**9


def test_no_client_shares_an_address_with_others_that_come_to_the_proxy_by_another_version_of_ip() -> None:
    """Networks without IPv6 have clients of IPv6 come from one address, of the engine's own."""
    assert not any(network.get("enable_ipv6") for network in COMPOSE["networks"].values())
    assert all(port.startswith("0.0.0.0:") for port in SERVICES["proxy"]["ports"])


def test_no_server_of_the_compose_file_reaches_another_but_by_the_scheduler() -> None:
    others = SERVICES.keys() - SCHEDULERS - {"proxy", MACHINE}
    count = Counter(network for name in others for network in SERVICES[name]["networks"])
    # Members of a cluster reach each other; Grafana asks Prometheus, and does not reach the scheduler.
    assert count == Counter({"database": 3, "broker": 3, "storage": 1, "metrics": 1, "dashboards": 2, "chain": 1})
    assert SERVICES["grafana"]["networks"] == ["dashboards"]
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert COMPOSE["networks"]["metrics"]["internal"] is True
    assert all(set(SERVICES[name]["networks"]) == {*count, "edge"} - {"dashboards"} for name in SCHEDULERS)
    assert SERVICES["proxy"]["networks"] == ["edge", "broker", "storage"]


def test_monitoring_is_started_on_demand_within_limits_and_only_the_operator_reaches_it() -> None:
    for name in ("prometheus", "grafana"):
        service = SERVICES[name]
        assert service["profiles"] == ["monitoring"]
        assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", service["image"])
        assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert _of_profile("monitoring") == {"prometheus", "grafana"}


def _of_profile(profile: str) -> set[str]:
    return {name for name, service in SERVICES.items() if profile in service.get("profiles", ())}


def test_the_profile_cluster_adds_two_members_each_and_a_scheduler_that_are_as_the_first() -> None:
    kinds = {"mongodb": 3, "rabbitmq": 3, "scheduler": 2}
    added = {f"{kind}-{number}" for kind, most in kinds.items() for number in range(2, most + 1)}
    assert _of_profile("cluster") == added
    for name in added:
        first, one = SERVICES[name.rpartition("-")[0]], SERVICES[name]
        same = ("image", "build", "entrypoint", "command", "user", "networks", "secrets", "tmpfs", "ulimits")
        assert [one.get(key) for key in same] == [first.get(key) for key in same]
        assert one["hostname"] == name
        # Data of its own.
        assert one["volumes"][0].startswith(f"{name}:")
    # All members answer to one name, which the schedulers have.
    assert SERVICES["mongodb"]["networks"]["database"]["aliases"] == ["databases"]
    assert SERVICES["rabbitmq"]["networks"]["broker"]["aliases"] == ["brokers"]
    given = SERVICES["scheduler"]["environment"]
    assert "@databases:27017/?replicaSet=rs0" in given["SLUICE_MONGODB_URI"]
    assert given["SLUICE_AMQP_URL"].endswith("@brokers:5672")
    second = SERVICES["scheduler-2"]["environment"]
    assert second == given | {"SLUICE_TOKEN_SECRET_FILE": "/var/lib/first/token.secret"}
    assert "scheduler:/var/lib/first:ro" in SERVICES["scheduler-2"]["volumes"]


def test_nodes_of_the_compose_files_cluster_are_set_as_those_that_are_tested() -> None:
    three = members.of_cluster(Path("/f"), 1)
    ours = rabbitmq._configuration(rabbitmq.Nodes(Path("/f"), 1, "user", "password", (), three), three[0])
    said = _read("docker/rabbitmq.conf")
    for name in ("net_ticktime", "cluster_partition_handling", "queue_leader_locator"):
        (line,) = [line for line in said.splitlines() if line.startswith(f"{name} = ")]
        assert line in ours.splitlines()
    assert f"electionTimeoutMillis: {mongodb.ELECTION_MS}" in " ".join(SERVICES["mongodb"]["healthcheck"]["test"])


def test_the_compose_files_broker_keeps_as_little_for_machines_at_rest_as_the_one_that_is_measured() -> None:
    alone = members.single(Path("/f"))
    ours = rabbitmq._configuration(rabbitmq.Nodes(alone.folder, 1, "user", "password", (), (alone,)), alone)
    said = _read("docker/rabbitmq.conf").splitlines()
    for name in ("background_gc_enabled", "background_gc_target_interval"):
        (line,) = [line for line in said if line.startswith(f"{name} = ")]
        assert line in ours.splitlines()


def test_sockets_of_the_compose_files_broker_are_set_as_those_that_are_tested() -> None:
    said = re.sub(r"%%.*", "", _read("docker/rabbitmq-advanced.config"))
    assert re.sub(r"\s", "", said) == re.sub(r"\s", "", advanced_config())
    for name in ("rabbitmq", "rabbitmq-2", "rabbitmq-3"):
        assert "./docker/rabbitmq-advanced.config:/etc/rabbitmq/advanced.config:ro" in SERVICES[name]["volumes"]


def test_a_channel_of_the_compose_files_broker_has_few_consumers_and_enough_for_the_scheduler() -> None:
    """A process serves its queues, and is asked by remote control, on one channel at most."""
    found = re.search(r"\{consumer_max_per_channel, (\d+)\}", _read("docker/rabbitmq-advanced.config"))
    assert found is not None
    assert len(topology.PIPELINE_QUEUES) + 1 < int(found[1]) <= 100


def test_a_request_to_the_compose_files_broker_is_small_and_large_enough_for_every_client() -> None:
    """From 4.1 on RabbitMQ wants 8192 bytes at least, which clients send before both sides agree."""
    found = re.search(r"^frame_max = (\d+)$", _read("docker/rabbitmq.conf"), re.MULTILINE)
    assert found is not None
    assert 8192 <= int(found[1]) <= 16_384


def test_grafana_has_no_password_but_the_one_of_its_file_and_nobody_else_may_look() -> None:
    given = SERVICES["grafana"]["environment"]
    assert given["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in given
    assert (given["GF_AUTH_ANONYMOUS_ENABLED"], given["GF_USERS_ALLOW_SIGN_UP"]) == ("false", "false")
    assert SERVICES["grafana"]["secrets"] == ["grafana_password"]
    assert COMPOSE["secrets"]["grafana_password"]["file"].startswith("./docker/secrets/")


def test_grafana_finds_prometheus_and_the_dashboards_where_the_compose_file_puts_them() -> None:
    source, provider = (
        yaml.safe_load(_read(f"monitoring/grafana/provisioning/{kind}/sluice.yml"))
        for kind in ("datasources", "dashboards")
    )
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
    inside = {volume.split(":")[1]: volume.split(":")[0] for volume in SERVICES["grafana"]["volumes"]}
    assert inside[provider["providers"][0]["options"]["path"]] == "./monitoring/grafana/dashboards"
    for kind in ("datasources", "dashboards"):
        assert inside[f"/etc/grafana/provisioning/{kind}"] == f"./monitoring/grafana/provisioning/{kind}"


def test_the_compose_file_has_no_password_in_any_variable_and_does_not_start_without_one() -> None:
    given = {
        name: value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
        if re.search("PASS|SECRET|KEYSTORE", name)
    }
    assert given
    assert all(str(value).startswith(("/run/secrets/", "/var/lib/")) for value in given.values()), given
    assert not [name for name in EXAMPLE if "PASS" in name]
    for kind, uri in (("MONGODB", "MONGODB_URI"), ("AMQP", "AMQP_URL")):
        found = SERVICES["scheduler"]["environment"]
        # A user without a password: it is in the file.
        assert "://sluice@" in found[f"SLUICE_{uri}"]
        assert found[f"SLUICE_{kind}_PASSWORD_FILE"].removeprefix("/run/secrets/") in SERVICES["scheduler"]["secrets"]
    assert "--keyFile" in SERVICES["mongodb"]["command"][0]
    assert SERVICES["mongodb"]["environment"]["MONGO_INITDB_ROOT_USERNAME"] == "sluice"


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_of_the_compose_file_is_an_argument_of_a_process(name: str) -> None:
    service = SERVICES[name]
    given = [service.get("command", ()), service.get("healthcheck", {}).get("test", ())]
    for words in given:
        text = words if isinstance(words, str) else " ".join(words)
        assert "--password" not in text
        for found in re.finditer(r"\$\$?\(cat /run/secrets/", text):
            # What the shell keeps for itself: an assignment, or its own `printf`.
            assert re.search(r"(\b[A-Z_]+=|printf %s \"[a-z ]*)$", text[: found.start()]), text


def test_each_secret_of_the_compose_file_is_one_that_its_readers_may_read() -> None:
    users = {name: int(service["user"].partition(":")[0]) for name, service in SERVICES.items() if "image" in service}
    users |= dict.fromkeys(SCHEDULERS, IMAGE_USER)
    files = {name: Path(secret["file"]).name for name, secret in COMPOSE["secrets"].items()}
    for name, service in SERVICES.items():
        for each in service.get("secrets", ()):
            file = files[each if isinstance(each, str) else each["source"]]
            if file in OWNERS:
                assert users[name] in {OWNERS[file].user, OWNERS[file].group}, (name, file)


def test_workers_of_the_compose_files_pool_are_told_to_use_tls() -> None:
    assert (EXAMPLE["SLUICE_AMQP_PUBLIC_TLS"], EXAMPLE["SLUICE_AMQP_PUBLIC_PORT"]) == ("true", "5671")
    assert EXAMPLE["SLUICE_API_URL"].startswith("https://")
    said = dict(line.split(" = ", 1) for line in _read("docker/rabbitmq.conf").splitlines() if " = " in line)
    assert said["listeners.ssl.default"] == "5671"
    files = {said["ssl_options.certfile"], said["ssl_options.keyfile"]}
    assert files == {f"/run/secrets/{name}" for name in SERVICES["rabbitmq"]["secrets"] if name.startswith("broker")}
    assert set(SERVICES["rabbitmq"]["secrets"]) <= COMPOSE["secrets"].keys()
    # The settings that the stack's RabbitMQ is tested with.
    alone = members.single(Path("/f"))
    nodes = rabbitmq.Nodes(alone.folder, 1, "user", "password", (), (alone,))
    ours = rabbitmq._configuration(nodes, alone)
    assert all(f"{key} = {value}" in ours for key, value in said.items() if key.startswith("ssl_options.ver"))


def test_rabbitmq_of_the_compose_file_tells_of_machines_that_are_cut_off() -> None:
    assert _read("docker/enabled_plugins") == rabbitmq._PLUGINS
    assert "./docker/enabled_plugins:/etc/rabbitmq/enabled_plugins:ro" in SERVICES["rabbitmq"]["volumes"]


def test_the_public_gateway_fetches_nothing_for_whoever_asks() -> None:
    assert EXAMPLE["IPFS_GATEWAY_NO_FETCH"] == "true"
    assert SERVICES["ipfs"]["environment"]["GATEWAY_NO_FETCH"] == "${IPFS_GATEWAY_NO_FETCH:-true}"
    assert 'Gateway.NoFetch "${GATEWAY_NO_FETCH:-true}"' in _read("docker/kubo-gateway.sh")
    assert "./docker/kubo-gateway.sh:/container-init.d/20-sluice.sh:ro" in SERVICES["ipfs"]["volumes"]


def test_every_file_that_the_compose_file_mounts_is_there() -> None:
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]]
    # The development chain is made by `sluice init --dev`.
    made = {f"./{CHAIN.parent}"}
    assert not [path for path in mounted if path.startswith("./") and path not in made and not (ROOT / path).exists()]


def test_compose_takes_the_file(tmp_path: Path) -> None:
    """Where compose is installed, or `make image-test` has built it: Debian's `docker.io` lacks it."""
    compose = composed.program()
    if not compose:
        pytest.skip("not run: no `docker compose`, which `make image-test` builds; other tests here read the file")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    for folder in ("docker", "monitoring"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    command = [*compose, "--project-directory", tmp_path, "--profile", "*", "config", "--quiet"]
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in EXAMPLE.items()))
    taken = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (taken.returncode, taken.stderr) == (0, "")
