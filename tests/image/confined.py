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
GRACE_SECONDS = int(SERVICE["stop_grace_period"].removesuffix("s"))


def command(tag: str, name: str, bench_pool: BenchPool, secrets: Path) -> list[str]:
    """Words of `docker run` that compose would say for the service. Servers are the stack's, on this machine.

    Raises AssertionError for a key of the service that is not known here.
    """
    assert SERVICE.keys() - ELSEWHERE == {
        *(
            "cap_drop",
            "security_opt",
            "read_only",
            "tmpfs",
            "init",
            "command",
            "stop_grace_period",
            "mem_limit",
            "pids_limit",
        ),
        *("environment", "secrets"),
    }
    words = ["run", "--detach", "--name", name, "--network", "host", "--stop-timeout", str(GRACE_SECONDS)]
    words += [f"--memory={SERVICE['mem_limit']}", f"--pids-limit={SERVICE['pids_limit']}"]
    words += [f"--cap-drop={each}" for each in SERVICE["cap_drop"]]
    words += [f"--security-opt={each}" for each in SERVICE["security_opt"]]
    words += [f"--tmpfs={each}" for each in SERVICE["tmpfs"]]
    words += [*(["--read-only"] if SERVICE["read_only"] else []), *(["--init"] if SERVICE["init"] else [])]
    mounted = [each for each in SERVICE["secrets"] if each.startswith("keystore")]
    words += [f"--volume={secrets / each}:/run/secrets/{each}:ro" for each in mounted]
    said = {name: value for name, value in SERVICE["environment"].items() if name.startswith("SLUICE_KEYSTORE")}
    words += [f"--env={name}={value}" for name, value in {**bench_pool.pool.env, **said}.items()]
    return [*words, tag, *SERVICE["command"]]


def health_check(bench_pool: BenchPool) -> list[str]:
    """The command of the service's health check, for the port that this pool's API has."""
    kind, *words = SERVICE["healthcheck"]["test"]
    assert kind == "CMD"
    return [word.replace(":18300/", f":{bench_pool.names.api_port}/") for word in words]
