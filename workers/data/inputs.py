"""A deal's dataset and input files in the folder that the container sees.

Datasets are checked against their on-chain sha256 and kept by it, so the later tasks of a bag find it there. What would
fail on every machine is reported with iExec's causes, which the requester reads in the error result (names of
iexec-worker 9.2); what may fail on this machine only is declined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import Refused, RefusedHere, StorageUnavailable, TaskDeclined, TaskFailure, TooLarge
from protocol.results.environment import input_file_name
from protocol.results.error_result import UNCLEAR_END, Failure
from protocol.results.params import DealParams
from protocol.types import TaskId
from protocol.wire import Assignment, Dataset
from workers.data import dataset_cache
from workers.data.download import DownloadBudget, DownloadPolicy, download
from workers.data.layout import Layout
from workers.sandbox import disk
from workers.task.deadline import TaskDeadline, backoff

#: Input files of a task at most; each costs a connection.
MAX_INPUT_FILES = 100


def fetch(
    assignment: Assignment,
    params: DealParams,
    folder: Path,
    layout: Layout,
    policy: DownloadPolicy,
    deadline: TaskDeadline,
) -> None:
    """Put the task's dataset and input files into `folder`. Raises TaskFailure; TaskDeclined."""
    budget = _budget(assignment, layout, policy, deadline)
    with _as_failure(assignment, Failure.INPUT_FILES):
        _check_urls(params.input_files)
    if assignment.dataset is not None:
        _dataset(assignment, assignment.dataset, folder / assignment.dataset.address, layout, policy, budget)
    for url in params.input_files:
        with _as_failure(assignment, Failure.INPUT_FILES):
            download(url, folder / input_file_name(url), policy, budget)


def fetch_datasets(
    assignment: Assignment,
    datasets: Sequence[Dataset],
    folder: Path,
    layout: Layout,
    policy: DownloadPolicy,
    deadline: TaskDeadline,
) -> None:
    """Put datasets, each under its address, into `folder`. Raises TaskFailure; TaskDeclined."""
    budget = _budget(assignment, layout, policy, deadline)
    for dataset in datasets:
        _dataset(assignment, dataset, folder / dataset.address, layout, policy, budget)


def _budget(assignment: Assignment, layout: Layout, policy: DownloadPolicy, deadline: TaskDeadline) -> DownloadBudget:
    """How many bytes and how long a task's inputs may take."""
    task_id = TaskId(assignment.task_id)
    return DownloadBudget(
        deadline,
        policy.max_bytes,
        policy.pool_max_bytes,
        lambda: disk.require_free_space(task_id, layout.root, layout.least_free, cause=UNCLEAR_END),
    )


def _check_urls(urls: tuple[str, ...]) -> None:
    """Refuse URLs that no worker could ever fetch, before anything is fetched."""
    if len(urls) > MAX_INPUT_FILES:
        raise Refused(why=f"the deal names {len(urls)} input files, and {MAX_INPUT_FILES} is the most")
    for url in urls:
        try:
            url.encode()
        except UnicodeEncodeError as error:
            # JSON can hold half of a surrogate pair, which is no character.
            raise Refused(why="an input file's address is no text") from error


def _dataset(
    assignment: Assignment,
    dataset: Dataset,
    target: Path,
    layout: Layout,
    policy: DownloadPolicy,
    budget: DownloadBudget,
) -> None:
    """Put a task's dataset at `target`, from the cache or by download. Raises TaskFailure, TaskDeclined."""

    def fetch_to(path: Path) -> None:
        """Download the dataset to `path`, errors raised as the task's."""
        with _as_failure(assignment, Failure.DATASET_FILE):
            _download_checked(assignment, dataset, path, policy, budget)

    dataset_cache.provide(layout.cache / dataset.checksum, target, fetch_to, assignment.task_id, budget.check)


def _download_checked(
    assignment: Assignment, dataset: Dataset, target: Path, policy: DownloadPolicy, budget: DownloadBudget
) -> None:
    """Fetch the dataset until its sha256 is right, or wrong in the same way twice: an answer that was cut short or
    damaged on its way to this machine would not have the same wrong sha256 again. Raises TaskFailure, TaskDeclined.
    """
    last, failures = None, 0
    while True:
        before = budget.spent
        found = download(dataset.url, target, policy, budget)
        if found == dataset.checksum:
            return
        target.unlink()
        budget.refund(budget.spent - before)
        why = f"its sha256 is {found}, and {dataset.checksum} is on chain"
        if found == last:
            raise _failure(assignment, Failure.DATASET_CHECKSUM, why)
        last, failures = found, failures + 1
        if failures > 1:
            budget.deadline.wait_before_fetch(backoff(failures), why)


@contextmanager
def _as_failure(assignment: Assignment, failure: Failure) -> Iterator[None]:
    """Raise errors of the block as the app's failure, or as TaskDeclined where they may be this machine's: a bad answer
    of the deal's server is not held against the machine either.
    """
    try:
        yield
    except (RefusedHere, StorageUnavailable) as error:
        raise TaskDeclined(task=assignment.task_id, cause=UNCLEAR_END, why=str(error)) from error
    except (Refused, TooLarge) as error:
        raise _failure(assignment, failure, str(error)) from error


def _failure(assignment: Assignment, failure: Failure, why: str) -> TaskFailure:
    """The failure of an input."""
    return TaskFailure(task=assignment.task_id, status=failure.status, cause=failure, why=why)
