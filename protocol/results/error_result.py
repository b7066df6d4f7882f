"""What a worker reports when there is no result: an error result that tells why, equal on every honest worker; or that
the fault is its own machine's, and then it contributes nothing.

The text is hashed, so it must equal iExec Worker 9.2's to the byte, which has it for downloads only
and leaves a task whose app failed to its deadline; here the requester gets the same words.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from protocol.results.digest import file_digest
from protocol.types import Hash32

#: Cause of a replicate that its own machine failed: a full disk, no Docker engine. Another machine may do better.
MACHINE_FAILED = "MACHINE_FAILED"
#: The app ran out of memory on a machine that offers less than the pool promises per slot: a machine that keeps the
#: promise may do better, and the smaller one is not to blame either.
MACHINE_MEMORY = "MACHINE_OUT_OF_MEMORY"
#: What ended the task may be this machine's doing, and whoever made the deal, its app or its inputs can bring it about
#: on every machine: an end as of an app that its machine stops (killed, an instruction that the processor lacks), an
#: input whose server refuses this machine, an image that the engine or this machine does not take, too little space for
#: the deal's files. Neither is to blame.
UNCLEAR_END = "APP_OR_MACHINE_FAILED"
#: Cause of an assignment that the workerpool's owner did not sign as it stands.
NOT_AUTHORIZED = "WORKERPOOL_AUTHORIZATION_NOT_FOUND"
#: Cause of a task whose contribution deadline has passed.
CONTRIBUTION_TIMEOUT = "CONTRIBUTION_TIMEOUT"
#: Cause of a task that this machine gave back: by its operator's wish, or because the scheduler stopped it.
ABORTED = "ABORTED_BY_WORKER"
#: Cause of a task for a kind of enclave that this machine does not run.
NO_ENCLAVE = "TEE_NOT_SUPPORTED"
#: Cause of a task for an enclave where the images of pre- and post-compute cannot be had.
NOT_PREPARED = "TEE_PREPARATION_FAILED"
#: Cause of a task for an enclave whose version of the framework the secret service does not have.
NO_PROPERTIES = "GET_TEE_SERVICES_CONFIGURATION_FAILED"
#: Cause of a task whose app's enclave has a larger heap than this machine gives.
APP_HEAP = "PRE_COMPUTE_INVALID_ENCLAVE_HEAP_CONFIGURATION"
#: Prefix of causes for which the secret service makes no session; iExec SMS's own name follows.
NO_SESSION = "TEE_SESSION_GENERATION_"
#: The secret service does not answer, or not as one.
SESSION_UNKNOWN = f"{NO_SESSION}UNKNOWN_ISSUE"
#: The secret service does not have the challenge with which the task was given out: it may have lost it.
LOST_CHALLENGE = f"{NO_SESSION}GET_SIGNATURE_TOKENS_FAILED_EMPTY_TEE_CHALLENGE"
#: The key in a session is not that of the task's challenge.
NO_ENCLAVE_KEY = "ENCLAVE_SIGNATURE_NOT_FOUND"
#: All causes of a replicate that its worker declined, but those of an enclave's session.
DECLINED = frozenset(
    {
        MACHINE_FAILED,
        MACHINE_MEMORY,
        UNCLEAR_END,
        NOT_AUTHORIZED,
        CONTRIBUTION_TIMEOUT,
        ABORTED,
        NO_ENCLAVE,
        NOT_PREPARED,
        NO_PROPERTIES,
        APP_HEAP,
    }
)
#: Characters of a cause in a report (`protocol.wire`).
CAUSE_CHARACTERS = 200
#: Name of the file in `/iexec_out`.
ERROR_FILE = "error.txt"


#: Those of these causes that are not the machine's fault.
_EXCUSED = frozenset({MACHINE_MEMORY, UNCLEAR_END, NO_ENCLAVE_KEY, NOT_PREPARED, NO_PROPERTIES, APP_HEAP})


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
    #: The app needed more memory than the pool promises per slot.
    OUT_OF_MEMORY = "APP_OUT_OF_MEMORY"
    #: The app ended with 0 and left no computed.json, or one that does not say what the deal needs.
    COMPUTED_FILE = "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND"
    #: computed.json points to nothing.
    RESULT_DIGEST = "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED"
    FILE_NAME = "POST_COMPUTE_TOO_LONG_RESULT_FILE_NAME"
    #: Too many files or bytes, or names that no zip can carry.
    OUTPUT_ZIP = "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED"

    @property
    def status(self) -> str:
        """The PoCo replicate status in which this failure happens."""
        match self:
            case Failure.APP_IMAGE:
                return "APP_DOWNLOAD_FAILED"
            case Failure.DATASET_FILE | Failure.DATASET_CHECKSUM | Failure.INPUT_FILES:
                return "DATA_DOWNLOAD_FAILED"
            case _:
                return "COMPUTE_FAILED"


class EnclaveFailure(StrEnum):
    """Failures of tasks for enclaves that any machine would meet, by the names of iexec-worker 9.2. They end without a
    result: an enclave answers for what its app has left, and no text can stand for that.
    """

    DATASET_FILE = "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED"
    DATASET_CHECKSUM = "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"
    #: The key that its owner has stored does not open it.
    DATASET_KEY = "PRE_COMPUTE_DATASET_DECRYPTION_FAILED"
    INPUT_FILES = "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
    RESULT_KEY = "POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY"
    #: The chain has nothing of the app's SGX enclave, ...
    NO_APP_ENCLAVE = "PRE_COMPUTE_MISSING_ENCLAVE_CONFIGURATION"
    #: ... or what is none.
    APP_ENCLAVE = "PRE_COMPUTE_INVALID_ENCLAVE_CONFIGURATION"
    #: More than its beneficiary's SDK decrypts.
    RESULT_SIZE = "POST_COMPUTE_ENCRYPTION_FAILED"
    #: The secret service has no key of the dataset, ...
    NO_DATASET_KEY = f"{NO_SESSION}PRE_COMPUTE_GET_DATASET_SECRET_FAILED"
    #: ... or none that the result could be encrypted for.
    NO_RESULT_KEY = f"{NO_SESSION}POST_COMPUTE_GET_ENCRYPTION_TOKENS_FAILED_EMPTY_BENEFICIARY_KEY"


def worded(code: str, why: str) -> str:
    """A cause as reports carry it: the code, a colon and the reason, cut to CAUSE_CHARACTERS.

    An app's own words may stand in the reason; it is shown on terminals.
    """
    text = f"{code}: {' '.join(printable(why).split())}" if why.strip() else code
    return text if len(text) <= CAUSE_CHARACTERS else text[: CAUSE_CHARACTERS - 1] + "…"


def printable(text: str) -> str:
    """`text` with `?` for what is no printable character, e.g. a terminal's escape sequences."""
    return "".join(character if character.isprintable() or character.isspace() else "?" for character in text)


def cause_code(cause: str | None) -> str | None:
    """The code of a cause, without its words."""
    return cause if cause is None else cause.partition(":")[0]


def blames_task(cause: str | None) -> bool:
    """Whether this cause says that the task would fail on any worker."""
    return cause_code(cause) in frozenset(Failure) | frozenset(EnclaveFailure)


def counts_against_machine(cause: str | None) -> bool:
    """Whether a failure with this cause counts against the machine.

    It does not where the app failed, wanted more memory than a small machine has, or may have failed by itself: else
    a few apps that end with such a code would idle every machine of a pool. Nor where the secret service gives no
    session, or not the task's, or names images that nobody can have: all machines ask the same one.
    """
    code = cause_code(cause) or ""
    excused = code in _EXCUSED or code.startswith(NO_SESSION)
    return not excused and not blames_task(cause)


def error_text(failure: Failure) -> bytes:
    """Content of `error.txt`: no newline at its end."""
    return (
        f"[IEXEC] Errors occurred while computing the task "
        f"[error:{failure.status}, causes:[WorkflowError[cause={failure.value}, message=]]]"
    ).encode()


def error_computed(output: str = "/iexec_out") -> dict[str, str]:
    """Content of `computed.json` in the error result: it names ERROR_FILE as what is voted on. `output`: the output
    folder as the app sees it.
    """
    return {"deterministic-output-path": f"{output}/{ERROR_FILE}"}


def error_digest(failure: Failure) -> Hash32:
    """Digest of the error result, which workers vote for when a task fails this way."""
    return file_digest(hashlib.sha256(error_text(failure)).digest())
