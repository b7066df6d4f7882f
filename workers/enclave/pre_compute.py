"""What happens before an app in an enclave: its input files and its datasets are fetched, checked and decrypted.

address of a dataset   ──► sealed/<dataset>   sha256 as on chain, kept for the deal's later tasks
its key in the session ──► in/<dataset>       whole or not there

The deal's dataset is in the assignment; those of its slice of a bulk are in the session alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from protocol.enclave.cipher import decrypted, read_key
from protocol.errors import BadMessage, TaskDeclined, TaskFailure
from protocol.results.error_result import SESSION_UNKNOWN, EnclaveFailure, Failure
from protocol.wire import Dataset
from workers.data import inputs
from workers.data.download import DownloadPolicy
from workers.enclave.port import Work
from workers.sandbox import disk

#: Bytes that are decrypted at a time.
PIECE_BYTES = 2**20
_CAUSES = {
    Failure.DATASET_FILE: EnclaveFailure.DATASET_FILE,
    Failure.DATASET_CHECKSUM: EnclaveFailure.DATASET_CHECKSUM,
    Failure.INPUT_FILES: EnclaveFailure.INPUT_FILES,
}


def fetch(work: Work, policy: DownloadPolicy, variables: Mapping[str, str]) -> None:
    """Put input files and datasets, decrypted, into the folder that the app sees. `variables`: the session's for this.

    Raises TaskDeclined.
    """
    folders, keys = work.folders, _keys(work, variables)
    without_dataset = work.assignment.model_copy(update={"dataset": None})
    with _declined(work):
        inputs.fetch(without_dataset, work.params, folders.inputs, work.layout, policy, work.deadline)
        missing = {each: key for each, key in keys.items() if not (folders.inputs / each.address).exists()}
        folders.sealed.mkdir(exist_ok=True)
        inputs.fetch_datasets(work.assignment, [*missing], folders.sealed, work.layout, policy, work.deadline)
    for dataset, key in missing.items():
        _open(work, dataset, key)


def _keys(work: Work, variables: Mapping[str, str]) -> dict[Dataset, str]:
    """The key of each dataset, as the session has it. Raises TaskDeclined."""
    own = work.assignment.dataset
    found = {} if own is None else {own: variables.get("IEXEC_DATASET_KEY", "")}
    try:
        for number in range(1, int(variables.get("IEXEC_BULK_SLICE_SIZE", "0")) + 1):
            address, url, checksum, key = (
                variables[f"IEXEC_DATASET_{number}_{part}"] for part in ("FILENAME", "URL", "CHECKSUM", "KEY")
            )
            # The address is a file's name here.
            found[Dataset(address=address, url=url, checksum=checksum)] = key
    except (KeyError, ValueError):
        # Not the error's own words, which may hold a value.
        why = "the session does not name the datasets of its slice"
        raise TaskDeclined(task=work.task_id, cause=SESSION_UNKNOWN, why=why) from None
    return found


def _open(work: Work, dataset: Dataset, key: str) -> None:
    """Decrypt a dataset into the app's folder. Raises TaskDeclined for a wrong key."""
    folders = work.folders
    sealed, target = folders.sealed / dataset.address, folders.inputs / dataset.address
    floor = disk.LEAST_FREE_BYTES + sealed.stat().st_size
    disk.require_free_space(work.task_id, folders.root, floor)
    # A wrong key is noticed at the end: until then the app's folder has nothing.
    partial = folders.sealed / f"{dataset.address}.clear"
    try:
        with partial.open("wb") as file:
            for piece in decrypted(_pieces(work, sealed), read_key(key)):
                file.write(piece)
    except BadMessage as error:
        raise TaskDeclined(task=work.task_id, cause=EnclaveFailure.DATASET_KEY, why=str(error)) from None
    # The container's user is whoever the image says.
    partial.chmod(0o644)
    partial.replace(target)


def _pieces(work: Work, path: Path) -> Iterator[bytes]:
    """The bytes of a file, piece by piece, as long as there is time. Raises TaskDeclined."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            work.deadline.check()
            yield piece


@contextmanager
def _declined(work: Work) -> Iterator[None]:
    """Raise failures of the block as declined, with the cause that the enclave's pre-compute gives."""
    try:
        yield
    except TaskDeclined:
        raise
    except TaskFailure as error:
        cause = _CAUSES[Failure(error.cause)]
        raise TaskDeclined(task=work.task_id, cause=cause, why=str(error.fields["why"])) from error
