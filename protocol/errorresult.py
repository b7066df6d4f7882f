"""What a worker contributes when app or data cannot be had: a result that says so, equal on every honest worker.

The text is hashed, so it must be the incumbent's to the byte (worker.md §4.7).
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from protocol.digest import file_digest
from protocol.types import Hash32

#: Name of the file in `/iexec_out`.
ERROR_FILE = "error.txt"


class Failure(StrEnum):
    """Download failures that end in an error result, by PoCo cause."""

    APP_IMAGE = "APP_IMAGE_DOWNLOAD_FAILED"
    DATASET_FILE = "DATASET_FILE_DOWNLOAD_FAILED"
    DATASET_CHECKSUM = "DATASET_FILE_BAD_CHECKSUM"
    INPUT_FILES = "INPUT_FILES_DOWNLOAD_FAILED"

    @property
    def status(self) -> str:
        """Replicate status the failure belongs to."""
        return "APP_DOWNLOAD_FAILED" if self is Failure.APP_IMAGE else "DATA_DOWNLOAD_FAILED"


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
