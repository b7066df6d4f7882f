"""The app's image: asked for only when the engine turns out not to have it.

An app's image is on chain as text, e.g. `docker.io/iexechub/app:1.0`. As with Java workers a pull needs a tag or a
digest; unlike them, a local image is used without asking its registry (iexec-worker 9.2).
"""

from __future__ import annotations

import hashlib

import structlog

from protocol.errorresult import Failure
from protocol.errors import TaskFailure
from protocol.wire import Assignment
from workers.container import Engine
from workers.layout import Layout
from workers.patience import Patience

log = structlog.get_logger(__name__)


def split_reference(image: str) -> tuple[str, str] | None:
    """Repository and tag (or `sha256:…` digest) of an image name; None if it names neither, or nothing at all."""
    repository, at, digest = image.partition("@")
    if at:
        return (repository, digest) if repository and digest else None
    repository, colon, tag = image.rpartition(":")
    # A colon before the last slash belongs to a registry's port.
    if not colon or not repository or not tag or "/" in tag:
        return None
    return repository, tag


def pull(engine: Engine, layout: Layout, assignment: Assignment, patience: Patience) -> None:
    """Fetch the app's image. Raises TaskFailure with iExec's cause if it cannot be had; EngineUnavailable; TaskDeclined
    by `patience`: a pull that has not ended in time has told nothing of the image.
    """
    reference = split_reference(assignment.image)
    if reference is None:
        raise _failed(assignment, "the image name has neither tag nor digest")
    # Several tasks of one deal arrive at once: one pulls, the others find it done (a repeated pull is a cheap check).
    with layout.hold("image-" + hashlib.sha256(assignment.image.encode()).hexdigest(), wait=True):
        log.info("Pulling image.", action="image_pull", image=assignment.image, task=assignment.task_id)
        why = engine.pull(*reference, meanwhile=patience.check)
    if why is not None:
        raise _failed(assignment, why)


def _failed(assignment: Assignment, why: str) -> TaskFailure:
    failure = Failure.APP_IMAGE
    return TaskFailure(task=assignment.task_id, status=failure.status, cause=failure, why=why)
