"""Debian's Prometheus for tests: its programs, and one server that reads one target; its system service stays off."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ops.stack import ports, tools
from tests.waiting import ample, until, wait_until

#: What is shipped.
MONITORING = Path(__file__).parents[1] / "monitoring"
#: Seconds between two scrapes and two looks at the alerts, where what is shipped says 15.
EVERY = 2
#: For how long a fault must last at least until its alert fires, where what is shipped says minutes: two looks.
SOON = "1s"


def programs() -> tuple[str, str]:
    """Paths of prometheus and promtool; installed where one is absent. Raises MissingTool."""
    names = ("prometheus", "promtool")
    if not all(map(shutil.which, names)):
        tools.debian("prometheus", program="prometheus", instead="put `prometheus` and `promtool` on PATH")
    return (shutil.which(names[0]) or names[0], shutil.which(names[1]) or names[1])


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    http: httpx.Client

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its HTTP API, which must be a success without warnings."""
        answer = self.http.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def value(self, query: str) -> float | None:
        """The value of a query with one result at most; None without one."""
        result = self.ask("query", query=query)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def states(self) -> dict[str, str]:
        """Each alert: inactive, pending or firing."""
        return {rule["name"]: rule["state"] for group in self.ask("rules")["groups"] for rule in group["rules"]}

    def alarms(self, *names: str) -> None:
        """Wait until these alerts fire."""
        until(
            f"the alerts {names}",
            lambda: {name for name, state in self.states().items() if state == "firing"} >= {*names},
        )


@contextmanager
def running(folder: Path, target: str, *, waits: str | None = None) -> Iterator[Prometheus]:
    """A Prometheus with the shipped configuration, which reads `target` (host:port) every EVERY seconds.

    `folder`: for its files, empty. `waits`: for how long faults must last for their alerts, in place of what each says.
    """
    program, _ = programs()
    rules = (MONITORING / "alerts.yml").read_text()
    (folder / "alerts.yml").write_text(rules if waits is None else re.sub(r"for: [1-9]\w*", f"for: {waits}", rules))
    shipped = (MONITORING / "prometheus.yml").read_text()
    assert shipped.count(": 15s") == 2
    (folder / "prometheus.yml").write_text(shipped.replace(": 15s", f": {EVERY}s").replace(": 10s", f": {EVERY}s"))
    (folder / "targets.yml").write_text(f'- targets: ["{target}"]\n')
    port = ports.free_port()
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ample(10.0)) as http,
    ):
        try:
            wait_until(lambda: _ready(http), 30, what="Prometheus")
            yield Prometheus(http)
        finally:
            process.terminate()


def _ready(http: httpx.Client) -> bool:
    try:
        return http.get("/-/ready").is_success
    except httpx.TransportError:
        return False
