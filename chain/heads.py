"""New blocks as they come: a subscription over WebSocket or IPC as wake-up, polling when there is none.

    subscribed ──silence──► ask the node once, stay subscribed
        │  ▲
     cut│  │subscribed again (tried with growing pauses)
        ▼  │
     polling

A wake-up says "look now" and nothing else: the number may repeat (a reorg replaces blocks at the same height), fall
(a rollback) or skip. Whoever reads makes sure of the blocks itself.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from chain.ipc import IpcConnection
from chain.rpc import JsonRpc, redacted
from config.http_client import proxy_for
from protocol.errors import BadSetting, RpcError, RpcUnavailable
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)

#: Blocks of silence after which the node is asked, and the least seconds for that.
SILENT_BLOCKS = 2.0
SILENT_SECONDS = 2.0
#: Part of the block time between two polls: half, so that a block is seen half a block late on average at worst.
POLL_SHARE = 0.5
#: Shortest pause between two polls, seconds.
POLL_SECONDS = 0.1
#: Seconds that opening the WebSocket and subscribing may take, each.
OPEN_SECONDS = 2.0
#: Largest message taken: a header is 2 kB.
MESSAGE_BYTES = 2**20
#: Pauses between attempts to subscribe again: doubled from the first to the last, seconds.
RETRY_FIRST, RETRY_LAST = 1.0, 30.0
#: How often the thread that waits for `stop` looks whether it is still needed, seconds.
_GUARD_SECONDS = 1.0

#: What a socket of the same machine is written with in front of its path.
_IPC = "ipc:"

#: What makes a subscription impossible; polling goes on instead. ImportError: a SOCKS proxy without its package.
_DOWN = (OSError, WebSocketException, TimeoutError, ValueError, ImportError, BadSetting)


def heads(ws_url: str | None, rpc: JsonRpc, block_time: float, stop: threading.Event) -> Iterator[BlockNumber]:
    """Numbers of new heads, the first at once, until `stop` is set; a wake-up at least every two blocks or 2 s.

    While the node does not answer nothing comes, and it is asked again. `stop` ends the wait at once.
    """
    yield from _asked(rpc)
    pause = RETRY_FIRST
    while not stop.is_set():
        if ws_url is not None:
            began = time.monotonic()
            try:
                with _subscription(ws_url, stop) as connection:
                    log.info("Listening for new blocks.", action="heads_subscribed", node=redacted(ws_url))
                    yield from _listen(connection, rpc, block_time, stop)
            except _DOWN as error:
                log.warning(
                    "No subscription to new blocks; polling.",
                    action="heads_polling",
                    node=redacted(ws_url),
                    why=str(error) or type(error).__name__,
                )
            if time.monotonic() - began > RETRY_LAST:
                # It had been good for a while: it is a new failure, not the same one again.
                pause = RETRY_FIRST
        yield from _poll(rpc, block_time, stop, seconds=pause if ws_url is not None else None)
        pause = min(2 * pause, RETRY_LAST)


def _poll(rpc: JsonRpc, block_time: float, stop: threading.Event, *, seconds: float | None) -> Iterator[BlockNumber]:
    """Ask for the head again and again for so many seconds (None: for ever); yield it when it changed or is due."""
    began = time.monotonic()
    due, last = began, BlockNumber(-1)
    while not stop.wait(max(POLL_SECONDS, POLL_SHARE * block_time)):
        now = time.monotonic()
        for head in _asked(rpc):
            if head != last or now >= due:
                due, last = now + _silence(block_time), head
                yield head
        if seconds is not None and now - began >= seconds:
            return


def _listen(
    connection: ClientConnection | IpcConnection, rpc: JsonRpc, block_time: float, stop: threading.Event
) -> Iterator[BlockNumber]:
    """Heads from an open subscription until it ends; of several that wait already only the last.

    Raises TimeoutError when blocks come that it does not announce.
    """
    announced: BlockNumber | None = None
    for announced in _asked(rpc):
        yield announced
    while not stop.is_set():
        head = _received(connection, _silence(block_time))
        if head is not None:
            while (newer := _received(connection, 0)) is not None:
                head = newer
            announced = head
            yield head
            continue
        for asked in _asked(rpc):
            yield asked
            if announced is not None and asked > announced:
                raise TimeoutError(f"block {asked} came, but the last one announced is {announced}")


def _received(connection: ClientConnection | IpcConnection, seconds: float) -> BlockNumber | None:
    """The next head announced within so many seconds, None if there is none."""
    try:
        message = json.loads(connection.recv(timeout=seconds))
    except TimeoutError:
        return None
    header = message.get("params", {}).get("result", {})
    return BlockNumber(int(header["number"], 16)) if "number" in header else None


def _asked(rpc: JsonRpc) -> Iterator[BlockNumber]:
    """The head as the node says it, nothing if it says nothing."""
    try:
        yield BlockNumber(int(rpc.call("eth_blockNumber"), 16))
    except (RpcUnavailable, RpcError) as error:
        log.warning("The node does not tell its head.", action="head_unknown", why=str(error))


def _silence(block_time: float) -> float:
    return max(SILENT_BLOCKS * block_time, SILENT_SECONDS)


def _open(url: str) -> ClientConnection | IpcConnection:
    """A WebSocket, or for `ipc:/path` a node's own socket."""
    if url.startswith(_IPC):
        return IpcConnection(url.removeprefix(_IPC), OPEN_SECONDS)
    return connect(
        url, proxy=proxy_for(url), open_timeout=OPEN_SECONDS, close_timeout=OPEN_SECONDS, max_size=MESSAGE_BYTES
    )


@contextmanager
def _subscription(ws_url: str, stop: threading.Event) -> Iterator[ClientConnection | IpcConnection]:
    """An open newHeads subscription that breaks when `stop` is set. Raises one of _DOWN."""
    with _open(ws_url) as connection:
        over = threading.Event()
        guard = threading.Thread(target=_break_on_stop, args=(connection, stop, over), name="heads-stop", daemon=True)
        guard.start()
        try:
            connection.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
            answer: dict[str, Any] = json.loads(connection.recv(timeout=OPEN_SECONDS))
            if "result" not in answer:
                raise ValueError(answer.get("error", answer))
            yield connection
        finally:
            over.set()
            # Shut, not closed politely: a frozen node would let the closing handshake wait.
            _shut(connection)


def _break_on_stop(connection: ClientConnection | IpcConnection, stop: threading.Event, over: threading.Event) -> None:
    while not over.is_set():
        if stop.wait(_GUARD_SECONDS):
            _shut(connection)
            return


def _shut(connection: ClientConnection | IpcConnection) -> None:
    try:
        connection.socket.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("The socket was closed already.", action="heads_socket_closed", why=str(error))
