"""The demo in a shell that has the settings of something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import settings
from ops import cli
from ops.pool import local
from ops.stack import stack


def test_the_demo_touches_nothing_in_a_shell_with_the_settings_of_a_real_pool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def touched(*_: object, **__: object) -> None:
        pytest.fail("it went on")

    monkeypatch.setattr(local, "stop_all", touched)
    monkeypatch.setattr(stack, "up", touched)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_CHAIN_ID", "134")
    settings.cache_clear()
    assert cli.run(["demo"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sluice: Setting SLUICE_CHAIN_ID is wrong: chain 134 is no development chain")
    assert list(tmp_path.iterdir()) == []
    settings.cache_clear()
