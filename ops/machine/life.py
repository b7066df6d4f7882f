"""`sluice worker stop | drain | logs | prune`: end a machine, read what it logged, remove what it does not need."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace

from chain.keystore import load_key
from config.settings import Settings
from ops.machine.here import machine_here
from protocol.errors import NotSignedIn, SluiceError
from protocol.wire import Session
from workers import control
from workers.care.prune import Leftover, prune
from workers.data.layout import Layout, layout_of
from workers.machine import left_unfinished
from workers.pool.api import PoolApi, SignedInApi
from workers.pool.saved_config import settings_from_pool
from workers.pool.session import SessionFile
from workers.task.journal import Journal
from workers.task.replicate import ReplicateStage
from workers.task.unfinished import Unfinished, sentence

#: Seconds for which a machine that stops is waited for: its processes get 20, and the sign-off some more.
STOP_SECONDS = 60.0
#: Seconds between two checks of the progress of a machine that drains; its end is noticed at once.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a machine was ended. `was_running`: whether it ran; `stopped`: whether it has ended; `says`: what is left, in
    words.
    """

    was_running: bool
    stopped: bool
    says: str
    unfinished: Unfinished


def layout(settings: Settings) -> Layout:
    """The folders of this machine's wallet. Raises BadKeystore, BadSetting, also where it has never run."""
    return machine_here(settings, load_key(settings).wallet)


def stop(settings: Settings, seconds: float = STOP_SECONDS) -> Ended:
    """End the machine and tell what is left unfinished. Nothing is lost: the next start goes on with it."""
    place = layout(settings)
    pid = control.running_process(place)
    stopped = pid is None or control.stop(pid, seconds)
    return _ended(settings, place, was_running=pid is not None, stopped=stopped)


def would_end(settings: Settings, *, drained: bool = False) -> Ended:
    """What `stop`, or `drain` if `drained`, would leave unfinished now; changes nothing."""
    place = layout(settings)
    running = control.running_process(place) is not None
    found = _ended(settings, place, was_running=running, stopped=True)
    if not running:
        return found
    says = f"Would drain: {_progress(place)}" if drained else found.says.replace("Stopped.", "Would be stopped.", 1)
    return replace(found, stopped=False, says=f"{says} Nothing was done.")


def drain(settings: Settings, deadline: float | None) -> Ended:
    """Ask the machine to take no new task, and wait until it has ended. `deadline`: seconds until what is not computed
    is given back to the pool; None: everything is finished first.
    """
    place = layout(settings)
    pid = control.running_process(place)
    if pid is None:
        return _ended(settings, place, was_running=False, stopped=True)
    control.ask_to_drain(place, None if deadline is None else time.time() + deadline)
    _sign_off(settings, place)
    said = ""
    while control.running_process(place) == pid:
        now = f"Draining: {_progress(place)}"
        if now != said:
            print(now, file=sys.stderr)
            said = now
        control.await_end(pid, _LOOK_SECONDS)
    return _ended(settings, place, was_running=True, stopped=True)


def cancel_drain(settings: Settings) -> None:
    """End the machine's drain: it takes tasks again from its next ping on."""
    control.end_drain(layout(settings))


def leftovers(settings: Settings, *, dry_run: bool) -> Iterator[Leftover]:
    """Remove files and containers of tasks that are over and unused datasets; yields each. `dry_run`: only yields."""
    wallet = load_key(settings).wallet
    return prune(layout_of(settings.home, wallet), wallet, settings.docker_host, dry_run=dry_run)


def _sign_off(settings: Settings, place: Layout) -> None:
    """Sign off at the pool, which then assigns this machine no new task; the machine repeats it with each ping."""

    def no_new() -> Session:
        """Raise NotSignedIn in place of a new session: a command does not sign in for the machine."""
        raise NotSignedIn(why="only the machine itself signs in")

    with closing(PoolApi.of(settings)) as api:
        session = SessionFile(place, no_new)
        try:
            SignedInApi(api, lambda: session.current().token, lambda old: old).leave(place.machine_id())
        except SluiceError as error:
            print(f"The pool was not told yet, the machine will: {error}", file=sys.stderr)


def _progress(place: Layout) -> str:
    """What a draining machine has left to do, as the end of a sentence."""
    with closing(Journal(place.journal)) as journal:
        stages = [item.stage for item in journal.all_replicates()]
    apps = sum(stage in (ReplicateStage.TAKEN, ReplicateStage.RUNNING) for stage in stages)
    votes = sum(stage in (ReplicateStage.COMPUTED, ReplicateStage.COMMITTED) for stage in stages)
    rest = sum(stage is ReplicateStage.REVEALED for stage in stages)
    return f"{apps} computing, {votes} to vote or reveal, {rest} revealed and not over."


def _ended(settings: Settings, place: Layout, *, was_running: bool, stopped: bool) -> Ended:
    """What `stop` and `drain` report: whether the machine has ended, and what it left unfinished."""
    now, wallet = time.time(), load_key(settings).wallet
    try:
        own = settings_from_pool(settings, wallet) if place.journal.exists() else settings
        left = left_unfinished(place, wallet, own, now)
    except SluiceError as error:
        return Ended(was_running, stopped, f"What is left unfinished is not known: {error}", Unfinished())
    says = sentence(left, now)
    if not stopped:
        says = "It has not ended yet: its processes are still at work."
    elif not was_running:
        says = says.replace("Stopped.", "This machine does not run.", 1)
    return Ended(was_running, stopped, says, left)


def as_json(found: Ended) -> str:
    """How the machine ended, as the JSON text of `sluice worker stop --json` and `drain --json`."""
    return json.dumps(asdict(found), indent=1)
