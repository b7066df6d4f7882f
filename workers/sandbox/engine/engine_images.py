"""Images of the Docker engine: what they ask of it, and how they come and go; and the connection to the engine."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import cached_property

import docker.errors
import requests

from protocol.errors import ContainerRefused, EngineTrouble, NoSuchImage
from workers.sandbox.engine.client import EngineClient
from workers.sandbox.engine.errors import engine_errors, refusal, status, words
from workers.sandbox.images.image_words import FittingImage, fitting, why_unfit
from workers.sandbox.images.load import send_archive
from workers.task.outcome import verdict

#: Seconds the engine may take for a request that does not wait for an app; a busy engine takes a few.
REQUEST_SECONDS = 60


class EngineImages:
    """The images of the Docker engine at `host` (None: the one the environment names)."""

    def __init__(self, host: str | None) -> None:
        self.host = host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        #: Images that the engine had and that fit; `create` says if one has gone meanwhile.
        self._fitting: dict[str, FittingImage] = {}

    @cached_property
    def _api(self) -> EngineClient:
        """Asks the engine for its version; only inside `engine_errors`."""
        return EngineClient(self.host, REQUEST_SECONDS)

    def close(self) -> None:
        """Close the connections, if any were opened."""
        if "_api" in self.__dict__:
            self._api.close()

    @cached_property
    def platform(self) -> tuple[str, str]:
        """System and processor that the engine runs on, by Go's names. Raises EngineUnavailable."""
        with engine_errors(self.host):
            version = self._api.version()
        return str(version.get("Os") or ""), str(version.get("Arch") or "")

    def require_fit(self, image: str) -> FittingImage:
        """What an image asks of the engine. Raises NoSuchImage if it lacks the image, ContainerRefused if it should not
        run it (`image_words`).

        An image that fitted is not asked for again until `create` does not find it.
        """
        if image not in self._fitting:
            with engine_errors(self.host):
                try:
                    found = dict(self._api.inspect_image(image))  # type: ignore[no-untyped-call]
                except docker.errors.NotFound as error:
                    raise NoSuchImage(why=image) from error
                except docker.errors.APIError as error:
                    raise refusal(verdict.of_create(status(error), words(error)), error, self.host) from error
                why = why_unfit(found, self.platform)
                if why is not None:
                    raise ContainerRefused(why=why)
                self._fitting[image] = fitting(found)
        return self._fitting[image]

    def make_image(self, repository: str, tag: str, archive: bytes) -> None:
        """Make an image of a tar archive of files, unless there is one of this name. Raises EngineUnavailable."""
        with engine_errors(self.host):
            if self._api.images(f"{repository}:{tag}", quiet=True):
                return
            self._api.import_image_from_data(archive, repository=repository, tag=tag)

    def has_image(self, name: str) -> bool:
        """Whether the engine has an image of this name. Raises EngineUnavailable."""
        return self.image_id(name) is not None

    def image_id(self, name: str) -> str | None:
        """The id of an image, 64 hex digits; None if the engine has none of this name. Raises EngineUnavailable."""
        with engine_errors(self.host):
            try:
                found = self._api.inspect_image(name)  # type: ignore[no-untyped-call]
            except docker.errors.NotFound:
                return None
            return str(found["Id"]).removeprefix("sha256:")

    def load(self, archive: Iterator[bytes], *, meanwhile: Callable[[], None]) -> None:
        """Take an image, as `docker save` writes one. `meanwhile` is called for every piece; what it raises ends it.

        Raises EngineUnavailable.
        """
        with engine_errors(self.host):
            why = send_archive(self._api, archive, meanwhile)
        if why is not None:
            raise EngineTrouble(what=self.host, why=why)

    def remove_image(self, name: str) -> bool:
        """Remove an image of this name; False if a container uses it. Raises EngineUnavailable."""
        with engine_errors(self.host):
            try:
                self._api.remove_image(name)
            except docker.errors.NotFound:
                return True
            except docker.errors.APIError as error:
                if error.status_code == requests.codes.conflict:
                    return False
                raise
            return True

    def read_file(self, image: str, path: str) -> bytes:
        """A file in an image, read through a container that never runs. Raises NoSuchImage, EngineUnavailable."""
        with engine_errors(self.host):
            try:
                made = str(self._api.create_container(image, command=["-"])["Id"])
            except docker.errors.NotFound as error:
                raise NoSuchImage(why=image) from error
            try:
                pieces, _ = self._api.get_archive(made, path)
                with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
                    found = archive.extractfile(archive.getmembers()[0])
                    return b"" if found is None else found.read()
            except (docker.errors.NotFound, tarfile.TarError) as error:
                raise EngineTrouble(what=self.host, why=f"the image {image} gives no {path}") from error
            finally:
                self._api.remove_container(made, force=True)
