"""A subscription to new block headers over a node's WebSocket or IPC socket, by web3.py's persistent providers.

    thread with an asyncio loop: web3 newHeads subscription ─► queue ─► Subscription.next in the caller's thread

The providers are asynchronous and the rest of Sluice is not, so the loop has a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from websockets.exceptions import InvalidStatus

from chain.rpc.announced import HeaderJson, OnHeader
from chain.rpc.client import redacted
from chain.rpc.library import load_web3
from config.connections.http_client import proxy_for
from protocol.errors import RpcUnavailable
from protocol.ethereum.hexbytes import to_hex
from protocol.types import BlockNumber

#: Seconds that connecting, subscribing and closing may take, each.
OPEN_SECONDS = 2.0
#: Largest message taken, bytes: a header is 2 kB.
MESSAGE_BYTES = 2**20
#: A node's own socket on this machine is written as this and its path.
_IPC = "ipc:"
#: Seconds between checks of the thread that waits for `stop` whether it is still needed.
_STOP_CHECK_SECONDS = 10.0


class _Subscribed:
    """Queued once the node has confirmed the subscription."""


class _Stopped:
    """Queued when the subscription is not needed any more."""


_Item = BlockNumber | _Subscribed | _Stopped | Exception


class Subscription:
    """An open newHeads subscription at `url`. `on_header` is called before a header's number is queued."""

    def __init__(self, url: str, on_header: OnHeader = lambda *_: None) -> None:
        self._url = url
        self._on_header = on_header
        self._items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def next_head(self, seconds: float) -> BlockNumber | None:
        """The newest block number announced within `seconds`; None if none was, or if `end` was called.

        Raises RpcUnavailable once the subscription has ended.
        """
        try:
            item = self._items.get(timeout=max(seconds, 0.0))
            while isinstance(item, int) and not self._items.empty():
                item = self._items.get()
        except queue.Empty:
            return None
        if isinstance(item, Exception):
            raise RpcUnavailable(what=redacted(self._url), why=_reason_words(item)) from item
        return item if isinstance(item, int) else None

    def run(self) -> None:
        """Body of the subscription's thread: subscribe, queue announced blocks, and last the error that ended it."""
        # A Runner, since it ends what web3.py and websockets may have left running in the loop.
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            loop = runner.get_loop()
            self._task = loop.create_task(self._queue_heads())
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(self._task)

    def end(self) -> None:
        """End a wait in `next_head` at once and the thread soon after; a frozen node does not delay the caller."""
        self._items.put(_Stopped())
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._cancel_task)

    def _cancel_task(self) -> None:
        """Cancel the listening task once, inside of its event loop: a second time would cut off its closing, and leave
        the connection open.
        """
        if self._task is not None and not self._closing and not self._task.cancelling():
            self._task.cancel()

    async def _queue_heads(self) -> None:
        """Subscribe to newHeads and queue each announced number, then the error that ended the connection."""
        from web3.utils.subscriptions import NewHeadsSubscription  # noqa: PLC0415 # loaded by `subscribe`

        async def announce(context: Any) -> None:
            """Pass an announced header on, and queue its number. web3.py calls it for each new head."""
            header = _as_json(context.result)
            number = BlockNumber(int(str(header["number"]), 16))
            self._on_header(number, header)
            self._items.put(number)

        try:
            async with _make_web3(self._url) as w3:
                try:
                    if self._task is not None and self._task.cancelling():
                        # `asyncio.wait_for`, which web3.py connects with, returns what was ready when it was cancelled.
                        return
                    await w3.subscription_manager.subscribe(NewHeadsSubscription(handler=announce))
                    self._items.put(_Subscribed())
                    await w3.subscription_manager.handle_subscriptions()
                finally:
                    self._closing = True
        except Exception as error:  # noqa: BLE001 # raised by `next_head`, in the thread that can handle it
            self._items.put(error)
        else:
            self._items.put(ConnectionError("the node closed the connection"))


@contextlib.contextmanager
def subscribe(url: str, stop: threading.Event, on_header: OnHeader = lambda *_: None) -> Iterator[Subscription]:
    """An open subscription at `url` (ws://, wss:// or ipc:/path); when `stop` is set, its waits end.

    Raises RpcUnavailable.
    """
    load_web3()
    subscription, over = Subscription(url, on_header), threading.Event()
    for name, target in (
        ("heads", subscription.run),
        ("heads-stop", lambda: _end_on_stop(subscription, stop, over)),
    ):
        threading.Thread(target=target, name=name, daemon=True).start()
    try:
        # Its first item is the confirmation or an error.
        subscription.next_head(3 * OPEN_SECONDS)
        yield subscription
    finally:
        over.set()
        subscription.end()


def _end_on_stop(subscription: Subscription, stop: threading.Event, over: threading.Event) -> None:
    """Body of a second thread: end the subscription when `stop` is set; returns when `over` is."""
    while not over.is_set():
        if stop.wait(_STOP_CHECK_SECONDS):
            subscription.end()
            return


def _make_web3(url: str) -> Any:
    """An AsyncWeb3 for `url`, not connected yet, that tries once to connect."""
    from web3 import AsyncIPCProvider, AsyncWeb3, WebSocketProvider  # noqa: PLC0415 # loaded by `subscribe`
    from web3.middleware import ExtraDataToPOAMiddleware  # noqa: PLC0415

    limits: dict[str, Any] = {"request_timeout": OPEN_SECONDS, "max_connection_retries": 1}
    provider = (
        AsyncIPCProvider(url.removeprefix(_IPC), read_buffer_limit=MESSAGE_BYTES, **limits)
        if url.startswith(_IPC)
        else WebSocketProvider(
            url,
            websocket_kwargs={
                "open_timeout": OPEN_SECONDS,
                "close_timeout": OPEN_SECONDS,
                "max_size": MESSAGE_BYTES,
                "proxy": proxy_for(url),
            },
            **limits,
        )
    )
    # Headers of proof-of-authority chains (iExec's sidechain) carry more than 32 bytes of extra data.
    return AsyncWeb3(provider, middleware=[ExtraDataToPOAMiddleware])


def _as_json(header: Mapping[str, Any]) -> HeaderJson:
    """A header as JSON-RPC writes it. web3.py has made numbers and bytes of its hex, unless so many fields are new to
    it that it does not take it for a header, as those of geth since Cancun.
    """
    return {name: _as_hex(value) for name, value in header.items()}


def _as_hex(value: object) -> object:
    """Bytes and whole numbers as the hex of JSON-RPC; all else as it is."""
    if isinstance(value, bytes):
        return to_hex(value)
    return hex(value) if isinstance(value, int) else value


def _reason_words(error: BaseException) -> str:
    """Why the subscription failed, without the address, which may hold a key and stands in messages of web3.py."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, InvalidStatus):
        return f"HTTP {cause.response.status_code}"
    if isinstance(cause, OSError) and cause.strerror is None and cause.args:
        return str(cause.args[0])
    return (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__
