"""A machine that may not start, but has votes on chain whose stake is lost unless they are revealed.

    engine refused, or the pool away   no vote unrevealed: the start fails
                                       else: only upkeep runs, draining, until the votes are revealed; then it fails

Upkeep asks the chain itself whether a vote is to be revealed, so neither engine nor pool is needed for that.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import asdict
from functools import partial
from typing import NoReturn

import structlog

from config.supervisor import Supervisor
from protocol.errors import SluiceError
from workers import control, upkeep_process
from workers.context import Machine
from workers.task.unfinished import Unfinished, sentence

log = structlog.get_logger(__name__)


def refuse(machine: Machine, refusal: SluiceError, left: Unfinished, alone: AbstractContextManager[None]) -> NoReturn:
    """Raise `refusal`, but reveal first what `left` says was voted. `alone`: holds the machine's lock.

    Apps that run are given back to the pool, no new one is taken.
    """
    now = time.time()
    if left.votes:
        log.error(
            f"Cannot start: {refusal} No new task is taken. {sentence(left, now)} They are revealed now.",
            action="votes_first",
            why=str(refusal),
            **asdict(left),
        )
        with alone:
            control.note_process(machine.layout)
            control.ask_to_drain(machine.layout, now)
            Supervisor(
                {"upkeep": partial(upkeep_process.run, None, machine)}, pid_dir=machine.settings.home / "run"
            ).run()
    raise refusal
