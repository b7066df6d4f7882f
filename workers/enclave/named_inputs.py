"""The datasets that pre-compute of one task fetches, by the variables in its session (iExec SMS 9.3)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from protocol.errors import TaskDeclined
from protocol.results.environment import input_file_name
from protocol.results.error_result import SESSION_UNKNOWN
from protocol.types import TaskId
from protocol.wire import Dataset


def datasets_of(task_id: TaskId, variables: Mapping[str, str]) -> dict[str, Dataset]:
    """The deal's dataset and those of the task's slice of a bulk, by the prefix of their variables' names.

    Raises TaskDeclined, without the session's words, which may be secrets.
    """
    try:
        prefixes = ["IEXEC_DATASET"] if variables.get("IS_DATASET_REQUIRED") == "true" else []
        size = int(variables.get("IEXEC_BULK_SLICE_SIZE", "0"))
        # One by one: the size may be any, and the first that has no variables ends it.
        slice_ = (f"IEXEC_DATASET_{number}" for number in range(1, size + 1))
        return {prefix: _dataset(prefix, variables) for prefix in chain(prefixes, slice_)}
    except (KeyError, ValueError):
        why = "the session does not name the datasets of its task"
        raise TaskDeclined(task=task_id, cause=SESSION_UNKNOWN, why=why) from None


def _dataset(prefix: str, variables: Mapping[str, str]) -> Dataset:
    """The dataset whose variables begin with `prefix`. Raises KeyError, ValueError."""
    # The address is a file's name here. iExec's service writes those of a bulk as their owners do, with capitals.
    address, url, checksum, _ = (variables[f"{prefix}_{part}"] for part in ("FILENAME", "URL", "CHECKSUM", "KEY"))
    return Dataset(address=address.lower(), url=url, checksum=checksum)


def fetched_at(
    base: str, variables: Mapping[str, str], datasets: Mapping[str, Dataset], urls: tuple[str, ...]
) -> dict[str, str]:
    """The variables for a program that gets all its files below the address `base`, under the names that the app knows.

    `urls`: of the input files; iExec's programs would name them by the addresses that they see.
    """
    found = dict(variables)
    for prefix, dataset in datasets.items():
        found[f"{prefix}_URL"] = base + dataset.address
    for number, url in enumerate(urls, start=1):
        name = input_file_name(url)
        found |= {f"IEXEC_INPUT_FILE_URL_{number}": base + name, f"IEXEC_INPUT_FILE_NAME_{number}": name}
    return found
