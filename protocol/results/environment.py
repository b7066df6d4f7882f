"""The variables by which an app finds its task, its inputs and where to write (iexec-worker 9.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from protocol.results.computed import OUTPUT_FOLDER
from protocol.types import ZERO_ADDRESS, DealId, TaskId

INPUT_FOLDER: Final = "/iexec_in"


def input_file_name(url: str) -> str:
    """Name of an input file in `/iexec_in`: `0x` + sha256 of the URL's UTF-8 bytes (iexec-worker 9.2)."""
    return "0x" + hashlib.sha256(url.encode()).hexdigest()


def app_variables(
    task_id: TaskId,
    deal_id: DealId,
    index: int,
    *,
    bag: tuple[int, int],
    dataset: str | None,
    input_files: Sequence[str],
) -> dict[str, str]:
    """What every app gets. `bag`: index of the deal's first task, number of its tasks; `dataset`: its address."""
    first, size = bag
    named = dataset or ZERO_ADDRESS
    variables = {
        "IEXEC_TASK_ID": task_id,
        "IEXEC_DEAL_ID": deal_id,
        "IEXEC_TASK_INDEX": str(index),
        "IEXEC_IN": INPUT_FOLDER,
        "IEXEC_OUT": OUTPUT_FOLDER,
        "IEXEC_BOT_SIZE": str(size),
        "IEXEC_BOT_FIRST_INDEX": str(first),
        "IEXEC_BOT_TASK_INDEX": str(index),
        "IEXEC_DATASET_ADDRESS": named,
        "IEXEC_DATASET_FILENAME": named,
        "IEXEC_INPUT_FILES_NUMBER": str(len(input_files)),
    }
    if input_files:
        variables["IEXEC_INPUT_FILES_FOLDER"] = INPUT_FOLDER
    for number, url in enumerate(input_files, start=1):
        variables[f"IEXEC_INPUT_FILE_NAME_{number}"] = input_file_name(url)
    return variables
