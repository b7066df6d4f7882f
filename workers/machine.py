"""One worker machine as one command: signs in, then keeps three processes alive until SIGTERM.

    compute   Celery on `w.<wallet>`       slots + 1 processes: one may always upload
    tx        Celery on `w.<wallet>.tx`    one process: reveal, abort
    upkeep    the wallet's lane, new blocks, ping, tasks whose message was lost

Any of them, or all, may be killed at any time: all state is in the journal, the lane's SQLite file and the containers.
`workers.celery` is the same as a plain Celery app.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import NoReturn, TypeVar

import structlog
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
    wait_fixed,
)

from chain.contracts.hub import Hub
from chain.keystore import load_key
from chain.lane.model.intent import LaneId
from chain.rpc.library import preload_web3
from chain.rpc.pool import connect
from config.celery_apps import consume, warm_up
from config.processes.supervisor import Supervisor
from config.settings import Settings
from protocol.errors import (
    BadInput,
    BadSetting,
    EngineUnavailable,
    PoolUnavailable,
    RpcError,
    RpcUnavailable,
    SluiceError,
    Unavailable,
    WrongChain,
)
from protocol.ethereum.signing import Key
from protocol.poco.view import ChainView
from protocol.types import Contract, Wallet
from protocol.wire import SECOND_MACHINE, PoolConfig
from workers import control, log_file, votes_first
from workers.care import left_enclaves, upkeep_process
from workers.context import Machine
from workers.data.layout import Layout, layout_of
from workers.money import pins
from workers.pool.api import PoolApi
from workers.pool.broker import celery_app, sign_in_if_refused
from workers.pool.broker_reach import require_tls
from workers.pool.release import upgrade_notice
from workers.pool.saved_config import save_pool_config
from workers.pool.settings import check_scheduler, complete_settings
from workers.sandbox.engine.container import Engine
from workers.sandbox.profile import NetworkAccess
from workers.sandbox.rehearsal import rehearse
from workers.task.unfinished import Unfinished, sentence, unfinished

log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")

#: Seconds to wait at start for a pool or a node that does not answer: it may be starting as well.
START_TIMEOUT = 60.0
#: Seconds to wait for a killed predecessor's processes to go.
PREDECESSOR_TIMEOUT = 10.0
#: Uploads must not wait behind containers.
SPARE_PROCESSES = 1


def run(settings: Settings, *, take_over: bool = False) -> None:
    """Run a worker machine until SIGTERM. `take_over`: cut off another machine that works with this wallet.

    Raises BadSetting, BadKeystore, WrongChain, RpcUnavailable, EngineUnavailable, PoolUnavailable, Refused before
    anything is started.
    """
    with signed_in(settings, take_over=take_over) as machine:
        app = celery_app(machine)
        warm_up(app)
        preload_web3()

        def work(queue: str, name: str, processes: int) -> None:
            """Main of a Celery worker process: consume one of the machine's queues until SIGTERM."""
            sign_in_if_refused(app, machine)
            consume(app, (queue,), name=name, processes=processes, log_level=settings.log_level)

        access = machine.session.current().broker
        Supervisor(
            {
                "compute": partial(work, access.compute_queue, "compute", machine.slots.count + SPARE_PROCESSES),
                "tx": partial(work, access.tx_queue, "tx", 1),
                "upkeep": partial(upkeep_process.run, app, machine),
            },
            pid_dir=settings.home / "run",
            resumable=frozenset({"compute"}),
        ).run()
        _log_unfinished(machine)


@contextmanager
def signed_in(settings: Settings, *, take_over: bool = False) -> Iterator[Machine]:
    """A machine that has signed in and may work with its wallet alone until the block ends. Raises as `run` does."""
    key = load_key(settings)
    left_enclaves.clear(layout_of(settings.home, key.wallet), key.wallet, settings.docker_host)
    machine = _prepared(settings, key)
    try:
        _require_enclaves(machine)
    except (BadSetting, EngineUnavailable) as refusal:
        # To reveal its votes, it may have to sign in, and then it offers nothing.
        _refuse(replace(machine, settings=machine.settings.model_copy(update={"enclave": "none"})), refusal)
    try:
        _try_engine(machine)
    except (BadSetting, EngineUnavailable) as refusal:
        _refuse(machine, refusal)
    pins.keep(machine.layout, machine.settings)
    save_pool_config(machine.settings, machine.wallet, machine.pool)
    with _machine_lock(machine.layout, machine.key):
        control.note_process(machine.layout)
        control.end_drain(machine.layout)
        try:
            _until_answered(partial(_sign_in, machine, take_over=take_over))
        except (BadInput, Unavailable) as refusal:
            if SECOND_MACHINE in str(refusal):
                # Two that send with one wallet stop each other's transactions.
                raise
            _refuse(machine, refusal, locked=True)
        log.info(
            "Signed in.",
            action="machine_started",
            wallet=machine.wallet,
            pool=machine.pool.workerpool,
            slots=machine.slots.count,
            bound=machine.slots.bound,
        )
        if (notice := upgrade_notice(machine.pool.version)) is not None:
            log.warning(notice, action="upgrade_available", pool=machine.pool.version)
        yield machine


def _log_unfinished(machine: Machine) -> None:
    """Log, as the last line, what is unfinished and until when the machine must be started again."""
    now = time.time()
    left = left_unfinished(machine.layout, machine.wallet, machine.settings, now)
    log.info(sentence(left, now), action="machine_stopped", **asdict(left))


def left_unfinished(layout: Layout, wallet: Wallet, settings: Settings, now: float) -> Unfinished:
    """What a machine that does not run has left unfinished. `settings` completed by the pool's; `now`: Unix seconds."""
    replicates = votes_first.replicates_left(layout, LaneId(settings.chain_id, wallet))
    voted = votes_first.voted(replicates)
    views: list[ChainView] = []
    if voted:
        try:
            with closing(connect(settings)) as rpc:
                views = Hub(rpc, Contract(str(settings.hub))).tasks(voted)
        except (RpcError, RpcUnavailable):
            log.warning("The chain was not asked; the times below are the earliest possible.", action="views_unknown")
    return unfinished(replicates, {view.task_id: view for view in views}, wallet, now)


def _refuse(machine: Machine, refusal: SluiceError, *, locked: bool = False) -> NoReturn:
    """Raise `refusal`, once votes are revealed. `locked`: the machine's lock is held."""
    left = left_unfinished(machine.layout, machine.wallet, machine.settings, time.time())
    alone = nullcontext() if locked else _machine_lock(machine.layout, machine.key)
    votes_first.refuse(machine, refusal, left, alone)


def _sign_in(machine: Machine, *, take_over: bool) -> None:
    """Sign in at the pool. Raises BadSetting also for a broker without encryption."""
    access = machine.session.renew(None, partial(machine.sign_in, take_over=take_over)).broker
    require_tls(access.nodes, tls=access.tls, allowed=machine.settings.allow_plaintext)


def _prepared(settings: Settings, key: Key) -> Machine:
    """The machine, once all that it needs of pool and node is checked.

    Refusals come after the votes are revealed that can be without what is refused. Raises as `run`.
    """
    while True:
        try:
            return _checked(settings, key)
        except (BadSetting, PoolUnavailable, RpcUnavailable, WrongChain) as refusal:
            if not votes_first.has_voted(settings, key):
                raise
            _refuse_by_former(settings, key, refusal)


def _refuse_by_former(settings: Settings, key: Key, refusal: SluiceError) -> None:
    """Raise `refusal`, but first reveal votes by what the last start checked. Returns if the node does not answer: then
    pool and node are to be asked again.
    """
    try:
        former = _until_answered(partial(votes_first.former_machine, settings, key, refusal))
    except (BadSetting, WrongChain) as error:
        why = f"Votes wait to be revealed, and cannot be without what is refused: {error}"
        log.error(why, action="votes_left", why=str(error))  # noqa: TRY400 - the refusal is raised
        raise refusal from error
    except RpcUnavailable as away:
        why = f"{refusal} Votes wait to be revealed, so the start is tried again until the node answers."
        log.error(why, action="node_awaited", why=str(away))  # noqa: TRY400 - it is no surprise
        return
    if former is None:
        raise refusal
    log_file.keep(former.layout)
    _refuse(former, refusal)


def _checked(settings: Settings, key: Key) -> Machine:
    """Check pool and node; read from the pool's `/config` what the settings leave open. Raises BadSetting,
    PoolUnavailable, WrongChain, RpcUnavailable.
    """
    api = PoolApi.of(settings)
    pool = _until_answered(api.config)
    require_tls(pool.broker_nodes, tls=pool.amqp_tls, allowed=settings.allow_plaintext)
    own = _until_answered(partial(_settings_checked_at_node, settings, pool, key.wallet))
    api.close()
    machine = Machine(own, key, pool, api)
    machine.layout.make()
    log_file.keep(machine.layout)
    return machine


def _require_enclaves(machine: Machine) -> None:
    """Raise BadSetting for a kind of enclave that this machine cannot run, EngineUnavailable."""
    if machine.framework is not None:
        if machine.settings.enclave == "simulated":
            why = "Enclaves are simulated: this machine's owner can read what tasks for enclaves get."
            log.warning(why, action="enclave_simulated", wallet=machine.wallet, tag=machine.framework.tag)
        with closing(Engine(machine.settings.docker_host)) as engine:
            machine.framework.require(engine, machine.layout)


def _try_engine(machine: Machine) -> None:
    """Run a container as apps' are. Raises BadSetting, EngineUnavailable."""
    with closing(Engine(machine.settings.docker_host)) as engine:
        engine.require_reach(os.geteuid())
    rehearsed = rehearse(machine)
    for noted in (machine.layout.unconfined, machine.layout.unfit):
        noted.unlink(missing_ok=True)
    log.info(
        "Docker runs containers as asked.",
        action="engine_rehearsed",
        slot=rehearsed.slot,
        sandbox=str(machine.sandbox.profile),
        network=rehearsed.network,
    )
    if machine.sandbox.network is NetworkAccess.OPEN:
        log.warning("Apps reach this machine and its network.", action="app_network_open", wallet=machine.wallet)


def _settings_checked_at_node(settings: Settings, pool: PoolConfig, wallet: Wallet) -> Settings:
    """The settings, completed by the pool's, once they are those of the first start, and the node is on their chain and
    knows their contracts.

    Raises BadSetting, WrongChain, RpcUnavailable.
    """
    own = complete_settings(settings, pool)
    pins.check(layout_of(settings.home, wallet), own, settings.model_fields_set)
    with closing(connect(own)) as rpc:
        hub = Hub(rpc, Contract(pool.hub))
        hub.check_chain(own)
        check_scheduler(hub, pool)
    return own


def _until_answered(ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns, called again for up to START_TIMEOUT while pool or node does not answer.

    Raises PoolUnavailable, RpcUnavailable in the end.
    """

    def warn(state: RetryCallState) -> None:
        """Log that an answer is awaited; tenacity calls it before each further try."""
        error = state.outcome.exception() if state.outcome else None
        action = "node_awaited" if isinstance(error, RpcUnavailable) else "pool_awaited"
        log.warning("No answer yet, asking again.", action=action, attempt=state.attempt_number, why=str(error))

    retrying = Retrying(
        retry=retry_if_exception(_may_answer_yet),
        wait=wait_exponential(multiplier=0.2, max=3.0),
        stop=stop_after_delay(START_TIMEOUT),
        before_sleep=warn,
        reraise=True,
    )
    return retrying(ask)


def _may_answer_yet(error: BaseException) -> bool:
    """Whether pool or node is asked again at a start; nodes of another chain are not."""
    return isinstance(error, (PoolUnavailable, RpcUnavailable)) and not isinstance(error, WrongChain)


@contextmanager
def _machine_lock(layout: Layout, key: Key) -> Iterator[None]:
    """Hold the machine's lock: two machines with one wallet would share a journal. Children share it by inheritance,
    so it is free only when the last of them is gone. Raises BadSetting.
    """

    def take() -> ExitStack:
        """The lock, to be released by the caller. Raises BadSetting while another process has it."""
        with ExitStack() as stack:
            if stack.enter_context(layout.lock(control.LOCK, wait=False)):
                return stack.pop_all()
        raise BadSetting(
            name="SLUICE_KEYSTORE",
            why=f"wallet {key.wallet} is at work in another process of this machine",
            fix="Stop that one, or give each worker a wallet and a SLUICE_HOME of its own.",
        )

    retrying = Retrying(
        retry=retry_if_exception_type(BadSetting),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(PREDECESSOR_TIMEOUT),
        reraise=True,
    )
    with retrying(take):
        yield
