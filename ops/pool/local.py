"""A pool as processes: `sluice scheduler run`, `sluice worker run` per machine, for enclaves `sluice sms run`; all are
found again by their pid files.

<home>/scheduler/{pid,log,key,settings.env}      workerpool owner's wallet
<home>/sms/{pid,log,settings.env,sms.keys}       no wallet
<home>/worker-1/{pid,log,key,settings.env,…}     one machine each, with its own journal
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from config import topology
from config.connections.http_client import http_client
from ops.pool.consumers import all_consumed
from ops.pool.on_chain import NewWallet, PoolOnChain
from ops.stack import private_file
from ops.stack.clusters.members import in_group
from ops.stack.process import Process, Program, find
from protocol.types import Wallet

#: Seconds until the API answers, and until all machines have signed in: 3 on an idle machine, and Python starts slowly
#: on a busy one. The wait ends at once when the process does.
API_SECONDS, ENROL_SECONDS = 300.0, 300.0
#: What a program was started with, for a shell in which to run commands beside it.
SETTINGS = "settings.env"
#: Name of the secret service among the programs.
SMS = "sms"
#: The module that a worker machine runs, with its arguments.
WORKER = ("ops.cli", "worker", "run")
#: Has the kernel kill a program when its parent process dies: a benchmark or test that is killed leaves nothing behind.
TIED = ("setpriv", "--pdeathsig", "KILL", "--")
#: Seconds for a process to end cleanly: the supervisor itself gives its children 20.
STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class WorkerMachine:
    """One worker machine of the pool. `module`: what runs there (a liar runs something else)."""

    name: str
    wallet: NewWallet
    slots: int = 1
    module: Sequence[str] = WORKER
    #: Settings of this machine alone.
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class LocalPool:
    """Processes of one pool under `home`. `env`: settings that all of them share (`SLUICE_…`)."""

    home: Path
    on_chain: PoolOnChain
    env: Mapping[str, str]
    api_url: str
    #: Whether it ends with the process that started it.
    tied: bool = False
    programs: dict[str, Program] = field(default_factory=dict)
    running: dict[str, Process] = field(default_factory=dict)

    def start_scheduler(
        self, env: Mapping[str, str] | None = None, *, name: str = "scheduler", group: int | None = None
    ) -> None:
        """Start all the scheduler's processes and wait until API and queues are served. Raises NotReady.

        `name`, `group`: of one of several hosts, as in `ops.stack.clusters.members`; `env` then has its name and ports.
        """
        module = ("ops.cli", "scheduler", "run")
        self._start_program(name, self.on_chain.scheduler, module, dict(env or {}), group)
        self.await_scheduler(name)

    def await_scheduler(self, name: str = "scheduler") -> None:
        """Wait until a scheduler that was started serves API and queues. Raises NotReady."""
        program, process = self.programs[name], self.running[name]
        with http_client(f"http://127.0.0.1:{program.env['SLUICE_API_PORT']}", timeout=2.0) as client:
            program.wait_ready(process, lambda: _is_live(client), seconds=API_SECONDS)
        queues = (topology.PIPELINE_QUEUE, topology.lane_queue_name(self.on_chain.scheduler.key.wallet))
        listening = partial(all_consumed, self.env["SLUICE_AMQP_URL"], self.env["SLUICE_AMQP_CORE_VHOST"], queues)
        program.wait_ready(process, listening, seconds=API_SECONDS)

    def start_secret_service(self, port: int, database: str) -> None:
        """Start a secret service for simulated enclaves there, and return; `await_secret_service` waits for it."""
        own = {"SLUICE_SMS_PORT": str(port), "SLUICE_SMS_DATABASE": database, "SLUICE_SMS_SIMULATION": "true"}
        self._start_program(SMS, None, ("ops.cli", "sms", "run"), own)

    def await_secret_service(self) -> None:
        """Wait until the secret service can work. Raises NotReady."""
        program = self.programs[SMS]
        with http_client(f"http://127.0.0.1:{program.env['SLUICE_SMS_PORT']}", timeout=2.0) as client:
            program.wait_ready(self.running[SMS], lambda: _is_live(client, "/health"), seconds=API_SECONDS)

    def start_machines(self, machines: Sequence[WorkerMachine], env: Mapping[str, str] | None = None) -> None:
        """Start worker machines side by side; returns when each has signed in and consumes its queues.

        Raises NotReady.
        """
        for machine in machines:
            own = {"SLUICE_WORKER_NAME": machine.name, "SLUICE_SLOTS": str(machine.slots), **(env or {}), **machine.env}
            self._start_program(machine.name, machine.wallet, machine.module, own)
        for machine in machines:
            self.await_machine(machine.name, machine.wallet.key.wallet)

    def await_machine(self, name: str, wallet: Wallet) -> None:
        """Wait until a machine that was started has signed in and consumes its queues. Raises NotReady."""
        program, process, vhost = self.programs[name], self.running[name], self.env["SLUICE_AMQP_POOL_VHOST"]
        with http_client(self.api_url, timeout=2.0) as client:
            program.wait_ready(process, partial(_is_enrolled, client, wallet), seconds=ENROL_SECONDS)
        queues = (topology.compute_queue_name(wallet), topology.tx_queue_name(wallet))
        listening = partial(all_consumed, self.env["SLUICE_AMQP_URL"], vhost, queues)
        program.wait_ready(process, listening, seconds=ENROL_SECONDS)

    def restart(self, name: str) -> None:
        """Start one program again with its first command and settings, as a service manager would after a crash."""
        self.running[name] = self.programs[name].start()

    def child_pid(self, program: str, child: str) -> int:
        """Pid of one supervised process, e.g. ("scheduler", "lane")."""
        folder = self.home / program / "run"
        (path,) = folder.rglob(f"{child}.pid")
        return int(path.read_text())

    def stop(self) -> None:
        """End all programs, machines first; their folders and logs stay."""
        _stop_processes([*reversed(self.running.values())])
        self.running.clear()

    def _start_program(
        self, name: str, wallet: NewWallet | None, module: Sequence[str], env: dict[str, str], group: int | None = None
    ) -> None:
        """Start one program with a folder and settings of its own, a key file if it has a wallet, and a group of
        processes if it has one.
        """
        folder = self.home / name
        folder.mkdir(parents=True, exist_ok=True)
        if wallet is not None:
            key_file = folder / "key"
            private_file.write(key_file, wallet.secret)
            env = {"SLUICE_KEY_FILE": str(key_file.absolute()), **env}
        metrics = folder / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir()
        own = {
            **self.env,
            "SLUICE_HOME": str(folder.absolute()),
            "SLUICE_METRICS_DIR": str(metrics.absolute()),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics.absolute()),
            **env,
        }
        private_file.write(folder / SETTINGS, private_file.exports(own))
        tied = TIED if self.tied else ()
        # In this order: another group would undo the tie.
        program = Program(name, [*in_group(group), *tied, sys.executable, "-m", *module], folder, env=own)
        self.programs[name] = program
        self.running[name] = program.start()


def stop_all(home: Path) -> list[str]:
    """End every program of a pool under `home`, whatever process started it; the names of those that ran."""
    found = [find(pid_file.parent.name, pid_file) for pid_file in sorted(home.glob("*/pid"), reverse=True)]
    running = [process for process in found if process is not None]
    _stop_processes(running)
    return [process.name for process in running]


def _stop_processes(running: Sequence[Process]) -> None:
    """Send SIGTERM to all processes, then wait for each, so that they end side by side. Removes their pid files too."""
    for process in running:
        if process.alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
    for process in running:
        process.stop(timeout=STOP_SECONDS)


def _is_live(client: httpx.Client, path: str = "/live") -> bool:
    """Whether an API (by default the pool's) answers there with 200."""
    try:
        return client.get(path).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _is_enrolled(client: httpx.Client, wallet: str) -> bool:
    """Whether the pool's API knows the worker of this wallet."""
    try:
        return client.get(f"/workers/{wallet}").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
