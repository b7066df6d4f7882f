"""Programs whose variables go past the engine: they run as the engine itself would run them, and it keeps nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from docker import DockerClient

from config.settings import read_settings
from protocol.errors import CannotStart, ContainerRefused
from tests.integration.sms.service import load_surroundings
from tests.integration.workers.conftest import IMAGE, engine_host
from tests.kept_by_engine import files_of_engine, nonce
from tests.waiting import wait_until
from workers.data.layout import Layout
from workers.enclave import launcher
from workers.sandbox.engine import standard_input
from workers.sandbox.engine.container import Engine
from workers.sandbox.engine.container_state import ContainerState
from workers.sandbox.handed import HandedVariables
from workers.sandbox.profile import NetworkAccess, sandbox_of
from workers.sandbox.run_app import ENGINE_LOST
from workers.sandbox.spec import ContainerSpec, Limits
from workers.task.outcome import verdict
from workers.task.outcome.verdict import Verdict

__all__ = ["engine_host"]

#: What each program says of itself.
ABOUT = 'echo "$0|$*|$GIVEN|$PATH|$HOME|$(pwd)|$(id -u):$(id -g)"; grep Cap /proc/self/status; cat; exit 7'
#: Another user, folder and path than those of most images.
OTHERS = "ENV PATH=/own:/bin HOME=/own GIVEN=of-the-image\nWORKDIR /own/folder\nUSER 1234:2345"
#: Dockerfiles below IMAGE, and what a deal names as command: forms of entry point and command, and what else an image
#: may say of its program.
FORMS = {
    "command in shell form": (f"CMD {ABOUT}", ()),
    "command in exec form": (f"CMD {json.dumps(['sh', '-c', ABOUT, 'zero', 'one'])}", ()),
    "entry point in shell form": (f"ENTRYPOINT {ABOUT}\nCMD ignored", ()),
    "entry point and command": (f'ENTRYPOINT {json.dumps(["sh", "-c", ABOUT])}\nCMD ["zero", "one"]', ()),
    "entry point and a deal's command": (
        f'ENTRYPOINT {json.dumps(["sh", "-c", ABOUT])}\nCMD ["zero"]',
        ("of the deal", "two  words", ""),
    ),
    "a deal's command alone": ('CMD ["no", "such"]', ("sh", "-c", ABOUT)),
    "another user, folder and path": (
        f"{OTHERS}\nCMD {json.dumps(['sh', '-c', ABOUT])}",
        (),
    ),
    "a program in its folder": ('WORKDIR /bin\nCMD ["./sh", "-c", "pwd; exit 5"]', ()),
    "a program of its own path": (
        'RUN mkdir /own && cp /bin/busybox /own/sh\nENV PATH=/own\nCMD ["sh", "-c", "echo $PATH"]',
        (),
    ),
}
#: Files that the system does not execute.
NOT_EXECUTED = {
    "a script without a shell that is there": "RUN printf '#!/no/shell\\n' >/file && chmod 755 /file",
    "a file of no format": "RUN echo words >/file && chmod 755 /file",
}
#: Programs that the engine refuses to start, with its exit code.
REFUSED = {
    "absent": ('CMD ["no-such-program"]', 127),
    "absent from its folder": ('CMD ["/no/such/program"]', 127),
    "not executable": ('RUN echo words >/text && chmod 644 /text\nCMD ["/text"]', 126),
    "a folder": ('CMD ["/bin"]', 126),
}


class Machine:
    """An engine, and a folder with a launcher."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        layout = Layout(folder / "worker")
        layout.make()
        self.launcher = launcher.provide(engine, layout)
        for name in ("in", "out"):
            (folder / name).mkdir()
            (folder / name).chmod(0o777)
        self.sandbox = replace(sandbox_of(read_settings()), network=NetworkAccess.NONE)

    def spec(self, image: str, *command: str, **given: str) -> ContainerSpec:
        return ContainerSpec(
            name=f"launcher-test-{nonce()}",
            image=image,
            command=command,
            environment=given,
            labels={},
            inputs=str(self.folder / "in"),
            outputs=str(self.folder / "out"),
            limits=Limits(64 * 2**20, 10**9),
            seconds=60,
            sandbox=self.sandbox,
        )

    def handed(self, spec: ContainerSpec) -> ContainerSpec:
        return spec.hand_over(self.launcher)

    @contextmanager
    def running(self, spec: ContainerSpec) -> Iterator[str]:
        container = self.engine.create(spec)
        try:
            self.engine.start(container, spec.handed)
            yield container
        finally:
            self.engine.remove(container)

    def run(self, spec: ContainerSpec) -> tuple[int, bytes, bytes]:
        """Exit code, and what it printed."""
        with self.running(spec) as container:
            return self.end(container).exit_code, *self.engine.printed(container)

    def end(self, container: str) -> ContainerState:
        assert self.engine.wait(container, 60)
        return self.engine.state(container)


@pytest.fixture(scope="module")
def machine(engine_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    load_surroundings(engine_host)
    with closing(Engine(engine_host)) as engine:
        yield Machine(engine, tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def image(engine_host: str) -> Iterator[Callable[[str], str]]:
    """A function that makes an image of IMAGE and these lines of a Dockerfile."""
    made: list[str] = []
    with closing(DockerClient(base_url=engine_host)) as client:

        def build(lines: str) -> str:
            found, _ = client.images.build(fileobj=io.BytesIO(f"FROM {IMAGE}\n{lines}\n".encode()), rm=True)
            made.append(str(found.id))
            return made[-1]

        yield build
        for each in made:
            client.images.remove(each, force=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_program_runs_as_it_does_when_the_engine_has_its_variables(
    machine: Machine, image: Callable[[str], str], form: str
) -> None:
    lines, command = FORMS[form]
    spec = machine.spec(image(lines), *command, GIVEN="x=y z\nnew line")
    known = machine.run(spec)
    assert machine.run(machine.handed(spec)) == known


@pytest.mark.parametrize("form", NOT_EXECUTED)
def test_a_file_that_the_system_does_not_execute_ends_in_the_words_by_which_the_verdict_knows_that(
    machine: Machine, image: Callable[[str], str], form: str
) -> None:
    spec = machine.spec(image(f'{NOT_EXECUTED[form]}\nCMD ["/file"]'), GIVEN="x")
    code, stdout, stderr = machine.run(spec)
    ended = machine.run(machine.handed(spec))
    # runc's own code is another one in later versions.
    assert ended == (1, stdout, stderr)
    assert verdict.of_exit(*ended) is verdict.of_exit(code, stdout, stderr)


@pytest.mark.parametrize("form", ["another user, folder and path", "entry point and command"])
def test_a_program_in_a_read_only_container_without_capabilities_gets_its_variables(
    machine: Machine, image: Callable[[str], str], form: str
) -> None:
    strict = sandbox_of(read_settings(sandbox="strict"))
    spec = replace(machine.spec(image(FORMS[form][0]), GIVEN="given"), sandbox=strict)
    code, stdout, stderr = machine.run(machine.handed(spec))
    assert (code, stderr) == (7, b"")
    assert b"|given|" in stdout
    assert (code, stdout, stderr) == machine.run(spec)


@pytest.mark.parametrize("form", REFUSED)
def test_a_program_that_cannot_be_started_ends_with_the_engines_exit_code_and_is_the_apps_fault(
    machine: Machine, image: Callable[[str], str], form: str
) -> None:
    lines, code = REFUSED[form]
    spec = machine.spec(image(lines), GIVEN="value-that-nobody-prints")
    refused = machine.engine.create(spec)
    with pytest.raises(CannotStart):
        machine.engine.start(refused)
    assert machine.engine.state(refused).exit_code == code
    machine.engine.remove(refused)
    ended = machine.run(machine.handed(spec))
    assert ended[:2] == (code, b"")
    assert b"value-that-nobody-prints" not in ended[2]
    assert verdict.of_exit(*ended) is Verdict.APP


def test_an_image_without_a_program_is_refused_as_it_is_by_the_engine(machine: Machine) -> None:
    for spec in (machine.spec(IMAGE, GIVEN="x"), machine.handed(machine.spec(IMAGE, GIVEN="x"))):
        with pytest.raises(CannotStart, match=r"(?i)no command specified"):
            machine.engine.create(spec)


def test_a_launcher_that_cannot_be_executed_is_this_machines_fault(machine: Machine) -> None:
    closed = machine.folder / "closed"
    closed.write_bytes(Path(machine.launcher).read_bytes())
    closed.chmod(0o644)
    container = machine.engine.create(machine.spec(IMAGE, "true", GIVEN="x").hand_over(str(closed)))
    with pytest.raises(ContainerRefused):
        machine.engine.start(container, HandedVariables(str(closed), {"GIVEN": "x"}))
    machine.engine.remove(container)


def test_a_signal_is_the_programs_own(machine: Machine, engine_host: str) -> None:
    script = "trap 'exit 42' TERM; touch /iexec_out/ready; while :; do sleep 0.1; done"
    spec = machine.handed(machine.spec(IMAGE, "sh", "-c", script, GIVEN="x"))
    with machine.running(spec) as container, closing(DockerClient(base_url=engine_host)) as client:
        wait_until((machine.folder / "out" / "ready").exists, 20, what="the program")
        client.containers.get(container).kill(signal="SIGTERM")
        assert machine.end(container).exit_code == 42


def test_variables_of_many_bytes_arrive_and_more_than_the_system_takes_are_no_hang(machine: Machine) -> None:
    many = {f"V{number}": "v" * 100_000 for number in range(5)}
    counted = machine.spec(IMAGE, "sh", "-c", "echo ${#V0} ${#V1} ${#V2} ${#V3} ${#V4}", **many)
    assert machine.run(machine.handed(counted)) == (0, b"100000 100000 100000 100000 100000\n", b"")
    code, _, stderr = machine.run(machine.handed(machine.spec(IMAGE, "true", V="v" * 2**17)))
    assert (code, stderr) == (1, b"exec /bin/true: argument list too long\n")


@pytest.mark.parametrize("sent", [b"", b"GIVEN=half", b"GIVEN=whole\0"], ids=["nothing", "half of one", "no end"])
def test_a_worker_that_is_gone_before_all_variables_are_sent_has_started_no_program(
    machine: Machine, sent: bytes
) -> None:
    spec = machine.handed(machine.spec(IMAGE, "sh", "-c", "echo started", GIVEN="whole"))
    engine = machine.engine
    container = engine.create(spec)
    with standard_input.written(engine._api, container, sent, 10):
        engine.start(container)
    assert machine.end(container).exit_code == ENGINE_LOST
    assert engine.printed(container) == (b"", b"")
    engine.remove(container)


def test_no_variable_is_in_any_file_of_the_engine_or_told_by_it_while_the_program_runs_and_afterwards(
    machine: Machine, engine_host: str
) -> None:
    secret, harmless = f"planted-secret-{nonce()}", f"planted-word-{nonce()}"
    script = f": {harmless}; printf %s $SECRET | sha256sum; touch /iexec_out/running; sleep 600"
    spec = machine.handed(machine.spec(IMAGE, "sh", "-c", script, SECRET=secret))
    with machine.running(spec) as container, closing(DockerClient(base_url=engine_host)) as client:
        wait_until((machine.folder / "out" / "running").exists, 20, what="the program")
        told = json.dumps(client.api.inspect_container(container)).encode()
        assert harmless.encode() in told
        assert secret.encode() not in told
        meanwhile = files_of_engine()
        # Of what the engine is told it keeps a copy in its database: that is what is searched here.
        assert any(path.name == "meta.db" for path in meanwhile.holding(harmless))
        assert any(path.name == "config.v2.json" for path in meanwhile.holding(harmless))
        assert meanwhile.holding(secret) == []
    assert files_of_engine().holding(secret) == []
