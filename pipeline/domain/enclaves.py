"""Tasks for enclaves: which of them the pool serves, and when the secret service is asked for a challenge. Pure.

A task's tag demands an enclave by bit 0 (`protocol.poco.tags`). The contract takes its result only with a signature by
the task's challenge, an address that the secret service gives once the task is active on chain.

    no challenge yet   the service is asked, and again while it gives none: that decides nothing
    challenge known    the task is like any other, for machines that offer its tag
    lost               a machine says that the service does not have it: the service is asked, and its answer counts;
                       with another challenge, the machines that had the former may be given the task anew
    never served       `explain` says why

Until the challenge is known a machine is wanted, so that the task counts as sold, and `match` gives it to none.

A task that the pool does not serve, or whose tag no machine that is there offers, is not initialized (`Postpone`): that
would cost gas for nothing. It takes no capacity from what the pool offers, and waits for a machine that comes
(`pipeline.flow.unserved`); past its final deadline, initialize and claim still free its stakes.
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.domain.actions import Method
from pipeline.domain.records import ReplicateState, TaskRecord
from pipeline.domain.replicas import Timeouts
from protocol.poco.tags import framework, needs_enclave_signature
from protocol.poco.view import ChainView, TaskStatus
from protocol.results.error_result import LOST_CHALLENGE, cause_code
from protocol.types import ZERO_ADDRESS, Contract
from protocol.wire import Step

#: The highest trust of a deal for enclaves: iExec's own, as one enclave's signature proves the result by itself.
MOST_TRUST = 1
#: Most doublings of the pause between two requests for a challenge: once the service is back, a task waits 8 times the
#: first pause at most, 40 s on a quick chain.
MOST_DOUBLINGS = 3
#: A placeholder for a challenge that is not known.
_SUPPOSED = Contract("0x" + "0" * 39 + "1")


def lacks_challenge(task: TaskRecord) -> bool:
    """Whether no machine may be given the task, as its result needs an enclave's challenge and none is known, or the
    secret service may have lost it.
    """
    return needs_enclave_signature(task.tag) and (task.challenge == ZERO_ADDRESS or challenge_found_lost(task))


def challenge_found_lost(task: TaskRecord) -> bool:
    """Whether a machine found that the secret service does not have the task's challenge, and the service has not given
    it since. While a machine is at work it may have a session with that challenge, whose result the contract takes.
    """
    found = [
        item.steps.get(Step.FAILED, 0.0)
        for item in task.replicates
        if item.state is ReplicateState.FAILED and cause_code(item.cause) == LOST_CHALLENGE
    ]
    return max(found, default=0.0) > task.challenge_told_at and not any(item.live for item in task.replicates)


def serves(task: TaskRecord, timeouts: Timeouts) -> bool:
    """Whether the pool serves tasks like this one, as far as it depends on the deal and the pool's secret services."""
    return framework(task.tag) in timeouts.enclaves and _unfit(task) is None


def awaits_challenge(task: TaskRecord, timeouts: Timeouts) -> bool:
    """Whether the pool serves tasks like this one, and only the challenge is missing."""
    return lacks_challenge(task) and serves(task, timeouts)


def awaits_initialize(task: TaskRecord) -> bool:
    """Whether a task is for an enclave, and its initialize was never handed over."""
    return needs_enclave_signature(task.tag) and Method.INITIALIZE not in {*task.sent, *task.failed}


def supposing_challenge(task: TaskRecord, timeouts: Timeouts) -> TaskRecord:
    """The task as if it had a challenge, if it lacks a machine, so that `match` names the machines' obstacles."""
    return replace(task, challenge=_SUPPOSED) if task.unserved and awaits_challenge(task, timeouts) else task


def challenge_due(task: TaskRecord, view: ChainView, timeouts: Timeouts) -> float | None:
    """When the secret service is to be asked for the task's challenge next: Unix seconds, at once if that has passed.
    None: not before something changes.
    """
    if view.status is not TaskStatus.ACTIVE or not awaits_challenge(task, timeouts):
        return None
    if not task.challenge_tries:
        return 0.0
    return task.challenge_asked_at + timeouts.reask * (1 << min(task.challenge_tries - 1, MOST_DOUBLINGS))


def why_unserved(task: TaskRecord) -> str:
    """Why no machine is given a task that lacks a challenge which the pool does not ask for, as a sentence."""
    unnamed = f"The pool names no secret service for {framework(task.tag)} (SLUICE_ENCLAVE_SMS_URL)"
    return _unfit(task) or f"{unnamed}, so it runs no such task."


def why_waiting(task: TaskRecord) -> str:
    """Why a task that awaits its challenge has none yet, as a sentence."""
    if challenge_found_lost(task) and not task.why:
        return "A machine found that the secret service does not have its enclave's challenge: the service is asked."
    if task.challenge_tries and task.why:
        return f"It waits for its enclave's challenge: {task.why.rstrip('.')}. The secret service is asked again."
    return "It waits for its enclave's challenge, which the secret service is asked for once the task is on chain."


def why_never_given(task: TaskRecord, timeouts: Timeouts) -> str:
    """Why no machine was given a task that is over and never had a challenge, as a sentence."""
    if task.challenge_tries and task.why:
        return f"No machine was given it, as its enclave had no challenge: {task.why.rstrip('.')}."
    if serves(task, timeouts):
        return f"No machine was given it: none that was there offered what its tag demands ({task.tag})."
    return f"No machine was given it. {why_unserved(task)}"


def _unfit(task: TaskRecord) -> str | None:
    """Why no enclave could serve the deal, whatever machines there are; None if one could."""
    if framework(task.tag) is None:
        return f"Its tag demands a kind of enclave that is not known ({task.tag})."
    if task.trust > MOST_TRUST:
        return f"A task for enclaves is served at trust {MOST_TRUST} only, and its deal demands {task.trust}."
    return None
