"""Reveals the votes of a machine that may not start, since their stake would be lost otherwise.

    no vote unrevealed      the start fails
    else, refused are
      the engine            only upkeep runs, draining, until the votes are revealed; then the start fails
      the pool, what it
      names, the sign-in    the same, by the pool's configuration of the last start, which was checked then; nothing
                            of what is refused is used, and a pool that is refused is not asked
      the machine's node    the start fails at once: what it says cannot be believed. If it only does not answer, the
                            start is tried again until it does.

Upkeep asks the chain itself whether a vote is to be revealed, so neither engine nor pool is needed for that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict
from functools import partial
from typing import NoReturn

import structlog

from chain.contracts.hub import Hub
from chain.lane.model.intent import LaneId
from chain.lane.store.sqlite import SqliteStore
from chain.rpc.pool import connect
from config.processes.supervisor import Supervisor
from config.settings import Settings
from protocol.errors import PoolUnavailable, RpcUnavailable, SluiceError
from protocol.ethereum.signing import Key
from protocol.types import Contract, TaskId
from workers import control
from workers.care import upkeep_process
from workers.context import Machine
from workers.data.layout import Layout, layout_of
from workers.money import pins
from workers.pool.api import PoolApi, UnaskedApi
from workers.pool.saved_config import load_pool_config
from workers.pool.settings import complete_settings
from workers.task.journal import Journal
from workers.task.replicate import Replicate, ReplicateStage
from workers.task.unfinished import Unfinished, sentence
from workers.task.votes_in_lane import note_votes

log = structlog.get_logger(__name__)

#: Settings that may have changed since: votes stay with the contracts that they were sent to.
_CONTRACTS = ("chain_id", "hub", "workerpool")


def voted(replicates: Sequence[Replicate]) -> list[TaskId]:
    """Tasks whose vote may have to be revealed, by the journal; the chain says whether it has to be."""
    stages = (ReplicateStage.COMMITTED, ReplicateStage.REVEALED)
    return [item.task_id for item in replicates if item.stage in stages and not item.solo]


def has_voted(settings: Settings, key: Key) -> bool:
    """Whether this machine at rest has a task whose vote may have to be revealed, by what its last start saved."""
    known = load_pool_config(settings, key.wallet)
    chain_id = settings.chain_id if known is None else known.chain_id
    return bool(voted(replicates_left(layout_of(settings.home, key.wallet), LaneId(chain_id, key.wallet))))


def replicates_left(layout: Layout, lane: LaneId) -> list[Replicate]:
    """Every replicate of a machine at rest. `lane`: its wallet's.

    A machine that was stopped while it voted may have the vote in its lane, which sends it, and not in its journal:
    the journal is told first, as of the vote's moment.
    """
    if not layout.journal.exists():
        return []
    with closing(Journal(layout.journal)) as journal:
        if layout.lane.exists():
            with closing(SqliteStore(layout.lane)) as store:
                note_votes(journal, store, lane.chain_id, journal.all_replicates())
        return journal.all_replicates()


def former_machine(settings: Settings, key: Key, refusal: SluiceError) -> Machine | None:
    """The machine as of its last start, by the configuration of the pool that was saved then; None if none was.

    Used when the present configuration is refused. Raises BadSetting, WrongChain if it would need what is refused now;
    RpcUnavailable.
    """
    known = load_pool_config(settings, key.wallet)
    if known is None:
        return None
    former = settings.model_copy(update={"hub": None, "workerpool": None})
    former.model_fields_set.intersection_update(settings.model_fields_set - set(_CONTRACTS))
    own = complete_settings(former, known)
    away = isinstance(refusal, (PoolUnavailable, RpcUnavailable))
    machine = Machine(own, key, known, PoolApi.of(settings) if away else UnaskedApi(settings.api_url))
    pins.check(machine.layout, own, ())
    with closing(connect(own)) as rpc:
        # Whose workerpool it is now does not matter to votes that are sent.
        Hub(rpc, Contract(known.hub)).check_chain(own)
    return machine


def refuse(machine: Machine, refusal: SluiceError, left: Unfinished, alone: AbstractContextManager[None]) -> NoReturn:
    """Raise `refusal`, which keeps the machine from starting; first reveal the votes in `left`, if any.

    Meanwhile running apps are given back to the pool, and no new task is taken. `alone`: holds the machine's lock.
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
