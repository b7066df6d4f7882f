"""New blocks as they come: a subscription over WebSocket or IPC as wake-up, polling when there is none.

    subscribed ──silence──► ask the node once, stay subscribed
        │  ▲
     cut│  │subscribed again (tried with growing pauses)
        ▼  │
     polling

A wake-up says "check now" and nothing else: the number may repeat (a reorg replaces blocks at the same height), fall
(a rollback) or skip. The caller checks the blocks itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator

import structlog

from chain.rpc.announced import Announced
from chain.rpc.answers import decode_reply, value_of
from chain.rpc.client import JsonRpc, redacted
from chain.rpc.subscription import Subscription, subscribe
from protocol.errors import RpcUnavailable
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)

#: Blocks of silence after which the node is asked, and the least seconds for that.
SILENT_BLOCKS = 2.0
SILENT_SECONDS = 2.0
#: Part of the block time between two polls: half, so that a block is seen half a block late on average at worst.
POLL_SHARE = 0.5
#: Shortest pause between two polls, seconds.
POLL_SECONDS = 0.1
#: Pauses between attempts to subscribe again: doubled from the first to the last, seconds.
RETRY_FIRST, RETRY_LAST = 1.0, 30.0


def heads(
    ws_url: str | None, rpc: JsonRpc, block_time: float, stop: threading.Event, announced: Announced | None = None
) -> Generator[BlockNumber, None, None]:
    """Numbers of new heads until `stop` is set, or the generator is closed; the first at once.

    Without a new head, the present one is repeated every two blocks, or 2 s if that is longer. While the node does not
    answer, nothing comes. `stop` ends the wait at once. `announced` gets the headers that come with the numbers.
    """
    announced = Announced() if announced is None else announced
    yield from _ask_head(rpc)
    pause = RETRY_FIRST
    while not stop.is_set():
        if ws_url is not None:
            began = time.monotonic()
            try:
                with subscribe(ws_url, stop, announced.begin()) as subscription:
                    log.info("Listening for new blocks.", action="heads_subscribed", node=redacted(ws_url))
                    yield from _subscribed_heads(subscription, rpc, block_time, stop, announced)
            except RpcUnavailable as error:
                log.warning(
                    "No subscription to new blocks; polling.",
                    action="heads_polling",
                    node=redacted(ws_url),
                    why=str(error),
                )
            finally:
                announced.forget()
            if time.monotonic() - began > RETRY_LAST:
                # It had worked for some time: this is a new failure, not the same one again.
                pause = RETRY_FIRST
        yield from _poll_heads(rpc, block_time, stop, seconds=pause if ws_url is not None else None)
        pause = min(2 * pause, RETRY_LAST)


def _poll_heads(
    rpc: JsonRpc, block_time: float, stop: threading.Event, *, seconds: float | None
) -> Iterator[BlockNumber]:
    """Heads found by polling for so many seconds (None: until `stop`), an unchanged one repeated now and then."""
    began = time.monotonic()
    due, last = began, BlockNumber(-1)
    while not stop.wait(max(POLL_SECONDS, POLL_SHARE * block_time)):
        now = time.monotonic()
        for head in _ask_head(rpc):
            if head != last or now >= due:
                due, last = now + _longest_silence(block_time), head
                yield head
        if seconds is not None and now - began >= seconds:
            return


def _subscribed_heads(
    subscription: Subscription, rpc: JsonRpc, block_time: float, stop: threading.Event, announced: Announced
) -> Iterator[BlockNumber]:
    """Heads from an open subscription until it ends; of several that wait, only the last.

    Raises RpcUnavailable when blocks come that the subscription does not announce: what it did announce is forgotten
    before that, since it is of an older head than the one that comes.
    """
    last: BlockNumber | None = None
    for last in _ask_head(rpc):
        yield last
    while not stop.is_set():
        head = subscription.next_head(_longest_silence(block_time))
        if head is not None:
            last = head
            yield head
            continue
        if stop.is_set():
            return
        for asked in _ask_head(rpc):
            missed = last is not None and asked > last
            if missed:
                announced.forget()
            yield asked
            if missed:
                why = f"block {asked} came, but the last one announced is {last}"
                raise RpcUnavailable(what="the subscription", why=why)


def _ask_head(rpc: JsonRpc) -> Iterator[BlockNumber]:
    """The node's head; nothing, and a warning in the log, if the node does not answer."""
    try:
        (answer,) = rpc.batch([("eth_blockNumber", ())])
        yield BlockNumber(value_of(decode_reply(answer, lambda number: int(number, 16)), rpc.name))
    except RpcUnavailable as error:
        log.warning("The node does not tell its head.", action="head_unknown", why=str(error))


def _longest_silence(block_time: float) -> float:
    """Seconds without a new head after which the present one is repeated."""
    return max(SILENT_BLOCKS * block_time, SILENT_SECONDS)
