"""Reads the whole answer of a server that is not trusted, within a number of bytes; its client bounds the time."""

from __future__ import annotations

import httpx

#: Seconds that an answer may take once it has begun, headers and body, and bytes of its body: the longest, to a ping,
#: has 212 KB.
ANSWER_SECONDS, ANSWER_BYTES = 30.0, 2**20


def seconds() -> float:
    """ANSWER_SECONDS, as a function, which `http_client` takes."""
    return ANSWER_SECONDS


def whole(streamed: httpx.Response) -> httpx.Response:
    """An answer with its body as it was sent. Raises httpx.ReadTimeout for one that does not end within its bounds."""
    content = bytearray()
    for piece in streamed.iter_raw():
        content += piece
        if len(content) > ANSWER_BYTES:
            raise httpx.ReadTimeout(f"its answer did not end within {ANSWER_BYTES} bytes")
    kept = [(name, text) for name, text in streamed.headers.raw if name.lower() != b"content-encoding"]
    return httpx.Response(streamed.status_code, headers=kept, content=bytes(content), request=streamed.request)
