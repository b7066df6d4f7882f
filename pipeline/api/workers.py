"""Routes of a worker machine: challenge, login, ping, sign off."""

from __future__ import annotations

import secrets
from functools import partial
from importlib.metadata import version
from typing import Annotated

import structlog
from fastapi import APIRouter, Header

from config import topology
from config.connections.broker_nodes import nodes_for, public_nodes
from config.http_server.address import Origin
from pipeline.api.auth.access import Access, SignedIn, refuse_banned
from pipeline.api.auth.challenges import RANDOM_BYTES, issue_challenge, reopen_challenge
from pipeline.api.auth.tokens import issue_token
from pipeline.broker.users import machine_user
from pipeline.domain.machines.enrolment import Listing
from pipeline.domain.records import WorkerRecord
from pipeline.flow.cleanup.tidy import remove_one_silent_machine
from pipeline.flow.machines import enrolment
from pipeline.flow.machines.bans import ban
from protocol.errors import NotFound, NotSignedIn, Refused
from protocol.types import Hash32, Signature, TaskId, Wallet
from protocol.wire import (
    PROTOCOL,
    PROTOCOL_HEADER,
    SECOND_MACHINE,
    BrokerAccess,
    Challenge,
    ChallengeRequest,
    HexAddress,
    Leave,
    Login,
    Ping,
    Pong,
    Session,
    WorkerModel,
)

log = structlog.get_logger(__name__)
router = APIRouter(tags=["workers"])


@router.post("/workers/challenge", summary="Ask for a sign-in challenge")
def challenge(request: ChallengeRequest, services: Access) -> Challenge:
    """EIP-712 typed data to sign with the wallet's key: good once, for five minutes, for this pool and chain only."""
    pool, settings = services.pool, services.settings
    signin = issue_challenge(
        services.keys.newest.challenge,
        settings.chain_id,
        pool.workerpool,
        Wallet(request.wallet),
        now=services.clock(),
        random=secrets.token_bytes(RANDOM_BYTES),
    )
    return Challenge(nonce=signin.nonce, expires_at=signin.expires_at, typed_data=dict(signin.typed_data))


@router.post("/workers/login", summary="Sign in")
def login(
    request: Login,
    services: Access,
    origin: Origin,
    spoken: Annotated[int, Header(alias=PROTOCOL_HEADER, ge=1, lt=2**31)] = 1,
) -> Session:
    """Answer a challenge; returns an API token (one hour) and a RabbitMQ user with a new password.

    The former password stops working; connections that are open stay. The machine's queues are declared here: the
    RabbitMQ user may only read its own two queues. Whether the wallet may sign in is decided before anything is made.
    """
    if spoken < PROTOCOL:
        raise Refused(
            why=f"this machine's Sluice ({request.capabilities.version}) is too old for this pool: it speaks protocol "
            f"{spoken}, the pool {PROTOCOL}; install the pool's release, {version('sluice')}, and start it again"
        )
    wallet, now = Wallet(request.wallet), services.clock()
    _check_signature(services, request, wallet, now)
    services.rates.count("sign_in_wallet", wallet)
    worker = services.store.workers.get_worker(wallet)
    refuse_banned(banned=worker is not None and worker.banned)
    if request.capabilities.slots > services.settings.worker_most_slots:
        raise Refused(
            why=f"this pool takes at most {services.settings.worker_most_slots} slots a machine, not "
            f"{request.capabilities.slots}: set SLUICE_SLOTS to that or less"
        )
    _refuse_second_machine(services, request, worker, now)

    facts = enrolment.facts_of(
        services.store.enrolment,
        services.settings,
        partial(enrolment.chain_facts, services.rpc, services.pool.hub),
        wallet,
        worker=worker,
        address=origin,
        code=request.invite,
    )
    check = partial(enrolment.admit, services.store.workers, services.store.enrolment, facts, now)
    with services.signing_in.entering(wallet, origin, check):
        silent_before = now - services.settings.worker_lost_seconds
        remove_one_silent_machine(
            services.store.workers, services.broker, wallet, facts.policy.most_machines, silent_before
        )
        password = _enrol(services, request, wallet, origin, now, new=worker is None)
    services.notifier.send_assign()
    name = request.capabilities.name
    services.relay.worker("online", wallet, ping_seconds=services.settings.ping_seconds, called=name)
    key = services.keys.newest
    token, expires_at = issue_token(key.id, key.token, wallet, services.clock())
    log.info("Worker signed in.", action="worker_login", wallet=wallet, slots=request.capabilities.slots)
    return Session(token=token, expires_at=expires_at, broker=_broker_access(services, wallet, password))


def _check_signature(services: Access, request: Login, wallet: Wallet, now: float) -> None:
    """Raise NotSignedIn unless the wallet signed a challenge of this pool, which then cannot be used again."""
    keys = [key.challenge for key in services.keys.verifying(services.clock())]
    signin = reopen_challenge(keys, services.settings.chain_id, services.pool.workerpool, wallet, Hash32(request.nonce))
    try:
        signin.check(Signature(request.signature.lower()), now)
    except Refused as error:
        raise NotSignedIn(why=str(error)) from error
    if not services.challenges.use(signin.nonce, signin.expires_at):
        raise NotSignedIn(why="the challenge was answered before")


def _enrol(services: Access, request: Login, wallet: Wallet, origin: str, now: float, *, new: bool) -> str:
    """Make the broker user and store the machine; returns the password. `new`: it never signed in. Raises Refused."""
    if request.take_over:
        _cut_off_other_machine(services, request, wallet)
    password = services.broker.enrol(wallet, new=new)
    worker = services.store.workers.enrol(wallet, request.capabilities, now, machine=request.machine, address=origin)
    if worker.banned or services.store.enrolment.listing(wallet) is Listing.DENIED:
        # Denied between the two looks: that has deleted the former user, not this one.
        ban(services.store.workers, services.broker, wallet, services.clock())
        raise Refused(why="this wallet is banned from the pool: ask its operator")
    return password


@router.post("/workers/ping", summary="Ping")
def ping(request: Ping, wallet: SignedIn, services: Access) -> Pong:
    """Lists the tasks the machine holds; the answer says which are over and which to stop at once."""
    services.rates.count_ping(wallet, len(request.tasks))
    name = services.store.workers.mark_seen(wallet, services.clock(), request.machine)
    if name is None:
        return Pong(forget=[], abort=[], superseded=True)
    forget, abort, unknown = services.store.tasks.verdicts_for_ping([TaskId(task) for task in request.tasks], wallet)
    services.relay.worker(
        "heartbeat",
        wallet,
        ping_seconds=services.settings.ping_seconds,
        active=len(request.tasks) - len(forget),
        called=name,
    )
    return Pong(forget=list(forget), abort=list(abort), unknown=list(unknown))


@router.post("/workers/leave", status_code=204, summary="Sign off")
def leave(request: Leave, wallet: SignedIn, services: Access) -> None:
    """The machine gets no new task until its next sign-in or ping; what it holds stays its own until it is lost."""
    services.rates.count("sign_in_wallet", wallet)
    worker = services.store.workers.get_worker(wallet)
    if worker is None or _is_another_machine(worker, request.machine):
        return
    if not services.store.workers.mark_leaving(wallet):
        return
    services.notifier.send_orders()
    services.relay.worker("offline", wallet, ping_seconds=services.settings.ping_seconds)
    log.info("Worker stops.", action="worker_left", wallet=wallet)


@router.get("/workers/{wallet}", summary="A worker machine")
def get_worker(wallet: HexAddress, services: Access) -> WorkerModel:
    """A machine that has signed in here, and what it is doing; 404 for any other wallet."""
    worker = services.store.workers.get_worker(Wallet(wallet))
    if worker is None:
        raise NotFound(what=f"worker {wallet}")
    return WorkerModel(
        wallet=worker.wallet,
        name=worker.name,
        version=worker.version,
        slots=worker.slots,
        usable=worker.usable,
        busy=len(worker.held),
        lost=worker.lost,
        away=worker.away,
        banned=worker.banned,
        seen_at=worker.seen_at,
    )


def _is_another_machine(worker: WorkerRecord, machine: str | None) -> bool:
    """Whether `machine` is another one than the one that signed in last."""
    return None not in (worker.machine, machine) and worker.machine != machine


def _refuse_second_machine(services: Access, request: Login, worker: WorkerRecord | None, now: float) -> None:
    """Raise Refused if another machine works with this wallet: each sign-in would disconnect the other."""
    if request.take_over or worker is None or not _is_another_machine(worker, request.machine):
        return
    silent, lost_after = now - worker.seen_at, services.settings.worker_lost_seconds
    if silent < lost_after and not worker.away:
        raise Refused(
            why=f"{SECOND_MACHINE} ({worker.name}) is at work with this wallet, heard of {max(silent, 0):.0f} s ago:"
            " stop that one or give this one a wallet of its own (if it is gone for good, wait"
            f" {lost_after - silent:.0f} s or start with --take-over)"
        )


def _cut_off_other_machine(services: Access, request: Login, wallet: Wallet) -> None:
    """Disconnect another machine with this wallet, if there is one; the answer to its next ping tells it why."""
    worker = services.store.workers.get_worker(wallet)
    if worker is not None and _is_another_machine(worker, request.machine):
        services.broker.revoke(wallet)
        log.warning("Another machine takes this wallet over.", action="worker_taken_over", wallet=wallet)


def _broker_access(services: Access, wallet: Wallet, password: str) -> BrokerAccess:
    """Where and by which password a machine connects to RabbitMQ, and its queues there."""
    settings = services.settings
    node, *others = nodes_for(wallet, public_nodes(settings))
    return BrokerAccess(
        host=node.host,
        port=node.port,
        tls=settings.amqp_public_tls,
        vhost=settings.amqp_pool_vhost,
        username=machine_user(settings.amqp_pool_vhost, wallet),
        password=password,
        exchange=topology.compute_queue_name(wallet),
        compute_queue=topology.compute_queue_name(wallet),
        tx_queue=topology.tx_queue_name(wallet),
        others=tuple(others),
    )
