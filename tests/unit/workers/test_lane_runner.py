"""When a run of a machine's lane looks at the chain anew."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from workers import upkeep_process
from workers.task import steps
from workers.upkeep_process import LaneRunner


def test_a_run_looks_at_the_chain_anew_after_each_head_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    same: list[bool] = []
    context = SimpleNamespace(now=lambda: 0.0, close=lambda: None)
    monkeypatch.setattr(upkeep_process, "WorkerContext", lambda _: context)
    monkeypatch.setattr(steps, "run_lane", lambda _, *, same_head: same.append(same_head))
    heads_before_wakeups = iter([1, 0, 0, 2, 0])

    class Listener:
        def wait(self) -> bool:
            heads = next(heads_before_wakeups, None)
            for _ in range(heads or 0):
                lane.note_head()
            return heads is not None

    listener: Any = Listener()
    machine: Any = None
    lane = LaneRunner(machine, listener, threading.Event())
    lane.run()
    assert same == [False, True, True, False, True]
