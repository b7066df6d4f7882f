"""Route of a result's upload: nothing is stored in IPFS that the uploader did not vote for on chain.

PUT zip ─► a turn of the wallet: two send at a time, others wait a little; one without is let in no further than to be
           noted, `arrivals`
        ─► is it stored already?        then that is the answer, and the body is not read
        ─► has another worker's vote for the same result been stored? then its link, and the body is not read
        ─► may this wallet upload?      vote: it has contributed on chain      solo: the wallet is still at the task
        ─► of an enclave: has the task's challenge signed for the digest? see `enclaves`
        ─► temporary file, capped, at a least rate; with Content-Range see `parts`
        ─► digest recomputed from the zip ─► vote: keccak(task ‖ digest) is its contribution
        ─► what the digest covers is packed anew: files beside it are dropped
        ─► IPFS add, pinned (solo: later)              ─► link and digest into its replicate ─► `advance` published
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from config.metrics import RESULT_SECONDS, RESULTS_NOT_STORED
from pipeline.api.auth.access import Access, SignedIn, SignedInLately
from pipeline.api.reports import announce, on_chain, own_replicate
from pipeline.api.results import parts
from pipeline.api.results.arrivals import note_arrival, noted_while_served
from pipeline.api.results.enclaves import attestation_of, check_attested, is_encrypted
from pipeline.api.results.result_zip import MAX_UNPACKED_BYTES, CheckedResult, check_result, repack
from pipeline.api.results.upload_turns import LEAST_RATE, PER_WALLET, VERIFIED_AT_ONCE, UploadTurns, receive
from pipeline.domain.records import Replicate, ReplicateState, Standing, TaskRecord
from pipeline.store.pins import Pin
from protocol.errors import NotYet, Refused, RoomTaken, StorageUnavailable, Unavailable
from protocol.ethereum.hexbytes import to_bytes_leniently, to_hex
from protocol.poco.seal import result_hash
from protocol.poco.view import ChainView, ContributionStatus, fold
from protocol.results.attestation import Attestation
from protocol.results.resumed_upload import DIGEST_HEADER, OFFSET_HEADER, Rest, read_digest
from protocol.results.zip_rules import largest_zip
from protocol.types import ZERO_HASH, Hash32, TaskId, Wallet
from protocol.wire import HexId, Mode, Report, ResultLink, Step, Stored

log = structlog.get_logger(__name__)
router = APIRouter(tags=["workers"])

#: Bytes of a zip that is uploaded before another winner is asked, at the least rate that the API takes.
QUICK_BYTES = LEAST_RATE * 15

_turns = UploadTurns()
_verifying = asyncio.Semaphore(VERIFIED_AT_ONCE)


@router.head("/tasks/{task_id}/result", summary="How much of a result is here", status_code=204)
def result_held(
    task_id: HexId, wallet: SignedInLately, services: Access, digest: Annotated[str, Header(alias=DIGEST_HEADER)] = ""
) -> Response:
    """How many bytes are here of a result's zip whose upload was cut, in the header Upload-Offset. The upload goes on
    there.
    """
    services.rates.count("upload", wallet)
    held = parts.bytes_held(services.uploads, TaskId(task_id), wallet, read_digest(digest))
    return Response(status_code=204, headers={OFFSET_HEADER: str(held)})


@router.put("/tasks/{task_id}/result", summary="Store a result")
async def put_result(task_id: HexId, request: Request, wallet: SignedIn, services: Access) -> Stored:
    """Body: the zip of `/iexec_out`. Its digest is recomputed and must be the one this wallet voted for; for a task
    without a vote (trust 1) the wallet must hold the task. Once a result is stored, that one is the answer to whatever
    is sent. With Content-Range and Repr-Digest the body is the rest of a zip of which HEAD says how much is here.
    """
    begun, largest = services.clock(), largest_zip(services.settings.max_result_bytes)
    services.rates.count("upload", wallet)
    rest = Rest.of(request.headers, largest)
    total = declared_bytes(request.headers, largest) if rest is None else rest.total
    # First: meanwhile the machine's report that it computed comes, which has read the task.
    turn = await _turns.has_turn(wallet, TaskId(task_id))
    with _turns.receiving(wallet, TaskId(task_id)) if turn else nullcontext():
        found = services.computed.take(TaskId(task_id), wallet)
        if found is None:
            found = await run_in_threadpool(own_replicate, services, TaskId(task_id), wallet)
        return await _receive(services, *found, request, rest, total, begun, turn=turn)


async def _receive(
    services: Access,
    task: TaskRecord,
    replicate: Replicate,
    request: Request,
    rest: Rest | None,
    total: int,
    begun: float,
    *,
    turn: bool,
) -> Stored:
    """Receive and store a result, unless one is stored or this one may not be. `total`: its bytes, at most; `begun`:
    when its request came, Unix seconds; `turn`: without one, the body is not read. Raises Refused, NotYet, Unavailable,
    BadMessage.
    """
    wallet = replicate.wallet
    if replicate.link is not None and replicate.digest is not None:
        return Stored(link=replicate.link, digest=replicate.digest)
    # A machine that works alone votes and reveals with the result's link: nothing of it is on chain yet.
    alone = replicate.mode is Mode.SOLO
    view = fold(task.task_id, (), category_seconds=0) if alone else await run_in_threadpool(on_chain, services, task)
    try:
        check_may_upload(task, replicate, view)
        attested = attestation_of(task, wallet, request.headers)
    except Refused:
        parts.remove_parts(services.uploads, task.task_id, wallet)
        raise
    twin = same_result(task, replicate, view)
    if twin is not None:
        return await run_in_threadpool(_share, services, task, replicate, twin, begun)
    await _note_on_its_way(services, task, replicate, total, turn=turn)
    if not turn:
        raise Unavailable(what="a further upload", why=f"this wallet is sending {PER_WALLET} results already")
    # Twice: what comes, and what is stored of it.
    needed = 2 * total
    proven = replicate.standing is Standing.PROVEN
    room = _turns.room(
        services.uploads,
        needed,
        lambda: parts.remove_all_idle(services.uploads),
        proven=proven,
        processes=services.settings.api_processes,
    )
    try:
        with _file(services, task, wallet, rest) as path, room:
            async with noted_while_served(services, task, replicate):
                if rest is None:
                    # The cap is `BodyLimit`'s.
                    await receive(request.stream(), path)
                else:
                    await receive(request.stream(), path, first=rest.first, most=rest.length)
                async with _verifying:
                    if rest is not None:
                        await run_in_threadpool(parts.check_whole, path, rest)
                    return await run_in_threadpool(_store, services, task, replicate, view, path, begun, attested)
    except ClientDisconnect as error:
        # Nobody reads the answer; without one the server would log a failure of ours.
        log.info("An upload was cut.", action="upload_cut", task=task.task_id, wallet=wallet)
        raise Unavailable(what="the worker", why="its connection ended") from error
    except (StorageUnavailable, OSError) as error:
        await _note_not_stored(services, task, replicate, error)
        if isinstance(error, StorageUnavailable):
            raise
        raise StorageUnavailable(what="the pool's disk", why=str(error)) from error


async def _note_not_stored(services: Access, task: TaskRecord, replicate: Replicate, error: Exception) -> None:
    """Note that the pool could not store a result: its machine is not to blame, and the disk may be full."""
    RESULTS_NOT_STORED.inc()
    if not isinstance(error, RoomTaken):
        # Sizes that machines claim hold up nobody else's work.
        services.refusals.refused(str(error))
        # Of several processes at the port, only the first looks after the pool's health all the time.
        services.monitor.start()
    log.warning("A result could not be stored.", action="result_not_stored", task=task.task_id, why=str(error))
    if replicate.not_stored_at is None:
        note = services.store.uploads.record_not_stored
        await run_in_threadpool(note, task.task_id, replicate.wallet, services.clock())


async def _note_on_its_way(services: Access, task: TaskRecord, replicate: Replicate, total: int, *, turn: bool) -> None:
    """Note that a large result is on its way, or one that waits too long for others of its machine (no `turn`): that
    machine is not to blame if another winner is asked meanwhile, or if it works alone and cannot vote before the result
    is stored.
    """
    if total > QUICK_BYTES and replicate.upload_begun_at is None:
        note = services.store.uploads.record_begun
        await run_in_threadpool(note, task.task_id, replicate.wallet, services.clock())
    if not turn:
        await note_arrival(services, task, replicate)


def declared_bytes(headers: Mapping[str, str], most: int) -> int:
    """The body's length as its header says, which uvicorn holds it to; `most` if it does not say. A body in chunks may
    have any length, whatever is declared beside them (RFC 9112, 6.3).
    """
    declared = "" if "transfer-encoding" in headers else headers.get("content-length", "")
    return min(int(declared), most) if declared.isascii() and declared.isdigit() else most


def check_may_upload(task: TaskRecord, replicate: Replicate, view: ChainView) -> None:
    """Refuse an upload that no digest could make valid, before its body is read. Raises Refused, NotYet."""
    if replicate.link is not None:
        return
    if replicate.mode is Mode.SOLO:
        if not task.open:
            raise Refused(why="the task is over")
        # A machine that the pool did not hear of meanwhile may still bring what it had computed before.
        if not (replicate.live or (replicate.state is ReplicateState.LOST and Step.COMPUTED in replicate.steps)):
            raise Refused(why=f"this wallet's attempt at the task is over: {replicate.state}")
        return
    vote = view.contribution(replicate.wallet)
    if vote is None:
        raise NotYet(what=f"a contribution of {replicate.wallet}", why="a result can be stored once it is voted for")
    if vote.status is ContributionStatus.REJECTED or view.consensus not in {None, vote.result_hash}:
        raise Refused(why="the vote went against this wallet's result")


def check_digest(replicate: Replicate, view: ChainView, task_id: TaskId, digest: Hash32) -> None:
    """Raise Refused unless this digest may be stored for this replicate."""
    if replicate.digest is not None and replicate.digest != digest:
        raise Refused(why="another result of this wallet is stored already")
    vote = view.contribution(replicate.wallet)
    if replicate.mode is Mode.VOTE and (vote is None or vote.result_hash != result_hash(task_id, digest)):
        raise Refused(why="the result is not the one that this wallet voted for")


def same_result(task: TaskRecord, replicate: Replicate, view: ChainView) -> Replicate | None:
    """Another replicate of the task with the same vote whose result is stored: this one's need not be sent again."""
    vote = view.contribution(replicate.wallet)
    if replicate.mode is not Mode.VOTE or vote is None:
        return None
    stored = (other for other in task.replicates if other.link is not None and other.digest is not None)
    return next((it for it in stored if result_hash(task.task_id, it.digest or ZERO_HASH) == vote.result_hash), None)


def _share(services: Access, task: TaskRecord, replicate: Replicate, twin: Replicate, begun: float) -> Stored:
    """Record the stored result of another worker as this worker's too."""
    assert twin.link is not None
    assert twin.digest is not None
    return _note(services, task, replicate, Stored(link=twin.link, digest=twin.digest), twin.callback_data, begun)


def _note(
    services: Access, task: TaskRecord, replicate: Replicate, stored: Stored, callback_data: str | None, begun: float
) -> Stored:
    """Store that a result is kept, show the upload in Flower, and return what the machine is told."""
    link = stored.link
    parts.remove_parts(services.uploads, task.task_id, replicate.wallet)
    services.store.tasks.record_upload(
        task.task_id, replicate.wallet, link, Hash32(stored.digest), callback_data, services.clock()
    )
    seconds = max(0.0, services.clock() - begun)
    RESULT_SECONDS.observe(seconds)
    announce(services, task, replicate, Report(step=Step.UPLOADED, seconds=seconds))
    log.info("Result stored.", action="result_stored", task=task.task_id, wallet=replicate.wallet, link=link.location)
    return stored


def _file(services: Access, task: TaskRecord, wallet: Wallet, rest: Rest | None) -> AbstractContextManager[Path]:
    """The file to write a body to: a new one, or the one with the earlier part of the same zip."""
    if rest is None:
        return _temporary(services.uploads)
    return parts.part_of(services.uploads, task.task_id, wallet, rest)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A file for an upload that is removed after the block."""
    descriptor, name = tempfile.mkstemp(dir=folder, suffix=".zip")
    os.close(descriptor)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _store(
    services: Access,
    task: TaskRecord,
    replicate: Replicate,
    view: ChainView,
    path: Path,
    begun: float,
    attested: Attestation | None,
) -> Stored:
    """Check a whole body and put it where the requester finds it. `begun`: when its request came, Unix seconds;
    `attested`: what its enclave says of it, if it has one.
    """
    checked = _check(services, task, path, attested)
    check_digest(replicate, view, task.task_id, checked.digest)
    if replicate.link is not None:
        return Stored(link=replicate.link, digest=checked.digest)
    link = _link(services, task, replicate, checked, path)
    data = None if checked.computed is None else checked.computed.callback_data
    callback_data = None if data is None else to_hex(to_bytes_leniently(data))
    return _note(services, task, replicate, Stored(link=link, digest=checked.digest), callback_data, begun)


def _check(services: Access, task: TaskRecord, path: Path, attested: Attestation | None) -> CheckedResult:
    """Check a result's zip, by the rules for those signed in an enclave if it is one. Raises BadMessage,
    Unavailable.
    """
    unpacked = _most_unpacked(services)
    if attested is None:
        return check_result(path, callback=task.has_callback, max_unpacked=unpacked)
    deals = services.store.deals.load_deals([task.deal_id])
    if not deals:
        raise Unavailable(what="the database", why=f"it does not show the deal {task.deal_id} now")
    return check_attested(path, task, attested, encrypted=is_encrypted(deals[0].params, task), max_unpacked=unpacked)


def _most_unpacked(services: Access) -> int:
    """Bytes that a zip may unpack to: MAX_UNPACKED_BYTES, or SLUICE_MAX_RESULT_BYTES if that is more."""
    return max(MAX_UNPACKED_BYTES, services.settings.max_result_bytes)


def _link(services: Access, task: TaskRecord, replicate: Replicate, checked: CheckedResult, path: Path) -> ResultLink:
    """Where the requester finds the result: IPFS, or for a callback the contract that gets it (iexec-worker 9.2).

    A voted one is pinned at once, as votes take their time; one that nobody voted for once its task is completed on
    chain: its link is part of the transaction, so it is stored before that is sent. Either is kept only if the chain
    completes the task with it (`pipeline.flow.cleanup.keep_results`).
    """
    if checked.computed is not None and checked.computed.callback_data is not None:
        return ResultLink(storage="ethereum", location=task.callback)
    with _temporary(services.uploads) as clean:
        repack(path, clean, checked, max_unpacked=_most_unpacked(services))
        voted, now = replicate.mode is Mode.VOTE, services.clock()
        cid = services.ipfs.add(clean, f"iexec-result-{task.task_id}", pin=voted)
    services.refusals.stored()
    services.store.pins.put(Pin(cid, task.task_id, pinned=voted, stored_at=now), look_at=now)
    return ResultLink(storage="ipfs", location=f"/ipfs/{cid}")
