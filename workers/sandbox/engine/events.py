"""Whether an app's container was sent a signal by somebody else, as the engine's events tell.

    docker stop, or the engine as it shuts down ──SIGTERM──► the app ends in good order, with any exit code
    engine's events of one container:   … kill ─► die        an end of the app's own has no `kill` before its `die`

An app that ends when it is asked to has an exit code that says nothing about it, and may leave half a result.
"""

from __future__ import annotations

import json
from typing import Any, Final

import docker
import requests
import structlog
import urllib3.exceptions

log = structlog.get_logger(__name__)

#: Seconds to wait for the event of a container's end: it follows the end within milliseconds, unless the engine has
#: forgotten it (Docker keeps its last 256 events, in memory).
DIE_SECONDS: Final = 3
#: From the first event that the engine remembers: Docker takes 0 for "only new ones".
_FIRST: Final = 1
_SIGNAL = "kill"
#: A container's end, in Docker's word and in Podman's own.
_ENDS: Final = frozenset({"die", "died"})
#: Answers of an engine that has no such request.
_NO_EVENTS: Final = frozenset({requests.codes.bad_request, requests.codes.not_found, requests.codes.not_implemented})


def signalled(api: docker.APIClient, container: str, *, untold: bool) -> bool | None:
    """Whether a container that has ended, by id, was sent a signal; None if the engine does not remember its end.

    `untold`: the answer for an engine that has no events to ask for. Raises as docker-py and `requests` do, ValueError.
    """
    wanted = {"type": ["container"], "container": [container], "event": [_SIGNAL, *_ENDS]}
    answer = api.get(
        f"{api.base_url}/v{api.api_version}/events",
        params={"since": str(_FIRST), "filters": json.dumps(wanted)},
        timeout=DIE_SECONDS,
        stream=True,
    )
    with answer:
        if answer.status_code in _NO_EVENTS:
            log.debug("The engine tells no events.", action="no_engine_events", status=answer.status_code)
            return untold
        if not answer.ok:
            raise docker.errors.APIError(answer.text, response=answer)
        try:
            return first_of(answer.raw)
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError):
            return None


def first_of(lines: Any) -> bool | None:
    """Whether a signal comes before the end of the container among these events, one JSON object a line (bytes); None
    if they end before both. Raises ValueError for a line that is no event.
    """
    for line in lines:
        event = json.loads(line)
        action = event.get("Action") if isinstance(event, dict) else None
        if not isinstance(action, str):
            raise ValueError("an event has no action")  # noqa: TRY004 - as json does
        if action == _SIGNAL:
            return True
        if action in _ENDS:
            return False
    return None
