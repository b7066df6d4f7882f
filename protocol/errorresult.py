"""What a worker says when there is no result: an error result that tells why, equal on every honest worker; or that
the fault is its own machine's, and then it contributes nothing.

The text is hashed, so it must be the incumbent's to the byte (iexec-worker 9.2), which has it for downloads only
and leaves a task whose app failed to its deadline; here the requester is told in the same words.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from protocol.digest import file_digest
from protocol.types import Hash32

#: Cause of a replicate that its own machine failed: a full disk, no Docker engine. Another machine may do better.
MACHINE_FAILED = "MACHINE_FAILED"
#: Name of the file in `/iexec_out`.
ERROR_FILE = "error.txt"


class Failure(StrEnum):
    """Failures that end in an error result, by PoCo cause."""

    APP_IMAGE = "APP_IMAGE_DOWNLOAD_FAILED"
    DATASET_FILE = "DATASET_FILE_DOWNLOAD_FAILED"
    DATASET_CHECKSUM = "DATASET_FILE_BAD_CHECKSUM"
    INPUT_FILES = "INPUT_FILES_DOWNLOAD_FAILED"
    #: The app ended with another code than 0, or could not be started at all, and left no computed.json.
    APP = "APP_COMPUTE_FAILED"
    #: The app ran past the category's time and left no computed.json.
    APP_TIMEOUT = "APP_COMPUTE_TIMEOUT"
    #: The app ended with 0 and left no computed.json, or one that does not say what the deal needs.
    COMPUTED_FILE = "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND"
    #: computed.json points to nothing.
    RESULT_DIGEST = "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED"
    FILE_NAME = "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME"
    #: Too many files or bytes, or names that no zip can carry.
    OUTPUT_ZIP = "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED"

    @property
    def status(self) -> str:
        """Replicate status the failure belongs to."""
        match self:
            case Failure.APP_IMAGE:
                return "APP_DOWNLOAD_FAILED"
            case Failure.DATASET_FILE | Failure.DATASET_CHECKSUM | Failure.INPUT_FILES:
                return "DATA_DOWNLOAD_FAILED"
            case _:
                return "COMPUTE_FAILED"


def blames_task(cause: str | None) -> bool:
    """Whether a worker that gives this cause says that any other worker would fail as well."""
    return cause in frozenset(Failure)


def error_text(failure: Failure) -> bytes:
    """Content of `error.txt`: no newline at its end."""
    return (
        f"[IEXEC] Errors occurred while computing the task "
        f"[error:{failure.status}, causes:[WorkflowError[cause={failure.value}, message=]]]"
    ).encode()


def error_computed(output: str = "/iexec_out") -> dict[str, str]:
    """Content of `computed.json` beside it; `output` is the output directory as the app sees it."""
    return {"deterministic-output-path": f"{output}/{ERROR_FILE}"}


def error_digest(failure: Failure) -> Hash32:
    """Result digest of the error result."""
    return file_digest(hashlib.sha256(error_text(failure)).digest())
