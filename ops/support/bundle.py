"""Gathers a support bundle: the answers of each part, or why there is none."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from pymongo.errors import PyMongoError

from chain.rpc.client import Rpc
from config.connections.http_client import http_client
from config.connections.mongodb import client
from config.redaction import public_url
from config.settings import Settings
from config.values.endpoints import rpc_urls
from ops.admin.client import OperatorApi, admin_url
from ops.archive import ArchiveWriter, write_archive
from ops.settings_table import shown
from ops.support.secrets import Scrubber
from protocol.errors import BadInput, SluiceError

KIND = "sluice support bundle"
#: Bytes of each log's end, and most lines of warnings and errors out of all logs.
LOG_BYTES, TROUBLE_LINES = 2 << 20, 500
#: Seconds for a server to answer.
_SECONDS = 10.0
#: The name of a log that means standard input.
STDIN = "-"
_TROUBLE = frozenset({"warning", "error", "critical"})
#: Answers of the operator's API that go in.
_ADMIN = {"status": "/status", "queues": "/queues", "dead-letters": "/dead", "stake": "/stake"}


def make(settings: Settings, path: Path, logs: Sequence[str]) -> list[str]:
    """Write a bundle to `path`, which must be new; returns the names of what is in it. `logs`: files, STDIN for
    standard input; SLUICE_HOME's own logs are added. Raises BadInput.
    """
    scrub = Scrubber.of(settings, os.environ)
    about = {"kind": KIND, "sluice": version("sluice"), "made_at": time.time()}
    with write_archive(path, about) as archive:
        _add(archive, scrub, "settings.json", lambda: shown(settings))
        _add(archive, scrub, "versions.json", lambda: _versions(settings))
        _add(archive, scrub, "health.json", lambda: _health(settings))
        for name, route in _ADMIN.items():
            _add(archive, scrub, f"{name}.json", partial(_operator, settings, route))
        trouble: deque[str] = deque(maxlen=TROUBLE_LINES)
        for number, log in enumerate(_logs(settings, logs), start=1):
            lines = scrub.text("\n".join(_tail(log))).splitlines()
            trouble.extend(line for line in lines if _is_trouble(line))
            _write(archive, _log_name(scrub, number, log), lines)
        _write(archive, "last-errors.log", trouble)
        return [member.name for member in archive.members]


def planned(settings: Settings, path: Path, logs: Sequence[str]) -> list[str]:
    """The names of what `make` would put in; nothing is asked or written. Raises BadInput."""
    if path.exists():
        raise BadInput(what=f"{path} exists; it is not overwritten.")
    scrub = Scrubber.of(settings, os.environ)
    answers = [f"{name}.json" for name in ("settings", "versions", "health", *_ADMIN)]
    ends = [_log_name(scrub, number, log) for number, log in enumerate(_logs(settings, logs), start=1)]
    return [*answers, *ends, "last-errors.log"]


def _log_name(scrub: Scrubber, number: int, log: str) -> str:
    """The name of a log's end in the bundle."""
    return f"logs/{number}-{_plain(scrub.text(Path(log).name))}.log"


def _add(archive: ArchiveWriter, scrub: Scrubber, name: str, ask: Callable[[], object]) -> None:
    """Write an answer as JSON, or why there is none."""
    try:
        found = ask()
    except (SluiceError, httpx.HTTPError, PyMongoError, OSError, ValueError) as error:
        found = {"error": str(error) or type(error).__name__}
    _write(archive, name, json.dumps(scrub.value(found), indent=1).splitlines())


def _write(archive: ArchiveWriter, name: str, lines: Iterable[str]) -> None:
    """Add a text file of these lines to the archive."""
    archive.add(name, (f"{line}\n".encode("utf-8", "replace") for line in lines))


def _operator(settings: Settings, route: str) -> object:
    """An answer of the operator's API."""
    return OperatorApi(settings).get(route)


def _versions(settings: Settings) -> dict[str, Any]:
    """The versions of Sluice, its libraries, this machine, and the servers that answer."""
    return {
        "sluice": version("sluice"),
        "python": sys.version,
        "machine": platform.platform(),
        "packages": dict(sorted((one.metadata["Name"], one.version) for one in distributions())),
        "mongodb": _said(lambda: client(settings.mongodb_uri.get_secret_value()).server_info()["version"]),
        "nodes": {public_url(url): _said(partial(_node_version, url)) for url in rpc_urls(settings)},
    }


def _node_version(url: str) -> object:
    """The node's software, by web3_clientVersion."""
    with Rpc(url, _SECONDS) as rpc:
        return rpc.call("web3_clientVersion")


def _said(ask: Callable[[], object]) -> object:
    """The result of `ask`, or its error as text: a bundle must also be made when parts do not answer."""
    try:
        return ask()
    except (SluiceError, PyMongoError, OSError) as error:
        return {"error": str(error)}


def _health(settings: Settings) -> object:
    """What `/health` says, also while it is red."""
    with http_client(admin_url(settings), timeout=_SECONDS) as http:
        return http.get("/health").json()


def _logs(settings: Settings, given: Sequence[str]) -> list[str]:
    """Files of SLUICE_HOME that are logs, a worker machine's too, the oldest first, then those that were named."""
    home = settings.home
    own = [home / "log", *sorted(home.glob("*.log")), *sorted(home.glob("log/*.log"))]
    own += sorted(home.glob("worker/*/log/worker.log*"), reverse=True)
    return [*(str(path) for path in own if path.is_file()), *given]


def _tail(log: str) -> list[str]:
    """The last LOG_BYTES of a log in whole lines, or why it cannot be read."""
    try:
        if log == STDIN:
            data = _end_of(sys.stdin.buffer)
        else:
            with Path(log).open("rb") as file:
                with suppress(OSError):
                    file.seek(max(0, Path(log).stat().st_size - LOG_BYTES))
                data = _end_of(file)
    except OSError as error:
        return [f"It cannot be read: {error.strerror or error}."]
    lines = data.decode("utf-8", "replace").splitlines()
    return lines[1:] if len(data) == LOG_BYTES else lines


def _end_of(file: BinaryIO) -> bytes:
    """The last LOG_BYTES, whatever comes before."""
    data = b""
    while piece := file.read(LOG_BYTES):
        data = (data + piece)[-LOG_BYTES:]
    return data


def _is_trouble(line: str) -> bool:
    """Whether a log line is of a warning or worse, as JSON or for people."""
    try:
        found = json.loads(line)
    except ValueError:
        return any(f"[{level}" in line for level in _TROUBLE) or line.startswith("Traceback")
    return isinstance(found, dict) and found.get("level") in _TROUBLE


def _plain(name: str) -> str:
    """A file name without characters that make it a path."""
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
