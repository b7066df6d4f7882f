"""The whole answer of a server that may be a stranger's: within a time and a number of bytes."""

from __future__ import annotations

import time

import httpx

#: Seconds and bytes that the body of an answer may take once it has begun: the longest, to a ping, has 212 KB.
ANSWER_SECONDS, ANSWER_BYTES = 30.0, 2**20


def whole(streamed: httpx.Response) -> httpx.Response:
    """An answer with its body as it was sent. Raises httpx.ReadTimeout for one that does not end within its bounds."""
    until, content = time.monotonic() + ANSWER_SECONDS, bytearray()
    for piece in streamed.iter_raw():
        content += piece
        if len(content) > ANSWER_BYTES or time.monotonic() > until:
            raise httpx.ReadTimeout(f"its answer did not end within {ANSWER_SECONDS:g} s and {ANSWER_BYTES} bytes")
    kept = [(name, text) for name, text in streamed.headers.raw if name.lower() != b"content-encoding"]
    return httpx.Response(streamed.status_code, headers=kept, content=bytes(content), request=streamed.request)
