"""What happens before an app in an enclave: its input files and its dataset are fetched, checked and decrypted.

address of the dataset ──► sealed/<dataset>   sha256 as on chain, kept for the deal's later tasks
its key in the session ──► in/<dataset>       whole or not there
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.enclave.cipher import decrypted, read_key
from protocol.errors import BadMessage, TaskDeclined, TaskFailure
from protocol.results.error_result import EnclaveFailure, Failure
from protocol.results.params import DealParams
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


def fetch(work: Work, policy: DownloadPolicy, dataset_key: str) -> None:
    """Put input files and the dataset, decrypted, into the folder that the app sees. `dataset_key`: as in the session.

    Raises TaskDeclined.
    """
    folders, dataset = work.folders, work.assignment.dataset
    without_dataset = work.assignment.model_copy(update={"dataset": None})
    with _declined(work):
        inputs.fetch(without_dataset, work.params, folders.inputs, work.layout, policy, work.deadline)
        if dataset is None or (folders.inputs / dataset.address).exists():
            return
        folders.sealed.mkdir(exist_ok=True)
        inputs.fetch(work.assignment, DealParams(), folders.sealed, work.layout, policy, work.deadline)
    _open(work, dataset, dataset_key)


def _open(work: Work, dataset: Dataset, key: str) -> None:
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
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            work.deadline.check()
            yield piece


@contextmanager
def _declined(work: Work) -> Iterator[None]:
    try:
        yield
    except TaskDeclined:
        raise
    except TaskFailure as error:
        cause = _CAUSES[Failure(error.cause)]
        raise TaskDeclined(task=work.task_id, cause=cause, why=str(error.fields["why"])) from error
