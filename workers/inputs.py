"""A deal's dataset and input files in the folder that the container sees.

Datasets are checked against their on-chain sha256 and kept by it, so the later tasks of a bag find it there. Failures
carry iExec's causes: the requester reads them in the error result (as iexec-worker 9.2 names them).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errorresult import Failure
from protocol.errors import Refused, StorageUnavailable, TaskFailure, TooLarge
from protocol.params import DealParams
from protocol.wire import Assignment, Dataset
from workers.download import Budget, Policy, download
from workers.layout import Layout
from workers.patience import Patience
from workers.sandbox import input_file_name

#: Input files of a task at most; each costs a connection.
MAX_INPUT_FILES = 100


def fetch(
    assignment: Assignment, params: DealParams, folder: Path, layout: Layout, policy: Policy, patience: Patience
) -> None:
    """Put the task's dataset and input files into `folder`. Raises TaskFailure; TaskDeclined by `patience`."""
    budget = Budget(patience, policy.max_bytes)
    with _as_failure(assignment, Failure.INPUT_FILES):
        _check_urls(params.input_files)
    if assignment.dataset is not None:
        _dataset(assignment, assignment.dataset, folder / assignment.dataset.address, layout, policy, budget)
    for url in params.input_files:
        with _as_failure(assignment, Failure.INPUT_FILES):
            download(url, folder / input_file_name(url), policy, budget)


def _check_urls(urls: tuple[str, ...]) -> None:
    """Refuse what no worker could ever fetch, before anything is."""
    if len(urls) > MAX_INPUT_FILES:
        raise Refused(why=f"the deal names {len(urls)} input files, and {MAX_INPUT_FILES} is the most")
    for url in urls:
        try:
            url.encode()
        except UnicodeEncodeError as error:
            # JSON can hold half of a surrogate pair, which is no character.
            raise Refused(why="an input file's address is no text") from error


def _dataset(
    assignment: Assignment, dataset: Dataset, target: Path, layout: Layout, policy: Policy, budget: Budget
) -> None:
    if target.exists():
        return
    cached = layout.cache / dataset.checksum
    if not cached.exists():
        # Without a lock: whoever names this checksum beside an address that never answers would hold it for ever.
        fresh = layout.cache / f"{dataset.checksum}.{assignment.task_id}"
        with _as_failure(assignment, Failure.DATASET_FILE):
            found = download(dataset.url, fresh, policy, budget)
        if found != dataset.checksum:
            fresh.unlink()
            raise _failure(assignment, Failure.DATASET_CHECKSUM, f"its sha256 is {found}")
        fresh.replace(cached)
    # A second name for the same bytes: the container sees its folder read-only and cannot change them.
    os.link(cached, target)


@contextmanager
def _as_failure(assignment: Assignment, failure: Failure) -> Iterator[None]:
    try:
        yield
    except (StorageUnavailable, Refused, TooLarge) as error:
        raise _failure(assignment, failure, str(error)) from error


def _failure(assignment: Assignment, failure: Failure, why: str) -> TaskFailure:
    return TaskFailure(task=assignment.task_id, status=failure.status, cause=failure, why=why)
