"""One container at the Docker engine: made, started, awaited, read, removed. Five requests when all goes well.

Names are derived from the task, so after a restart the same call finds the container again, whatever became of it:

    absent ──create──► created ──start──► running ──wait──► exited ──logs, remove──► absent
                          ▲                  ▲                 ▲
                          └── a killed worker comes back here ─┘

Waiting is one open request that the engine answers when the container ends; nothing polls.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import docker
import docker.errors
import docker.types
import requests
import structlog

from protocol.computed import OUTPUT_FOLDER
from protocol.errors import BadSetting, CannotStart, EngineUnavailable, NoSuchContainer, NoSuchImage, SluiceError
from protocol.types import TaskId, Wallet
from workers.sandbox import (
    FILE_BYTES,
    INPUT_FOLDER,
    LABEL_TASK,
    LABEL_WALLET,
    LOG_FILE_BYTES,
    OOM_SCORE,
    PIDS,
    ContainerSpec,
)

log = structlog.get_logger(__name__)

#: Seconds the engine may take for a request that does not wait for an app; a busy engine takes a few.
REQUEST_SECONDS = 60
#: Seconds the engine may take to bury a container that was killed.
KILL_SECONDS = 30
#: Docker's words for an id it does not know; a program missing in the image is a 404 too.
_NO_CONTAINER = "No such container"
#: ... for a name that no image can have.
_BAD_REFERENCE = "invalid reference format"
#: Bytes of stdout and of stderr that are kept, each.
STREAM_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended."""

    exit_code: int
    out_of_memory: bool
    timed_out: bool

    @property
    def clean(self) -> bool:
        """Exit 0 in time and within its memory."""
        return self.exit_code == 0 and not self.out_of_memory and not self.timed_out


class Engine:
    """The Docker engine at `host` (None: the one the environment names). One per process."""

    def __init__(self, host: str | None) -> None:
        self.host = host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"

    @cached_property
    def _api(self) -> docker.APIClient:
        """Asks the engine for its version; only inside `_engine_errors`."""
        client = docker.APIClient(base_url=self.host, version="auto", timeout=REQUEST_SECONDS)
        # The engine is never behind a proxy, and looking for one costs a millisecond a request.
        client.trust_env = False
        return client

    def close(self) -> None:
        """Close the connections, if any were opened."""
        if "_api" in self.__dict__:
            self._api.close()

    def info(self) -> dict[str, Any]:
        """What the engine says of itself. Raises EngineUnavailable."""
        with _engine_errors(self.host):
            return dict(self._api.info())

    def require_reach(self, user: int) -> dict[str, Any]:
        """What the engine says of itself, if the Unix user id `user` can read and delete what containers leave behind.

        Raises BadSetting if not: an app's root is root on this machine unless the engine runs as its user (rootless).
        """
        info = self.info()
        rootless = any("name=rootless" in option for option in info.get("SecurityOptions") or ())
        if user != 0 and not rootless:
            raise BadSetting(
                name="SLUICE_DOCKER_HOST",
                why=f"the worker runs as user {user}, and what apps leave on this engine belongs to root",
                fix="Run the worker as root (e.g. with sudo), or name a rootless engine of this user.",
            )
        return info

    def create(self, spec: ContainerSpec) -> str:
        """Create the container, or find the one of that name; its id. Raises NoSuchImage, CannotStart."""
        with _engine_errors(self.host):
            host_config = self._host_config(spec)
            try:
                made = self._api.create_container(
                    spec.image,
                    command=list(spec.command) or None,
                    environment=spec.environment,
                    labels=spec.labels,
                    host_config=host_config,
                    name=spec.name,
                )
            except docker.errors.ImageNotFound as error:
                raise NoSuchImage(why=spec.image) from error
            except docker.errors.APIError as error:
                if error.status_code == requests.codes.conflict:
                    return str(self._api.inspect_container(spec.name)["Id"])
                raise _verdict(error, spec.image) from error
        return str(made["Id"])

    def _host_config(self, spec: ContainerSpec) -> dict[str, Any]:
        return self._api.create_host_config(
            binds=[f"{spec.inputs}:{INPUT_FOLDER}:ro", f"{spec.outputs}:{OUTPUT_FOLDER}:rw"],
            cap_drop=["ALL"],
            cap_add=list(spec.capabilities),
            security_opt=["no-new-privileges"],
            mem_limit=spec.limits.memory_bytes,
            # Equal to memory: no swap on top.
            memswap_limit=spec.limits.memory_bytes,
            nano_cpus=spec.limits.nano_cpus,
            pids_limit=PIDS,
            ipc_mode="private",
            oom_score_adj=OOM_SCORE,
            ulimits=[
                docker.types.Ulimit(name="core", soft=0, hard=0),
                docker.types.Ulimit(name="fsize", soft=FILE_BYTES, hard=FILE_BYTES),
            ],
            log_config=docker.types.LogConfig(
                type="json-file", config={"max-size": str(LOG_FILE_BYTES), "max-file": "2"}
            ),
        )

    def start(self, container: str) -> None:
        """Start it; quietly if it runs already. Raises CannotStart, NoSuchContainer."""
        with _engine_errors(self.host):
            try:
                self._api.start(container)
            except docker.errors.NotFound as error:
                if _NO_CONTAINER in str(error.explanation):
                    raise NoSuchContainer(why=container) from error
                raise CannotStart(why=str(error.explanation)) from error
            except docker.errors.APIError as error:
                raise _verdict(error, container) from error

    def wait(self, container: str, seconds: float) -> int | None:
        """Exit code, or None if it still runs after `seconds`. Raises NoSuchContainer, EngineUnavailable."""
        deadline = time.monotonic() + seconds
        try:
            with _engine_errors(self.host):
                answer = self._api.wait(
                    container,
                    timeout=max(seconds, 0.001),  # type: ignore[arg-type] # the stub knows whole seconds only
                    condition="not-running",
                )
        except EngineUnavailable:
            if time.monotonic() < deadline:
                raise
            return None
        except docker.errors.NotFound as error:
            raise NoSuchContainer(why=container) from error
        return int(answer["StatusCode"])

    def state(self, container: str) -> dict[str, Any]:
        """Docker's `State` of a container by id or name. Raises NoSuchContainer."""
        with _engine_errors(self.host):
            try:
                return dict(self._api.inspect_container(container)["State"])
            except docker.errors.NotFound as error:
                raise NoSuchContainer(why=container) from error

    def kill(self, container: str) -> None:
        """SIGKILL and wait for the end; quietly if it has ended or is gone."""
        with _engine_errors(self.host), contextlib.suppress(docker.errors.NotFound):
            try:
                self._api.kill(container)
            except docker.errors.APIError as error:
                # 409: it is not running (any more).
                if error.status_code != requests.codes.conflict:
                    raise
            self._api.wait(container, timeout=KILL_SECONDS, condition="not-running")

    def stream(self, container: str, *, stdout: bool) -> bytes:
        """The first STREAM_BYTES of one output stream, as the app wrote them. Raises NoSuchContainer."""
        with _engine_errors(self.host):
            # The engine sends frames; reading stops at the cap, however much there is.
            try:
                chunks = self._api.logs(container, stdout=stdout, stderr=not stdout, stream=True, follow=False)
            except docker.errors.APIError as error:
                # 404: somebody removed it. 409: somebody is removing it.
                if error.status_code not in {requests.codes.not_found, requests.codes.conflict}:
                    raise
                raise NoSuchContainer(why=container) from error
            kept = bytearray()
            for chunk in chunks:
                kept += chunk
                if len(kept) >= STREAM_BYTES:
                    chunks.close()
                    break
        return bytes(kept[:STREAM_BYTES])

    def remove(self, container: str) -> None:
        """Kill and remove it with its anonymous volumes; quietly if it is gone."""
        with _engine_errors(self.host), contextlib.suppress(docker.errors.NotFound):
            try:
                self._api.remove_container(container, force=True, v=True)
            except docker.errors.APIError as error:
                # 409: another request is removing it.
                if error.status_code != requests.codes.conflict:
                    raise

    def mine(self, wallet: Wallet) -> list[tuple[TaskId, str]]:
        """Task and id of every container of this machine's wallet, running or not."""
        with _engine_errors(self.host):
            found = self._api.containers(all=True, filters={"label": f"{LABEL_WALLET}={wallet}"})
        return [(TaskId(item["Labels"][LABEL_TASK]), str(item["Id"])) for item in found]

    def pull(self, repository: str, tag: str, *, meanwhile: Callable[[], None]) -> str | None:
        """Fetch an image; None if it came, else the engine's or registry's reason.

        `meanwhile` is called for every line of progress; what it raises ends the pull.
        """
        with _engine_errors(self.host):
            try:
                for line in self._api.pull(repository, tag=tag, stream=True, decode=True):
                    meanwhile()
                    if "error" in line:
                        return str(line["error"])
            except docker.errors.APIError as error:
                return str(error.explanation)
        return None


def seconds_ran(state: dict[str, Any], now: datetime) -> float:
    """How long the container ran, or has been running until `now`, by the engine's record; 0 if it never started."""
    started, finished = _moment(state["StartedAt"]), _moment(state["FinishedAt"])
    if started is None:
        return 0.0
    end = now if state["Running"] or finished is None else finished
    return max((end - started).total_seconds(), 0.0)


def _moment(text: str) -> datetime | None:
    """Docker's time: RFC 3339 with up to nine decimals, year 1 for never."""
    if text.startswith("0001"):
        return None
    whole, _, rest = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC) + timedelta(seconds=float(f"0.{rest or 0}"))


def _verdict(error: docker.errors.APIError, image: str) -> SluiceError:
    """Whose fault a refused create or start is: 4xx is the image's or its arguments', 5xx the engine's."""
    why = str(error.explanation)
    if _BAD_REFERENCE in why:
        return NoSuchImage(why=image)
    if error.is_client_error():
        return CannotStart(why=why)
    return EngineUnavailable(what="Docker", why=why)


@contextlib.contextmanager
def _engine_errors(host: str) -> Iterator[None]:
    """Turn "no answer" of the layers below into EngineUnavailable; Docker's own answers pass."""
    try:
        yield
    except requests.exceptions.RequestException as error:
        if isinstance(error, docker.errors.APIError):
            raise
        raise EngineUnavailable(what=host, why=type(error).__name__) from error
    except docker.errors.DockerException as error:
        if isinstance(error, docker.errors.APIError):
            raise
        raise EngineUnavailable(what=host, why=str(error)) from error
