"""Apps under gVisor, on the stack's engine: `make test-gvisor`, since gVisor builds for minutes."""

from __future__ import annotations

import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from config.settings import Settings
from ops.stack import gvisor
from protocol.errors import BadSetting
from protocol.results.error_result import UNCLEAR_END, Failure, cause_code
from tests.integration.sms.service import load_surroundings
from tests.integration.workers import syscalls
from tests.integration.workers.conftest import IMAGE, ReportingPool
from tests.integration.workers.hostile import ATTACKS
from tests.integration.workers.hostile_machine import (
    FORBIDDEN,
    answers_of_kernel,
    attack,
    build_hostile_image,
    confine,
    lower_limits,
    processes,
    require_next_task_runs,
    require_true_cause,
    run,
    unharmed,
)
from tests.integration.workers.network.neighbours import Neighbours, app, datagram, reached, stand_around, tries
from tests.integration.workers.network.neighbours import run as run_app
from tests.integration.workers.network.outside import DNS_PORT, INTERNET, outside_world
from tests.integration.workers.scripts import done, result, zipped
from tests.integration.workers.test_launcher import ABOUT, Machine
from tests.waiting import wait_until
from workers.context import WorkerContext
from workers.fitness import doctor
from workers.sandbox import spec
from workers.sandbox.network import app_names, name_servers, pause_program
from workers.sandbox.rehearsal import METADATA, rehearse
from workers.task.replicate import ReplicateStage

#: Calls that gVisor's kernel answers as Linux does not: namespaces of users, and what root may in one; a network,
#: cgroups and a FUSE of its own; a log that it makes up; and files that are there and do nothing.
OF_ITS_OWN_KERNEL = {
    *("unshare users", "unshare network", "unshare processes", "raw socket", "packet socket", "more capabilities"),
    *("keyctl", "syslog", "nice", "open /proc/sysrq-trigger", "open /dev/fuse"),
    "open /sys/fs/cgroup/memory/memory.limit_in_bytes",
}
#: What gVisor's own kernel makes of some of them. An app's first process may be killed by the app. Files in its layer
#: are in its own memory, with their content in one file of the machine's: there are no entries to count.
ENDS_OTHERWISE = {"kills its first process": UNCLEAR_END, "many files in its own layer": Failure.APP_TIMEOUT}
#: What may use up its memory first: gVisor keeps processes and the names of files there.
OF_ITS_MEMORY = {
    *("fork bomb", "fork bomb that hides from its parent"),
    *("10,000 folders deep", "many files", "100,000 files"),
}


@pytest.fixture(scope="session", autouse=True)
def runsc() -> None:
    """It is built before the engine starts, which then has it as a runtime."""
    gvisor.build()


def test_a_program_gets_its_variables_past_the_engine_as_it_would_by_it(
    context: WorkerContext, engine_host: str, tmp_path: Path
) -> None:
    load_surroundings(engine_host)
    sandbox = replace(context.machine.sandbox, runtime=gvisor.RUNTIME)
    machine = Machine(context.engine, tmp_path)
    given = replace(machine.spec(IMAGE, "sh", "-c", ABOUT, "zero", GIVEN="given"), sandbox=sandbox)
    known = machine.run(given)
    assert (known[0], b"|given|" in known[1]) == (7, True)
    assert machine.run(machine.handed(given)) == known


@pytest.fixture(scope="module")
def hostile_image(engine_host: str) -> str:
    """The engine has the image of all hostile apps."""
    return build_hostile_image(engine_host)


@pytest.fixture
def machine(
    context: WorkerContext, hostile_image: str, engine_host: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkerContext]:
    """A machine with low limits, which is as it was after whatever has run on it."""
    assert gvisor.RUNTIME in context.engine.info()["Runtimes"], "add runsc to this engine's runtimes"
    lower_limits(monkeypatch)
    with unharmed(context, engine_host):
        yield context


@pytest.fixture
def neighbours(settings: Settings, context: WorkerContext, engine_host: str) -> Iterator[Neighbours]:
    """All that an app must not reach, and one host that it may."""
    with stand_around(settings, context, engine_host) as found:
        yield found


@contextmanager
def answering(name_server: socket.socket, address: str) -> Iterator[None]:
    """The name server answers each question with this IPv4 address."""

    def serve() -> None:
        while True:
            question, peer = name_server.recvfrom(512)
            if question == b"over":
                return
            asked = question[12 : question.index(b"\0", 12) + 5]
            header = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            name_server.sendto(header + asked + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address), peer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"over", (INTERNET, DNS_PORT))
    thread.join()


def test_an_isolated_app_is_answered_by_gvisors_kernel(machine: WorkerContext) -> None:
    confine(machine, "isolated")
    found = done(machine, result("dmesg | grep -qi gvisor && echo x > /iexec_out/r"))
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)


def test_an_isolated_app_that_never_ends_is_killed_and_declined(machine: WorkerContext) -> None:
    confine(machine, "isolated")
    found = run(machine, 1, "sleep 100000", IMAGE, seconds=1)
    assert (found.stage, cause_code(found.cause)) == (ReplicateStage.FAILED, UNCLEAR_END)
    assert "time was over" in str(found.cause)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_app_under_gvisor_is_declined_for_what_is_true_unless_its_result_is_good_and_the_next_task_runs(
    machine: WorkerContext, pool: ReportingPool, tmp_path: Path, name: str
) -> None:
    case = ATTACKS[name]
    ends = ENDS_OTHERWISE.get(name, case.ends)
    seconds = 1 if ends is Failure.APP_TIMEOUT else None
    found = attack(machine, pool, "isolated", name, f"{abs(hash(tmp_path))}", ends and UNCLEAR_END, seconds)
    if ends is not None:
        require_true_cause(found, ends, or_memory=name in OF_ITS_MEMORY)
    wait_until(lambda: not _sandboxes(machine.engine.host), 20, what="the end of gVisor's processes")


def _sandboxes(host: str) -> list[str]:
    """Processes of gVisor for this engine's containers."""
    folder = str(Path(host.removeprefix("unix://")).parent)
    return [line for line in processes() if line.startswith("runsc-") and folder in line]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is for x86-64")
def test_what_gvisor_lets_an_app_do_reaches_its_own_kernel_only(machine: WorkerContext) -> None:
    confine(machine, "isolated")
    answers, printed = answers_of_kernel(machine)
    allowed = {call.name for call, answer in zip(FORBIDDEN, answers, strict=False) if answer >= 0}
    assert allowed <= OF_ITS_OWN_KERNEL
    open_files, core, shared, _, covered, seen = printed
    assert (int(open_files), int(core), int(shared)) == (spec.OPEN_FILES, 0, spec.SHARED_MEMORY_BYTES // 1024)
    # Nothing of the machine's kernel, and no process but the app's own.
    assert (int(covered), int(seen) < 10) == (0, True)
    require_next_task_runs(machine)


def test_an_isolated_app_has_as_many_processes_as_the_pool_promises(context: WorkerContext) -> None:
    # At the limit of the machine's kernel gVisor itself would end, with exit code 2.
    confine(context, "isolated")
    for part in ("settings", "pool"):
        roomy = getattr(context.machine, part).model_copy(update={"memory_per_slot": 2**30})
        object.__setattr__(context.machine, part, roomy)
    many = f"i=0; while [ $i -lt {spec.PIDS - 10} ]; do sleep 1000 & i=$((i+1)); done; ls -d /proc/[0-9]* | wc -l"
    found = done(context, result(f"({many}) > /iexec_out/r"))
    assert (found.stage, found.cause) == (ReplicateStage.COMPUTED, None)
    assert int(zipped(context)["r"]) >= spec.PIDS - 10


def test_an_isolated_app_finds_names_and_reaches_the_internet_and_nothing_else(
    settings: Settings, context: WorkerContext, neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    confine(context, "isolated")
    monkeypatch.setattr(name_servers, "of_containers", lambda: [INTERNET])
    gateway, port = neighbours.refused["this machine, at the bridge"]
    script = tries(neighbours) + (
        f"{datagram(gateway, port)}; wait; nslookup there.example.org | grep Address; ping -c 1 {gateway} 2>&1\n"
        "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; cat /etc/resolv.conf"
    )
    plain = app(settings, context, context.machine.sandbox, 1, "sh", "-c", script)
    with answering(neighbours.name_server, "93.184.215.14"):
        printed = run_app(context.engine, app_names.with_names(context.layout, plain))
    found = reached(printed)
    assert found.pop("internet"), printed
    assert found == dict.fromkeys(neighbours.refused, False), printed
    assert "93.184.215.14" in printed
    neighbours.datagrams.setblocking(False)
    with pytest.raises(BlockingIOError):
        neighbours.datagrams.recv(16)


def test_what_an_isolated_app_reaches_is_tried_at_start(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    confine(context, "isolated")
    assert (
        f"runsc gives apps a kernel of their own ({gvisor.program()})" in doctor.sandbox(context.machine.settings).says
    )
    assert f"{METADATA[0]} were refused" in rehearse(context.machine).network
    with outside_world() as world:
        monkeypatch.setattr("workers.sandbox.rehearsal.METADATA", world["internet"])
        with pytest.raises(BadSetting, match=r"would reach .*, where clouds keep credentials, although"):
            rehearse(context.machine)


def test_a_runtime_that_runs_nothing_on_this_kernel_is_found_out_at_start(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    confine(context, "isolated")
    # In place of a program that waits, one that ends at once, as all do where gVisor's kernel falls over.
    monkeypatch.setattr("workers.sandbox.network.pause_program.IMAGE", ("sluice-test/ends", "1"))
    monkeypatch.setattr(pause_program, "program", lambda _: syscalls.program([], "/ended"))
    with pytest.raises(BadSetting, match="under the runtime runsc, a program that only waits ended with exit code 0"):
        rehearse(context.machine)
