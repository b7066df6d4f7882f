"""Sends an image to the Docker engine, piece by piece, as `docker load` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import docker

from workers.sandbox.engine.errors import message

#: Seconds the engine may take to unpack an image that it has been sent; it does so in silence.
LOAD_SECONDS = 900
#: Characters kept of what the engine says.
_WORDS = 1_000


def send_archive(api: docker.APIClient, archive: Iterator[bytes], meanwhile: Callable[[], None]) -> str | None:
    """Send an image's tar archive to the engine; returns why the engine did not take it, None if it did.

    Only inside `engine_errors`. `meanwhile`: called before each piece, may raise to end it. docker-py's own
    `load_image` has no time limit that differs from other requests'.
    """

    def pieces() -> Iterator[bytes]:
        """The archive's pieces, with a call of `meanwhile` before each."""
        for piece in archive:
            meanwhile()
            yield piece

    answer = api.post(
        f"{api.base_url}/v{api.api_version}/images/load",
        params={"quiet": 1},
        data=pieces(),
        headers={"content-type": "application/x-tar"},
        timeout=LOAD_SECONDS,
    )
    with answer:
        if not answer.ok:
            return message(answer.text)[:_WORDS]
        for line in answer.text.splitlines():
            error = json.loads(line).get("error") if line.strip() else None
            if error:
                return str(error)[:_WORDS]
    return None
