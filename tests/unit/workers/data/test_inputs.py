"""Input files that no machine can fetch, and the budget of those that drip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from protocol.errors import RefusedHere, SluiceError, StorageUnavailable, TaskDeclined, TaskFailure, TooLarge
from protocol.results.environment import input_file_name
from protocol.results.error_result import Failure, counts_against_machine
from protocol.results.params import DealParams
from protocol.types import Timestamp
from protocol.wire import Dataset
from tests.unit.workers.assignments import LATER, assignment, task_id
from workers.data import inputs
from workers.data.download import TOTAL_FILES, DownloadBudget, DownloadPolicy
from workers.data.inputs import MAX_INPUT_FILES, fetch
from workers.data.layout import Layout
from workers.sandbox import disk
from workers.task.deadline import TaskDeadline

POLICY = DownloadPolicy(gateway="http://gate", max_bytes=1000, allow_private=False)


def deadline(until: float = LATER) -> TaskDeadline:
    return TaskDeadline(task_id(1), until, time.time, lambda: False)


def failure(home: Path, urls: Sequence[str], dataset: Dataset | None = None) -> TaskFailure:
    layout = Layout(home)
    layout.make()
    wanted = assignment(1, dataset=dataset)
    with pytest.raises(TaskFailure) as caught:
        fetch(wanted, DealParams(input_files=tuple(urls)), home, layout, POLICY, deadline())
    return caught.value


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b/",
        f"http://{'x' * 64}.example/",
        "http://example.com/\ud800",
        "\udfff",
        "http://[::1/",
        "http://a\0b/",
        "gopher://x",
        "",
    ],
)
def test_an_odd_address_fails_the_task_alike_on_every_machine(tmp_path: Path, url: str) -> None:
    error = failure(tmp_path, [url])
    assert not isinstance(error, TaskDeclined)
    assert error.cause == Failure.INPUT_FILES


def test_an_odd_dataset_address_fails_the_task_too(tmp_path: Path) -> None:
    dataset = Dataset(address="0x" + "ab" * 20, url="http://a..b/", checksum="0x" + "cd" * 32)
    assert failure(tmp_path, [], dataset).cause == Failure.DATASET_FILE


def test_an_attempt_that_was_killed_leaves_nothing_for_the_app_to_find_beside_its_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app that goes through all files of its folder would have another result here than elsewhere."""
    whole = [False, True]

    def stream(_: str, partial: Path, *__: object) -> tuple[str, bool]:
        partial.write_bytes(b"begun")
        if not whole.pop(0):
            raise KeyboardInterrupt
        return "0x", True

    monkeypatch.setattr("workers.data.download._stream", stream)
    layout = Layout(tmp_path / "home")
    layout.make()
    folder, params = tmp_path / "in", DealParams(input_files=("http://example.com/x",))
    folder.mkdir()
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        # A process that is killed deletes nothing, and the next one has another number.
        killed.setattr("os.getpid", lambda: 1)
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        fetch(assignment(1), params, folder, layout, POLICY, deadline())
    fetch(assignment(1), params, folder, layout, POLICY, deadline())
    assert [path.name for path in folder.iterdir()] == [input_file_name("http://example.com/x")]


def test_more_input_files_than_the_cap_are_refused_before_any_is_fetched(tmp_path: Path) -> None:
    error = failure(tmp_path, ["http://example.com/"] * (MAX_INPUT_FILES + 1))
    assert error.cause == Failure.INPUT_FILES
    assert "the most" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        RefusedHere(why="http://example.com/ answers HTTP 403"),
        RefusedHere(why="more than 1000 bytes, the most that this machine takes"),
        StorageUnavailable(what="example.com", why="it answers HTTP 503"),
    ],
    ids=["forbidden", "large", "busy"],
)
@pytest.mark.parametrize("of", ["an input file", "the dataset"])
def test_what_a_server_of_the_deals_answers_is_held_against_no_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: SluiceError, of: str
) -> None:
    """A requester's own server refuses every machine alike: two such tasks and each of them cooled down."""

    def refuse(*_: object) -> str:
        raise error

    monkeypatch.setattr(inputs, "download", refuse)
    dataset = Dataset(address="0x" + "ab" * 20, url="http://example.com/", checksum="0x" + "cd" * 32)
    files, given = (["http://example.com/"], None) if of == "an input file" else ([], dataset)
    declined = failure(tmp_path, files, given)
    assert isinstance(declined, TaskDeclined)
    assert not counts_against_machine(str(declined.cause))


def test_a_disk_that_an_input_fills_is_held_against_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_share", lambda *_: 0.5)

    def fill(url: str, target: Path, policy: DownloadPolicy, budget: DownloadBudget) -> str:
        del url, target, policy
        budget.room()
        return ""

    monkeypatch.setattr(inputs, "download", fill)
    assert not counts_against_machine(str(failure(tmp_path, ["http://example.com/"]).cause))


def test_all_files_of_a_task_share_one_number_of_bytes() -> None:
    budget = DownloadBudget(deadline(), 1000)
    budget.spend(1000 * TOTAL_FILES)
    with pytest.raises(TooLarge):
        budget.spend(1)


def test_a_task_that_only_this_machine_finds_too_large_is_declined() -> None:
    budget = DownloadBudget(deadline(), 1000, 5000)
    with pytest.raises(RefusedHere):
        budget.spend(1000 * TOTAL_FILES + 1)
    with pytest.raises(TooLarge):
        budget.spend(5000 * TOTAL_FILES)


def test_no_download_outlives_the_contribution_deadline() -> None:
    budget = DownloadBudget(deadline(until=Timestamp(1)), 1000)
    assert budget.seconds(20.0) <= 0.001
    with pytest.raises(TaskDeclined):
        budget.check()
