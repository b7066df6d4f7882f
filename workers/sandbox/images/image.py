"""The app's image: fetched for the deal by its full name, whatever the engine may have under that name.

    named in SLUICE_LOCAL_IMAGES       the engine's own image of that name (local stack, tests)
    fetched before                     the engine's copy; its registry is asked once an hour whether the tag has moved
    else                               manifest ─ sizes, platform ─► layers ─ digests, unpacked size ─► `docker load`

What the order names counts in this turn: the digest in the name, the app's checksum on chain if the registry has a
manifest of that digest, the tag.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from protocol.errors import (
    BadMessage,
    EngineTrouble,
    RateLimited,
    Refused,
    RefusedHere,
    StorageUnavailable,
    TaskDeclined,
    TaskFailure,
    TooLarge,
    WrongPlatform,
)
from protocol.results.error_result import MACHINE_FAILED, UNCLEAR_END, Failure, printable
from protocol.types import TaskId
from protocol.wire import Assignment
from workers.data.download import DownloadBudget, retry_after
from workers.data.image_name import ImageName, read_image_name
from workers.data.layout import Layout, discard
from workers.data.registry import Manifest, RegistryImage, RegistryPolicy
from workers.moments import is_older
from workers.sandbox import disk, engine_disk
from workers.sandbox.engine.container import Engine
from workers.sandbox.images.image_store import ImageStore, StoredImage, archive, engine_name, read_config, unpacked_size
from workers.sandbox.images.images_refused import Obstacle, RefusedImage, RefusedImages
from workers.sandbox.images.layer_entries import ENTRY_BYTES, LayerEntries
from workers.task.deadline import TaskDeadline, backoff
from workers.task.outcome import verdict
from workers.task.outcome.verdict import Verdict

log = structlog.get_logger(__name__)

#: Seconds for which a tag counts as unchanged since its registry was asked: machines of one task must agree.
FRESH_SECONDS = 3600.0
_NO_CHECKSUM = "0x" + "0" * 64


@dataclass(frozen=True, slots=True)
class ImageRules:
    """What this machine takes. `local`: names of deals that stand for images of the engine's own."""

    registry: RegistryPolicy
    local: frozenset[str] = frozenset()
    #: Bytes that fetched images may take on the engine; the least recently used go first.
    disk_bytes: int = 2**63


def require_name(assignment: Assignment) -> ImageName:
    """The image's name. Raises TaskFailure for what no machine could fetch: a name that no image can have, or one with
    neither tag nor digest, whatever image of that name this machine may have.
    """
    name = read_image_name(assignment.image)
    if name is None:
        raise _failed(assignment, "no image can have this name, or it has neither tag nor digest")
    return name


class AppImage:
    """The image of one task's app, as the engine has it or as its registry gives it."""

    def __init__(
        self, engine: Engine, layout: Layout, rules: ImageRules, assignment: Assignment, deadline: TaskDeadline
    ) -> None:
        self._engine, self._layout, self._rules = engine, layout, rules
        self._assignment, self._deadline = assignment, deadline
        self._store, self._refused = ImageStore(layout.root), RefusedImages(layout.root)
        self._name = require_name(assignment)
        self._wanted = f"{assignment.image} {assignment.image_checksum}"

    def known(self) -> str | None:
        """The name under which the engine has the image, if its registry need not be asked; None: call `fetch`.

        That is an image of SLUICE_LOCAL_IMAGES, or one fetched before whose tag was confirmed within FRESH_SECONDS.
        """
        if self._assignment.image in self._rules.local:
            return self._assignment.image
        found = self._store.find(self._wanted)
        if found is None or (self._name.digest is None and is_older(found.confirmed, FRESH_SECONDS, time.time())):
            return None
        return found.name

    def fetch(self) -> str:
        """Fetch the image from its registry into the engine; returns its name there. Failures are retried while the
        task has time.

        Raises TaskFailure with iExec's cause if the image is certainly absent or too large; TaskDeclined,
        EngineUnavailable.
        """
        if self._assignment.image in self._rules.local:
            raise self._declined("an image of SLUICE_LOCAL_IMAGES is not on this machine's engine", MACHINE_FAILED)
        failures = 0
        lock = "image-" + hashlib.sha256(self._wanted.encode()).hexdigest()
        while True:
            try:
                # Several tasks of one deal arrive at once: one fetches, the others find it done.
                with self._layout.lock(lock, wait=True):
                    name = self._fetch()
                self._refused.fetched(self._assignment.image, self._name.registry)
                return name
            except StorageUnavailable as error:
                failures += 1
                log.warning(
                    "The image could not be fetched; it is tried again.",
                    action="image_retry",
                    image=self._assignment.image,
                    why=str(error),
                )
                if isinstance(error, RateLimited):
                    self._note(Obstacle.RATE_LIMIT, error, retry_after(error))
                known = self._store.find(self._wanted)
                if known is not None and self._engine.has_image(known.name):
                    # A registry that does not answer has not moved the tag, as far as anybody can tell.
                    return known.name
                wait = max(backoff(failures), retry_after(error))
                self._deadline.wait_before_fetch(wait, f"its image cannot be fetched: {error}")
            except RefusedHere as error:
                if isinstance(error, WrongPlatform):
                    self._note(Obstacle.PLATFORM, error)
                raise self._declined(str(error)) from error
            except (Refused, TooLarge) as error:
                raise _failed(self._assignment, str(error)) from error

    def _fetch(self) -> str:
        """Ask the registry for the manifest, and download and load the image unless the engine has it already.

        Returns its name in the engine. Raises StorageUnavailable, Refused, RefusedHere, TooLarge, EngineUnavailable.
        """
        platform = self._engine.platform
        budget = DownloadBudget(self._deadline, self._rules.registry.max_bytes)
        source = RegistryImage(self._name, platform, self._rules.registry, budget)
        manifest = self._manifest(source)
        name, known = engine_name(manifest.config.digest), self._store.find(self._wanted)
        now = time.time()
        if known is not None and known.name == name and self._engine.has_image(name):
            self._store.put(replace(known, confirmed=now))
            return name
        log.info(
            "Fetching image.",
            action="image_pull",
            image=self._assignment.image,
            digest=manifest.digest,
            bytes=manifest.size,
            task=self._assignment.task_id,
        )
        self._load(source, manifest, name, platform)
        self._store.shrink(self._engine, self._rules.disk_bytes, name)
        return name

    def _manifest(self, source: RegistryImage) -> Manifest:
        """The image's manifest: by the app's checksum if the registry has that, else by its name. Raises Refused."""
        checksum = self._assignment.image_checksum
        if self._name.digest is None and checksum != _NO_CHECKSUM:
            # Most apps register the digest of their image here, but nobody has ever checked it.
            try:
                return source.manifest(f"sha256:{checksum.removeprefix('0x')}")
            except RefusedHere:
                # Other machines may have run it: what the tag names now could be another image.
                raise
            except Refused as error:
                log.info("The registry has no image of the app's checksum.", action="checksum_unknown", why=str(error))
        return source.manifest(self._name.wanted)

    def _load(self, source: RegistryImage, manifest: Manifest, name: str, platform: tuple[str, str]) -> None:
        """Fetch config and layers and load them into the engine."""
        self._clean()
        folder = self._store.fetch_folder(self._wanted)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            config = source.config(manifest)
            size, entries, files = self._layers(source, manifest, config, platform, folder)
            with engine_disk.alone(self._layout, self._deadline.wait):
                # The engine keeps what it is sent until it has unpacked it.
                sent = sum(file.stat().st_size for file in files.values())
                self._require_room(sent + size + entries * ENTRY_BYTES, entries)
                stored = StoredImage(self._wanted, name, manifest.digest, size, time.time(), whole=False)
                self._take(stored, archive(name, config, manifest.layers, files))
        finally:
            discard(folder)

    def _take(self, image: StoredImage, sent: Iterator[bytes]) -> None:
        """Have the engine take an image. First the record: an image without one would stay on the engine for ever."""
        left = self._store.cut_off(self._wanted)
        if left is not None:
            # Its files may be there and empty, and the engine would take none that it has again.
            self._engine.remove_image(left.name)
        self._store.put(image)
        try:
            self._engine.load(sent, meanwhile=self._deadline.check)
        except TaskDeclined:
            self._store.forget(self._wanted)
            raise
        except EngineTrouble as error:
            self._store.forget(self._wanted)
            # Whoever made the image may have meant that.
            raise RefusedHere(why=f"the engine does not take the image: {error.fields['why']}") from error
        if not self._engine.has_image(image.name):
            raise EngineTrouble(what=self._engine.host, why="it took the image and does not have it")
        engine_disk.keep(self._engine.data_folder)
        self._store.put(replace(image, whole=True))

    def _layers(
        self, source: RegistryImage, manifest: Manifest, config: bytes, platform: tuple[str, str], folder: Path
    ) -> tuple[int, int, dict[str, Path]]:
        """Fetch and check the layers; returns their unpacked bytes, the number of their files, and where they are."""
        try:
            made_for, diff_ids = read_config(config)
        except BadMessage as error:
            raise RefusedHere(why=str(error)) from error
        if verdict.of_platform(made_for, platform) is Verdict.MACHINE:
            raise WrongPlatform(why=f"the image is for {'/'.join(made_for)}, and this machine is {'/'.join(platform)}")
        if len(diff_ids) != len(manifest.layers):
            raise RefusedHere(why="the image has more or fewer layers than its configuration says")
        size, entries, files, policy = 0, 0, dict[str, Path](), self._rules.registry
        for blob, diff_id in zip(manifest.layers, diff_ids, strict=True):
            target = folder / blob.digest.removeprefix("sha256:")
            if blob.digest not in files:
                source.layer(blob, target, self._require_room)
                files[blob.digest] = target
            try:
                most = min(policy.max_bytes, policy.pool_max_bytes) - size
                found = LayerEntries()
                unpacked = unpacked_size(target, blob, diff_id, most, self._deadline.check, found)
            except BadMessage as error:
                raise RefusedHere(why=str(error)) from error
            if unpacked is None:
                raise policy.too_large(min(policy.max_bytes, policy.pool_max_bytes) + 1) or RefusedHere(why="too large")
            size, entries = size + unpacked, entries + found.count
        return size, entries, files

    def _require_room(self, size: int = 0, entries: int = 0) -> None:
        """Raise TaskDeclined if this machine's disk or the engine's would get full, of bytes or of inodes."""
        task_id = TaskId(self._assignment.task_id)
        disk.require_free_space(task_id, self._layout.root, self._layout.least_free, cause=UNCLEAR_END)
        engine_folder = self._engine.data_folder
        if size and engine_folder is not None:
            wanted = size + self._layout.least_free, entries + disk.LEAST_FREE_INODES
            if disk.free_share(engine_folder, *wanted) < 1:
                self._store.shrink(self._engine, 0, "")
            disk.require_free_space(task_id, engine_folder, *wanted, cause=UNCLEAR_END)

    def _clean(self) -> None:
        """Delete what fetches that were killed have left."""
        for folder in self._store.fetch_folders():
            lock = f"image-{folder.name.removeprefix('fetch-')}"
            if folder == self._store.fetch_folder(self._wanted):
                discard(folder)
                continue
            with self._layout.lock(lock, wait=False) as held:
                if held:
                    discard(folder)

    def _note(self, obstacle: Obstacle, error: Refused | StorageUnavailable, wait: float = 0.0) -> None:
        """Record why the image cannot be had, for `doctor`. `wait`: seconds that the registry asked for, 0 if none."""
        now = time.time()
        # A registry's words may stand in it, and it is shown on terminals.
        why, until = " ".join(printable(str(error.fields["why"])).split()), now + wait if wait else None
        image = self._assignment.image
        self._refused.note(RefusedImage(image, self._name.registry, obstacle, why, now, until))

    def _declined(self, why: str, cause: str = UNCLEAR_END) -> TaskDeclined:
        """The error for an image that this machine cannot take. It blames nobody: the deal may have intended it."""
        return TaskDeclined(task=self._assignment.task_id, cause=cause, why=why)


def _failed(assignment: Assignment, why: str) -> TaskFailure:
    """The error for an image that no machine can take."""
    failure = Failure.APP_IMAGE
    return TaskFailure(task=assignment.task_id, status=failure.status, cause=failure, why=why)
