"""The compose file's scheduler as one container: its confinement, user, command and health check, as written there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.rig.bench_pool import BenchPool
from tests.documents import ROOT

SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["scheduler"]
#: Keys of the service that have to do with other containers, or say what the command below says.
ELSEWHERE = {"build", "env_file", "networks", "ports", "depends_on", "healthcheck", "volumes", "restart"}
#: Keys for which `docker run` is told something.
KNOWN = {
    *("cap_drop", "security_opt", "read_only", "tmpfs", "init", "command", "stop_grace_period", "mem_limit"),
    *("pids_limit", "logging", "environment", "secrets"),
}
GRACE_SECONDS = int(SERVICE["stop_grace_period"].removesuffix("s"))


def command(tag: str, name: str, bench_pool: BenchPool, secrets: Path) -> list[str]:
    """Words of `docker run` that compose would say for the service. Servers are the stack's, on this machine."""
    words = ["run", "--detach", "--name", name, "--network", "host", *confinement()]
    mounted = [each for each in SERVICE["secrets"] if each.startswith("keystore")]
    words += [f"--volume={secrets / each}:/run/secrets/{each}:ro" for each in mounted]
    said = {name: value for name, value in SERVICE["environment"].items() if name.startswith("SLUICE_KEYSTORE")}
    words += [f"--env={name}={value}" for name, value in {**bench_pool.pool.env, **said}.items()]
    return [*words, tag, *SERVICE["command"]]


def confinement() -> list[str]:
    """Words of `docker run` for all that the service says of its container. Raises AssertionError for a key of the
    service that is not known here.
    """
    unknown = SERVICE.keys() - ELSEWHERE - KNOWN
    assert not unknown, f"say what `docker run` says for {unknown}"
    words = [f"--stop-timeout={GRACE_SECONDS}"]
    words += [f"--memory={SERVICE['mem_limit']}", f"--pids-limit={SERVICE['pids_limit']}"]
    words += [f"--log-driver={SERVICE['logging']['driver']}"]
    words += [f"--log-opt={option}={value}" for option, value in SERVICE["logging"]["options"].items()]
    words += [f"--cap-drop={each}" for each in SERVICE["cap_drop"]]
    words += [f"--security-opt={each}" for each in SERVICE["security_opt"]]
    words += [f"--tmpfs={each}" for each in SERVICE["tmpfs"]]
    return [*words, *(["--read-only"] if SERVICE["read_only"] else []), *(["--init"] if SERVICE["init"] else [])]


def health_check(bench_pool: BenchPool) -> list[str]:
    """The command of the service's health check, for the port that this pool's API has."""
    kind, *words = SERVICE["healthcheck"]["test"]
    assert kind == "CMD"
    return [word.replace(":18300/", f":{bench_pool.names.api_port}/") for word in words]
