"""Routes of a worker machine: challenge, login, ping, sign off."""

from __future__ import annotations

import secrets
from importlib.metadata import version
from typing import Annotated

import structlog
from fastapi import APIRouter, Header

from config import topology
from pipeline.api.auth.access import Access, SignedIn, refuse_banned
from pipeline.api.auth.challenges import RANDOM_BYTES, issue_challenge, reopen_challenge
from pipeline.api.auth.tokens import issue_token
from pipeline.domain.records import WorkerRecord
from protocol.errors import NotFound, NotSignedIn, Refused
from protocol.types import Hash32, Signature, TaskId, Wallet
from protocol.wire import (
    PROTOCOL,
    PROTOCOL_HEADER,
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
        services.keys.challenge,
        settings.chain_id,
        pool.workerpool,
        Wallet(request.wallet),
        now=services.clock(),
        random=secrets.token_bytes(RANDOM_BYTES),
    )
    return Challenge(nonce=signin.nonce, expires_at=signin.expires_at, typed_data=dict(signin.typed_data))


@router.post("/workers/login", summary="Sign in")
def login(
    request: Login, services: Access, spoken: Annotated[int, Header(alias=PROTOCOL_HEADER, ge=1, lt=2**31)] = 1
) -> Session:
    """Answer a challenge; returns an API token (one hour) and a RabbitMQ user with a new password.

    The former password stops working; connections that are open stay. The machine's queues are declared here: the
    RabbitMQ user may only read its own two queues.
    """
    if spoken < PROTOCOL:
        raise Refused(
            why=f"this machine's Sluice ({request.capabilities.version}) is too old for this pool: it speaks protocol "
            f"{spoken}, the pool {PROTOCOL}; install the pool's release, {version('sluice')}, and start it again"
        )
    wallet, now = Wallet(request.wallet), services.clock()
    signin = reopen_challenge(
        services.keys.challenge, services.settings.chain_id, services.pool.workerpool, wallet, Hash32(request.nonce)
    )
    try:
        signin.check(Signature(request.signature.lower()), now)
    except Refused as error:
        raise NotSignedIn(why=str(error)) from error
    if not services.challenges.use(signin.nonce, signin.expires_at):
        raise NotSignedIn(why="the challenge was answered before")
    refuse_banned(services, wallet, known=False)
    if request.capabilities.slots > services.settings.worker_most_slots:
        raise Refused(
            why=f"this pool takes at most {services.settings.worker_most_slots} slots a machine, not "
            f"{request.capabilities.slots}: set SLUICE_SLOTS to that or less"
        )
    _refuse_second_machine(services, request, wallet, now)
    password = services.broker.enrol(wallet)
    if services.store.workers.enrol(wallet, request.capabilities, now, machine=request.machine).banned:
        # Banned between the two looks: the ban has deleted the former user, not this one.
        services.broker.revoke(wallet)
        raise Refused(why="this wallet is banned from the pool")
    services.notifier.send_assign()
    name = request.capabilities.name
    services.relay.worker("online", wallet, ping_seconds=services.settings.ping_seconds, called=name)
    token, expires_at = issue_token(services.keys.token, wallet, now)
    log.info("Worker signed in.", action="worker_login", wallet=wallet, slots=request.capabilities.slots)
    return Session(token=token, expires_at=expires_at, broker=_broker_access(services, wallet, password))


@router.post("/workers/ping", summary="Ping")
def ping(request: Ping, wallet: SignedIn, services: Access) -> Pong:
    """Lists the tasks the machine holds; the answer says which are over and which to stop at once."""
    worker = services.store.workers.get_worker(wallet)
    if worker is not None and _is_another_machine(worker, request.machine):
        return Pong(forget=[], abort=[], superseded=True)
    services.store.workers.mark_seen(wallet, services.clock())
    forget, abort, unknown = services.store.tasks.verdicts_for_ping([TaskId(task) for task in request.tasks], wallet)
    services.relay.worker(
        "heartbeat",
        wallet,
        ping_seconds=services.settings.ping_seconds,
        active=len(request.tasks) - len(forget),
        called=worker.name if worker is not None else None,
    )
    return Pong(forget=list(forget), abort=list(abort), unknown=list(unknown))


@router.post("/workers/leave", status_code=204, summary="Sign off")
def leave(request: Leave, wallet: SignedIn, services: Access) -> None:
    """The machine gets no new task until its next sign-in or ping; what it holds stays its own until it is lost."""
    worker = services.store.workers.get_worker(wallet)
    if worker is None or _is_another_machine(worker, request.machine):
        return
    services.store.workers.mark_leaving(wallet)
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
        busy=len(worker.held),
        lost=worker.lost,
        away=worker.away,
        banned=worker.banned,
        seen_at=worker.seen_at,
    )


def _is_another_machine(worker: WorkerRecord, machine: str | None) -> bool:
    """Whether `machine` is another one than the one that signed in last."""
    return None not in (worker.machine, machine) and worker.machine != machine


def _refuse_second_machine(services: Access, request: Login, wallet: Wallet, now: float) -> None:
    """Raise Refused if another machine is at work with this wallet: the two would throw each other out.

    With `take_over` the other one is cut off from the broker, and learns it from its next ping's answer.
    """
    worker = services.store.workers.get_worker(wallet)
    if worker is None or not _is_another_machine(worker, request.machine):
        return
    silent, lost_after = now - worker.seen_at, services.settings.worker_lost_seconds
    if request.take_over:
        services.broker.revoke(wallet)
        log.warning("Another machine takes this wallet over.", action="worker_taken_over", wallet=wallet)
    elif silent < lost_after and not worker.away:
        raise Refused(
            why=f"another machine ({worker.name}) is at work with this wallet, heard of {max(silent, 0):.0f} s ago:"
            " stop that one or give this one a wallet of its own (if it is gone for good, wait"
            f" {lost_after - silent:.0f} s or start with --take-over)"
        )


def _broker_access(services: Access, wallet: Wallet, password: str) -> BrokerAccess:
    settings = services.settings
    return BrokerAccess(
        host=settings.amqp_public_host,
        port=settings.amqp_public_port,
        tls=settings.amqp_public_tls,
        vhost=settings.amqp_pool_vhost,
        username=wallet,
        password=password,
        exchange=topology.compute_queue_name(wallet),
        compute_queue=topology.compute_queue_name(wallet),
        tx_queue=topology.tx_queue_name(wallet),
    )
