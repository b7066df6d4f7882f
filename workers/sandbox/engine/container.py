"""One container at the Docker engine: made, started, awaited, read, removed. Eight requests when all goes well.

Names are derived from the task, so after a restart the same call finds the container again, whatever became of it:

    absent ──create──► created ──start──► running ──wait──► exited ──logs, remove──► absent
                          ▲                  ▲                 ▲
                          └── a killed worker comes back here ─┘

Waiting is one open request that the engine answers when the container ends; nothing polls. `verdict` decides what an
engine's error means; one that says nothing about the app is EngineUnavailable, as is an answer that cannot be read.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
import structlog

from protocol.errors import (
    BadSetting,
    ContainerRefused,
    EngineTrouble,
    EngineUnavailable,
    NoSuchContainer,
    NoSuchImage,
)
from protocol.types import TaskId, Wallet
from workers.sandbox import handed
from workers.sandbox.engine import standard_input
from workers.sandbox.engine.container_state import ContainerState, read_moment, read_state
from workers.sandbox.engine.engine_images import REQUEST_SECONDS, EngineImages
from workers.sandbox.engine.errors import engine_errors, message, refusal, status, words
from workers.sandbox.engine.events import signalled
from workers.sandbox.engine.host_config import host_config
from workers.sandbox.engine.printed import read_frames
from workers.sandbox.handed import HandedVariables
from workers.sandbox.images.image_words import NOTHING_ASKED
from workers.sandbox.network import bridge as network
from workers.sandbox.network.allow_list import targets_of
from workers.sandbox.network.bridge import AppNetwork
from workers.sandbox.spec import LABEL_PINS, LABEL_TASK, LABEL_WALLET, ContainerSpec
from workers.task.outcome import verdict

log = structlog.get_logger(__name__)

#: Seconds the engine may take to report the end of a killed container.
KILL_SECONDS = 30
#: Docker's words for an id it does not know; a program missing in the image is a 404 too.
_NO_CONTAINER = "No such container"
#: ... and for a container that another request removes meanwhile.
_BEING_REMOVED = "marked for removal"
#: Bytes of stdout and of stderr that are kept, each.
STREAM_BYTES = 8 * 2**20


class Engine(EngineImages):
    """The Docker engine at `host` (None: the one the environment names). One per process."""

    def __init__(self, host: str | None) -> None:
        super().__init__(host)
        self._stuck: set[str] = set()

    def info(self) -> dict[str, Any]:
        """Docker's `info`. Raises EngineUnavailable."""
        with engine_errors(self.host):
            return dict(self._api.info())

    def require_reach(self, user: int) -> dict[str, Any]:
        """Docker's `info`, if the Unix user id `user` can read and delete what containers leave. Raises BadSetting."""
        info = self.info()
        if user != 0:
            # Where root in a container is the engine's user, others in it are users whose files he cannot delete.
            rootless = any("name=rootless" in option for option in info.get("SecurityOptions") or ())
            owners = "users of its own, since it is rootless" if rootless else "root"
            raise BadSetting(
                name="SLUICE_DOCKER_HOST",
                why=f"the worker runs as user {user}, and what apps leave on this engine belongs to {owners}",
                fix="Run the worker as root (e.g. with sudo), on an engine that runs as root.",
            )
        return info

    def confine_apps(self, listed: Wallet | None = None) -> AppNetwork:
        """Make the apps' network unless it is there; set its packet filter. Raises BadSetting, EngineUnavailable.

        `listed`: a wallet with an allow list of domains, whose containers reach what their labels have. Who asks for it
        holds `listed_apps.LOCK`.
        """
        targets = None
        with engine_errors(self.host):
            made = network.make(self._api, listed)
            if listed is not None:
                found = self._api.containers(all=True, filters={"label": [f"{LABEL_WALLET}={listed}", LABEL_PINS]})
                targets = targets_of(str(item["Labels"][LABEL_PINS]) for item in found)
        return network.confine(self.host, made, targets)

    def now(self) -> datetime:
        """The engine's own clock, which its containers' times go by. Raises EngineUnavailable."""
        with engine_errors(self.host):
            return read_moment(self._api.info().get("SystemTime"))

    @cached_property
    def data_folder(self) -> Path | None:
        """Where the engine keeps images and containers, if this machine has that folder. Raises EngineUnavailable."""
        if not self.host.startswith("unix://"):
            return None
        folder = Path(str(self.info().get("DockerRootDir") or "/nonexistent"))
        return folder if folder.is_dir() else None

    def create(self, spec: ContainerSpec) -> str:
        """Create the container, or find the one of that name; its id.

        Raises NoSuchImage, CannotStart (the app's fault), ContainerRefused (this machine's), EngineUnavailable.
        """
        with engine_errors(self.host):
            try:
                entrypoint, command = self._program(spec)
                made = self._api.create_container(
                    spec.image,
                    command=command or None,
                    entrypoint=entrypoint,
                    environment=spec.environment,
                    # Of one use: closed with the connection of whoever writes to it.
                    stdin_open=spec.handed is not None,
                    labels=self._fitting.get(spec.image, NOTHING_ASKED).labels | spec.labels,
                    # An image's own would be run by the engine, as often as it says, beside the app's limits.
                    healthcheck={"Test": ["NONE"]},
                    host_config=host_config(self._api, spec),
                    name=spec.name,
                )
            except docker.errors.ImageNotFound as error:
                self._fitting.pop(spec.image, None)
                raise NoSuchImage(why=spec.image) from error
            except docker.errors.APIError as error:
                if error.status_code == requests.codes.conflict:
                    return self._take_over(spec)
                raise refusal(verdict.of_create(status(error), words(error)), error, self.host) from error
            return str(made["Id"])

    def _program(self, spec: ContainerSpec) -> tuple[list[str] | None, list[str]]:
        """(entry point, command) of a container; None: the image's own. With variables that it is handed, the launcher
        and what the engine would run; if that is nothing, `create` is refused as without them.
        """
        if spec.handed is None:
            return None if spec.entrypoint is None else list(spec.entrypoint), list(spec.command)
        # Asked for each time: the engine's own images of one name change.
        found = self._api.inspect_image(spec.image)  # type: ignore[no-untyped-call]
        program = handed.program_of(found.get("Config"), spec.entrypoint, spec.command)
        return ([handed.LAUNCHER], program) if program else (None, [])

    def _take_over(self, spec: ContainerSpec) -> str:
        """The id of a container of this name that has never run and has our folders; any other is removed.

        Raises NoSuchContainer.
        """
        try:
            found = self._api.inspect_container(spec.name)
        except docker.errors.NotFound as error:
            raise NoSuchContainer(why=spec.name) from error
        fresh = read_state(found).status == "created" and spec.has_folders_of(found["Mounts"])
        if fresh and not spec.pins and spec.handed is None:
            return str(found["Id"])
        self.remove(str(found["Id"]))
        raise NoSuchContainer(why=f"{spec.name} with this task's folders")

    def start(self, container: str, variables: HandedVariables | None = None) -> None:
        """Start a container; does nothing if it runs already. `variables`: what one that never ran is handed.

        Raises CannotStart, ContainerRefused, NoSuchContainer, EngineUnavailable; BadMessage.
        """
        given: AbstractContextManager[None] = nullcontext()
        if variables is not None:
            given = standard_input.written(self._api, container, variables.content(), REQUEST_SECONDS)
        with engine_errors(self.host):
            try:
                with given:
                    self._api.start(container)
            except docker.errors.APIError as error:
                said = words(error)
                gone = isinstance(error, docker.errors.NotFound) and _NO_CONTAINER.lower() in said.lower()
                if gone or _BEING_REMOVED in said:
                    raise NoSuchContainer(why=container) from error
                if network.GONE in said or f"network {network.LISTED}" in said:
                    if network.GONE in said:
                        self.confine_apps()
                    raise EngineTrouble(what=self.host, why=said) from error
                if variables is not None and handed.LAUNCHER in said:
                    # What the engine runs is ours.
                    raise ContainerRefused(why=said) from error
                raise refusal(verdict.of_start(status(error), said), error, self.host) from error

    def wait(self, container: str, seconds: float) -> bool:
        """Whether the container ends within `seconds` from now. Raises NoSuchContainer, EngineUnavailable."""
        deadline = time.monotonic() + seconds
        try:
            with engine_errors(self.host):
                try:
                    self._api.wait(
                        container,
                        timeout=max(seconds, 0.001),  # type: ignore[arg-type] # the stub knows whole seconds only
                        condition="not-running",
                    )
                except docker.errors.NotFound as error:
                    raise NoSuchContainer(why=container) from error
        except EngineUnavailable:
            if time.monotonic() < deadline:
                raise
            return False
        return True

    def find(self, spec: ContainerSpec) -> ContainerState:
        """The state of the container of this spec, if there is one. Raises NoSuchContainer, also (after removing it)
        for one of this name that writes into other folders, EngineUnavailable.
        """
        with engine_errors(self.host):
            try:
                found = self._api.inspect_container(spec.name)
            except docker.errors.NotFound as error:
                raise NoSuchContainer(why=spec.name) from error
            state = read_state(found)
            if spec.has_folders_of(found["Mounts"]):
                return state
            self.remove(str(found["Id"]))
            raise NoSuchContainer(why=f"{spec.name} with this task's folders")

    def state(self, container: str) -> ContainerState:
        """The state of a container by id or name. Raises NoSuchContainer, EngineUnavailable."""
        with engine_errors(self.host):
            return read_state(self.inspect(container))

    def signalled(self, container: str, *, untold: bool) -> bool | None:
        """Whether somebody else sent a signal to a container, by id, that has ended; `untold` if the engine tells no
        events (`events`). Raises EngineUnavailable.
        """
        with engine_errors(self.host):
            return signalled(self._api, container, untold=untold)

    def inspect(self, container: str) -> dict[str, Any]:
        """Docker's `inspect` of a container. Raises NoSuchContainer, EngineUnavailable."""
        with engine_errors(self.host):
            try:
                return dict(self._api.inspect_container(container))
            except docker.errors.NotFound as error:
                raise NoSuchContainer(why=container) from error

    def layer_bytes(self, container: str) -> int:
        """Bytes that a container has written into its own layer, holes counted. Raises EngineUnavailable."""
        with engine_errors(self.host):
            found = self._api.containers(all=True, size=True, filters={"id": container})
            return int(found[0].get("SizeRw") or 0) if found else 0

    def kill(self, container: str) -> None:
        """Send SIGKILL and wait for the end; does nothing if the container has ended or is gone."""
        with engine_errors(self.host), contextlib.suppress(docker.errors.NotFound):
            try:
                self._api.kill(container)
            except docker.errors.APIError as error:
                # 409: it is not running (any more).
                if error.status_code != requests.codes.conflict:
                    raise
            self._api.wait(container, timeout=KILL_SECONDS, condition="not-running")

    def printed(self, container: str) -> tuple[bytes, bytes]:
        """The first STREAM_BYTES of stdout and of stderr, as the app wrote them. Raises NoSuchContainer."""
        api = self._api
        with engine_errors(self.host):
            # Not docker-py's `logs`: that asks first whether there is a terminal, and forgets which stream is which.
            answer = api.get(
                f"{api.base_url}/v{api.api_version}/containers/{container}/logs",
                params={"stdout": 1, "stderr": 1},
                timeout=REQUEST_SECONDS,
                stream=True,
            )
            with answer:
                # 404: it was removed. 409: it is being removed.
                if answer.status_code in {requests.codes.not_found, requests.codes.conflict}:
                    raise NoSuchContainer(why=container)
                if not answer.ok:
                    raise EngineTrouble(what=self.host, why=message(answer.text))
                return read_frames(answer.raw, STREAM_BYTES)

    def remove(self, container: str) -> None:
        """Kill and remove it with its anonymous volumes; does nothing if it is gone."""
        with engine_errors(self.host), contextlib.suppress(docker.errors.NotFound):
            try:
                self._api.remove_container(container, force=True, v=True)
            except docker.errors.APIError as error:
                # 409: another request is removing it.
                if error.status_code != requests.codes.conflict:
                    raise

    def note_stuck(self, container: str) -> bool:
        """Record a container that could not be removed; True the first time, so that it is logged once."""
        first_time = container not in self._stuck
        self._stuck.add(container)
        return first_time

    def containers_of(self, wallet: Wallet) -> list[tuple[TaskId, str]]:
        """Task and id of every container of this machine's wallet, running or not."""
        with engine_errors(self.host):
            found = self._api.containers(all=True, filters={"label": f"{LABEL_WALLET}={wallet}"})
            return [(TaskId(item["Labels"][LABEL_TASK]), str(item["Id"])) for item in found]

    def file_exists(self, container: str, path: str) -> bool:
        """Whether a container, started or not, sees a file at `path`. Raises NoSuchContainer, EngineUnavailable."""
        with engine_errors(self.host):
            try:
                content, _ = self._api.get_archive(container, path)
            except docker.errors.NotFound as error:
                if _NO_CONTAINER.lower() in words(error).lower():
                    raise NoSuchContainer(why=container) from error
                return False
            for _ in content:
                pass
            return True

    def resolv_conf(self, container: str) -> str:
        """Text of a container's /etc/resolv.conf, as the engine made it. Raises NoSuchContainer, EngineUnavailable."""
        with engine_errors(self.host):
            file = Path(str(self.inspect(container)["ResolvConfPath"]))
        try:
            return file.read_text(errors="replace")
        except OSError:
            # On another machine, or out of sight of a worker in a container.
            return ""

    def process_of(self, container: str) -> tuple[int, str]:
        """Process id of a running container on the apps' network, and its address. Raises NoSuchContainer."""
        with engine_errors(self.host):
            found = self.inspect(container)
            (own,) = found["NetworkSettings"]["Networks"].values()
            return int(found["State"]["Pid"]), str(own["IPAddress"])
