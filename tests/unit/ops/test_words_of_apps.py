"""What an app says of itself reaches an operator's terminal as it is, and as nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from ops.commands.run import worker
from protocol.results.error_result import UNCLEAR_END, worded
from protocol.wire import Report, Step
from workers.fitness.status import LocalTask, Status


@pytest.mark.parametrize("said", ["[/x]", "[link=https://evil.example]help[/link]", "[bold", "]["])
def test_markup_in_a_cause_is_shown_and_not_followed(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = LocalTask("0x" + "11" * 32, "vote", "failed", 1.0, None, worded(UNCLEAR_END, said), None)
    monkeypatch.setattr("workers.fitness.status.lines", lambda _: [])
    worker._show(cast("Status", SimpleNamespace(tasks=[task])), clear=False)
    assert said in capsys.readouterr().out


def test_a_worker_cannot_put_escape_sequences_into_the_pools_record() -> None:
    assert Report(step=Step.FAILED, cause="\x1b[2Jgone\x07").cause == "?[2Jgone?"
