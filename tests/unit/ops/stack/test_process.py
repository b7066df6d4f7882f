"""Reading `/proc`, and telling one start of a program from another."""

from __future__ import annotations

from pathlib import Path

from ops.stack.process import Program, find, parse_stat

STAT = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3"


def test_a_stat_line_is_read_although_the_name_holds_brackets_and_blanks() -> None:
    assert parse_stat(STAT) == (4242, 987654)


def test_the_same_command_has_the_same_fingerprint() -> None:
    assert _program(env={"A": "1", "B": "2"}).fingerprint == _program(env={"B": "2", "A": "1"}).fingerprint


def test_another_argument_variable_or_configuration_file_changes_the_fingerprint() -> None:
    programs = [_program(), _program("x"), _program(env={"A": "1"}), _program(configuration="port = 1")]
    assert len({program.fingerprint for program in programs}) == len(programs)


def test_no_pid_file_means_no_program(tmp_path: Path) -> None:
    assert find("it", tmp_path / "pid") is None


def test_half_a_pid_file_means_no_program(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("boot\n")
    assert find("it", tmp_path / "pid") is None


def test_a_pid_file_from_before_a_reboot_means_no_program(tmp_path: Path) -> None:
    own = Path("/proc/self/stat").read_text().strip()
    (tmp_path / "pid").write_text(f"another-boot\n{own}\nfingerprint\n")
    assert find("it", tmp_path / "pid") is None


def _program(*words: str, env: dict[str, str] | None = None, configuration: str = "") -> Program:
    return Program("it", ["true", *words], Path("folder"), env or {}, configuration)
