"""Which folder is the local stack's."""

from __future__ import annotations

from pathlib import Path

from ops.stack.stack import outer_home


def test_a_shell_with_a_demo_processs_settings_means_the_stack_that_the_demo_runs_on(tmp_path: Path) -> None:
    scheduler = tmp_path / "demo" / "scheduler"
    (tmp_path / "stack").mkdir(parents=True)
    scheduler.mkdir(parents=True)
    assert outer_home(scheduler) == tmp_path
    assert outer_home(tmp_path) == tmp_path


def test_a_folder_that_is_only_named_so_is_itself(tmp_path: Path) -> None:
    scheduler = tmp_path / "demo" / "scheduler"
    assert outer_home(scheduler) == scheduler
