"""The app's image: asked for only when the engine turns out not to have it.

An app's image is on chain as text, e.g. `docker.io/iexechub/app:1.0`. As with Java workers it needs a tag or a digest;
unlike them, a local image is used without asking its registry (iexec-worker 9.2).
"""

from __future__ import annotations

import hashlib
import re

import structlog

from protocol.errors import TaskDeclined, TaskFailure
from protocol.results.error_result import MACHINE_FAILED, Failure
from protocol.wire import Assignment
from workers.data.layout import Layout
from workers.sandbox.container import Engine
from workers.task import verdict
from workers.task.deadline import TaskDeadline, backoff
from workers.task.verdict import Verdict

log = structlog.get_logger(__name__)

#: Characters of a name at most: Docker takes 255 of a repository, 128 of a tag, and a digest.
_NAME_CHARACTERS = 512
#: Docker's grammar of image names (distribution/reference): a registry with a port, a path, a tag or a digest.
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


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


def require_name(assignment: Assignment) -> None:
    """Raise TaskFailure for what no machine could fetch: a name that no image can have, or one with neither tag nor
    digest, whatever image of that name this machine may have.
    """
    if split_reference(assignment.image) is None:
        raise _failed(assignment, "the image name has neither tag nor digest")
    if len(assignment.image) > _NAME_CHARACTERS or _NAME.fullmatch(assignment.image) is None:
        raise _failed(assignment, "no image can have this name")


def pull(engine: Engine, layout: Layout, assignment: Assignment, deadline: TaskDeadline) -> None:
    """Fetch the app's image, again and again while it fails and `deadline` has the time.

    Raises TaskFailure with iExec's cause if the image is certainly absent, TaskDeclined, EngineUnavailable.
    """
    reference = split_reference(assignment.image)
    if reference is None:
        raise _failed(assignment, "the image name has neither tag nor digest")
    failures = 0
    # Several tasks of one deal arrive at once: one pulls, the others find it done (a repeated pull is a cheap check).
    lock = "image-" + hashlib.sha256(assignment.image.encode()).hexdigest()
    while True:
        with layout.lock(lock, wait=True):
            log.info("Pulling image.", action="image_pull", image=assignment.image, task=assignment.task_id)
            why = engine.pull(*reference, meanwhile=deadline.check)
        if why is None:
            return
        match verdict.of_pull(why):
            case Verdict.APP:
                raise _failed(assignment, why)
            case Verdict.MACHINE:
                raise TaskDeclined(task=assignment.task_id, cause=MACHINE_FAILED, why=why)
            case Verdict.RETRY:
                failures += 1
                log.warning(
                    "The image could not be pulled; the pull is retried.",
                    action="image_retry",
                    image=assignment.image,
                    why=why,
                )
                deadline.wait_before_retry(backoff(failures), f"its image cannot be pulled: {why}")


def _failed(assignment: Assignment, why: str) -> TaskFailure:
    failure = Failure.APP_IMAGE
    return TaskFailure(task=assignment.task_id, status=failure.status, cause=failure, why=why)
