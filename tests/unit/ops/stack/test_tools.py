"""Finding and bringing programs: what is said when one is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.stack import go_modules, gvisor, tools
from ops.stack.servers import docker, mongodb
from protocol.errors import MissingTool


@pytest.mark.parametrize(
    ("text", "numbers"), [("go1.26.4\n", (1, 26, 4)), ("1.25", (1, 25)), ("", ()), ("go1.27.3 X:a", (1, 27, 3))]
)
def test_go_versions_are_compared_as_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert go_modules.parse_go_version(text) == numbers


def test_an_installer_that_is_absent_is_named_with_the_way_out() -> None:
    with pytest.raises(MissingTool, match=r"anvil is missing .* npm-of-nowhere is not on this machine. Install Node."):
        tools.run(["npm-of-nowhere", "ci"], tool="anvil", fix="Install Node.")


def test_an_installer_that_fails_is_quoted_in_one_line() -> None:
    with pytest.raises(MissingTool, match=r"`sh -c .*failed: first \| second") as caught:
        tools.run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"], tool="it", fix="Fix it.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("machine", "ways"), [("x86_64", "or run `uv sync`"), ("aarch64", "is for x86-64 only")])
def test_without_mongod_the_error_says_the_ways_to_get_one(
    monkeypatch: pytest.MonkeyPatch, machine: str, ways: str
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(mongodb, "WHEEL", "no-such-distribution")
    with pytest.raises(MissingTool, match=f"Set SLUICE_MONGODB_URI .* install MongoDB 6 or later.*{ways}"):
        mongodb.server()


def test_debian_packages_need_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda *_: "/usr/bin/apt-get")
    with pytest.raises(MissingTool, match=r"needs root. Install it \(apt-get install erlang\), or go home\."):
        tools.debian("erlang", program="Erlang", instead="go home")


def test_what_takes_time_is_told_as_it_begins_and_only_inside() -> None:
    heard: list[str] = []
    with tools.told(heard.append):
        tools.announce("building kubo", action="kubo_build")
    tools.announce("building geth", action="geth_build")
    assert heard == ["building kubo"]


def test_a_program_with_shared_libraries_is_not_static(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert not tools.is_static(Path("/bin/sh"))
    assert tools.is_static(script)


def test_a_dynamic_busybox_on_path_is_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = {"busybox": sys.executable, "apt-get": None}
    monkeypatch.setattr(shutil, "which", path.get)
    monkeypatch.setattr(tools, "is_static", lambda _: False)
    with pytest.raises(MissingTool, match=r"static busybox is missing .* not a Debian system. Put .* on PATH"):
        tools.busybox()


def test_an_engine_that_debians_package_started_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engines: list[str] = []

    def install() -> tuple[Path, str]:
        engines.append(docker.SYSTEM_ENGINE)
        return Path("/usr/sbin/dockerd"), "just installed"

    monkeypatch.setattr(docker, "server", install)
    monkeypatch.setattr(docker, "ready", lambda host: host in engines)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert docker.start(tmp_path) == docker.Docker(docker.SYSTEM_ENGINE, None)


def test_our_own_engine_knows_gvisor_where_it_is_unless_the_machine_names_runtimes_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(docker, "server", lambda: (Path("/usr/sbin/dockerd"), "there"))
    monkeypatch.setattr(docker, "DAEMON_JSON", tmp_path / "daemon.json")
    monkeypatch.setattr(gvisor, "program", lambda: Path("/opt/runsc"))
    with_gvisor, _ = docker.program(tmp_path)
    assert list(with_gvisor.command)[-2:] == ["--add-runtime", "runsc=/opt/runsc"]
    (tmp_path / "daemon.json").write_text('{"runtimes": {"runsc": {"path": "/usr/bin/runsc"}}}')
    named, _ = docker.program(tmp_path)
    (tmp_path / "daemon.json").unlink()
    monkeypatch.setattr(gvisor, "program", lambda: None)
    without, _ = docker.program(tmp_path)
    assert "--add-runtime" not in [*named.command, *without.command]


def test_a_program_of_a_go_module_is_built_once_for_each_pin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(go_modules, "go", lambda _: Path("/usr/bin/go"))
    module, built = tmp_path / "it", list[list[str]]()
    module.mkdir()
    (module / "go.mod").write_text("module it\n\ngo 1.1\n")
    (module / "go.sum").touch()

    def run(command: Sequence[str | Path], **_: object) -> str:
        built.append([str(word) for word in command])
        Path(command[command.index("-o") + 1]).touch()
        return ""

    monkeypatch.setattr(tools, "run", run)
    asked = go_modules.GoProgram("it", module, "example.org/it", "it (a second)", "Go.", static=True)
    assert asked.built() is None
    first = asked.build()
    assert (asked.build(), asked.built(), len(built)) == (first, first, 1)
    assert built[0][:2] == ["env", "CGO_ENABLED=0"]
    (module / "go.sum").write_text("another")
    assert asked.built() is None
    assert asked.build() != first
    assert len(built) == 2


_MINIMAL = ("sh", "id", "mkdir", "grep", "tail")


def _environment_script(tmp_path: Path, *programs: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ops/environment.sh in an empty folder with nothing but these programs on PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    for name in (*_MINIMAL, *programs):
        (path / name).symlink_to(str(shutil.which(name)))
    script = tools.root() / "ops/environment.sh"
    return subprocess.run(
        ["/bin/sh", script],
        cwd=tmp_path,
        env={"PATH": str(path), "UV_WANTED": "0"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_without_python_and_apt_is_told_so_in_one_line(tmp_path: Path) -> None:
    done = _environment_script(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Python 3.11 or later with venv is missing. Install it as root (apt-get install ")
    assert done.stderr.count("\n") == 1


def test_an_interpreter_that_was_named_is_never_replaced_by_debians(tmp_path: Path) -> None:
    done = _environment_script(tmp_path, PYTHON="python3.99")
    assert done.returncode == 1
    assert "name another with PYTHON=" in done.stderr
