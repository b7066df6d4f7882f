"""Why a machine gets work or does not, in words, from the same functions that match. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipeline.domain.machines.enrolment import Applicant, Listing, Mode, Policy, decide_listed
from pipeline.domain.match import Capacity, Obstacle, obstacle
from pipeline.domain.records import NEWCOMER_SLOTS, TaskRecord, WorkerRecord
from protocol.counts import count
from protocol.types import Wei

#: What keeps a machine from every task, in the order of the sentences.
_OF_THE_MACHINE = frozenset({Obstacle.BANNED, Obstacle.DRAINED, Obstacle.LOST, Obstacle.GAS, Obstacle.UNCHECKED})


def explain_worker(
    worker: WorkerRecord,
    waiting: Sequence[TaskRecord],
    now: float,
    lost_after: float,
    *,
    mode: Mode = Mode.OPEN,
    listing: Listing | None = None,
) -> list[str]:
    """Sentences: first what keeps the machine from every task, then how it stands to the tasks that wait.

    `waiting`: tasks that want workers, the most urgent first; `now`: Unix seconds; `lost_after`: seconds of silence;
    `mode`: who may sign in; `listing`: the list that the wallet is on, if any.
    """
    said = _of_itself(worker, now, lost_after, mode, listing)
    if not waiting:
        return [*said, "No task waits for a worker."]
    lost = worker.lost or worker.seen_at < now - lost_after
    capacity = Capacity.of(replace(worker, lost=lost))
    stands = Counter(obstacle(task, capacity, now) for task in waiting)
    many = len(waiting)
    for found, number in stands.most_common():
        if found not in _OF_THE_MACHINE:
            said.append(f"{number} of the {many} most urgent tasks that wait: {_to_task(found, capacity)}.")
    return said


def _of_itself(worker: WorkerRecord, now: float, lost_after: float, mode: Mode, listing: Listing | None) -> list[str]:
    """What keeps a machine from work whatever the task."""
    denied = listing is Listing.DENIED
    admitted = decide_listed(Policy(mode=mode), Applicant(listing=listing), now).admits
    silent = now - worker.seen_at
    cools_down = worker.rest_until - now
    left = count(len(worker.held), "task")
    checks = (
        # Whoever is denied is banned too, and an end of the ban alone would not let it in.
        (denied, f"It is on the deny list: `sluice enrol forget {worker.wallet}` takes it off."),
        (worker.banned and not denied, f"It is banned: `sluice worker unban {worker.wallet}`."),
        (
            not admitted and not denied,
            f"It is not on the list of those who may sign in (mode {mode}): `sluice enrol allow {worker.wallet}`.",
        ),
        (
            worker.drained,
            f"It is drained, with {left} to finish: `sluice worker undrain {worker.wallet}`.",
        ),
        (worker.away and not worker.banned, "It has signed off and comes back by itself when it is started."),
        (
            not worker.away and (worker.lost or silent > lost_after),
            f"Nothing was heard of it for {silent:.0f} s (it is lost after {lost_after:.0f} s): see that machine.",
        ),
        (
            worker.disconnected_at is not None and admitted and not worker.banned,
            "RabbitMQ says that it is not connected; it connects again by itself.",
        ),
        (
            not worker.checked_at,
            "Its balances were not read since it signed in; they are read when a task could go to it.",
        ),
        (
            bool(worker.checked_at) and not worker.facts.funded,
            f"Its wallet holds {_native(worker.facts.balance)}, too little for the gas of a task: send it some.",
        ),
        (
            cools_down > 0,
            f"It cools down for another {cools_down:.0f} s after {worker.failures} failures in a row.",
        ),
        (worker.free <= 0 and not worker.drained, _slots(worker)),
    )
    return [says for holds, says in checks if holds]


def _slots(worker: WorkerRecord) -> str:
    """Why no slot is free."""
    if len(worker.held) < worker.usable:
        return f"It has {len(worker.pledged)} computed results without a vote and gets no more until it votes."
    if worker.usable == worker.operator_slots:
        reason = f", limited by `sluice worker slots` (it has {worker.slots})"
    elif worker.usable < worker.slots:
        reason = f": new machines begin with {NEWCOMER_SLOTS}, and get 2 more of its {worker.slots} with each success"
    else:
        reason = ""
    return f"All {worker.usable} slots that it may use are taken{reason}."


def _to_task(found: Obstacle | None, capacity: Capacity) -> str:
    """Whether a machine may be given the waiting tasks, as part of a sentence."""
    return {
        None: "it may be given them now",
        Obstacle.ENCLAVE: "they are for enclaves and the pool does not serve them",
        Obstacle.TAG: "their tag demands what it does not offer",
        Obstacle.STAKE: f"a vote locks more than the {capacity.stake} nRLC of stake that it has free",
        Obstacle.NEWCOMERS: "they wait for a machine that was right on chain before",
        Obstacle.ASKED: "it had them before",
        Obstacle.COOLING_DOWN: "it could take them once it has cooled down",
        Obstacle.BUSY: "it could take them once a slot is free",
    }.get(found, "it cannot take them")


def _native(wei: Wei) -> str:
    """An amount of the native token."""
    return f"{wei / 10**18:.6g} of the native token"
