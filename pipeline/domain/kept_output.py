"""How much of what an app printed is stored, less from workers without a record: wallets cost nothing, disk does. Pure.

proven worker             its whole report, the first 10 of a task
worker never right yet    its whole report, the first 4 of a task, if it has a result
all others                the last 4,000 characters of each stream
"""

from __future__ import annotations

from itertools import takewhile

from pipeline.domain.records import ComputeLog, Replicate, Standing, TaskRecord
from protocol.wire import Step

#: Workers of a task, in the order they were asked, whose reports are kept whole: as many proven ones as may be asked
#: without success, and as many others as may decide a task. A whole report has up to 200,000 characters (twice
#: wire.LOG_TAIL_CHARACTERS), so a task keeps 2.8 million of these and 8,000 of each further worker's.
PROVEN_WHOLE, OTHERS_WHOLE = 10, 4
#: Characters kept of each stream of all other reports: some 50 lines, where programs say what went wrong.
SHORT_TAIL_CHARACTERS = 4_000


def kept_output(task: TaskRecord, replicate: Replicate, step: Step, stdout: str, stderr: str) -> ComputeLog:
    """What is stored of a report; the first line of what was cut tells how much."""
    whole = _whole(task, replicate, step)
    kept = (stdout, stderr) if whole else (_tail(stdout), _tail(stderr))
    return ComputeLog(task.task_id, replicate.wallet, *kept)


def _whole(task: TaskRecord, replicate: Replicate, step: Step) -> bool:
    """Whether what an app printed is kept whole: of the first machines of a task only."""
    proven = replicate.standing is Standing.PROVEN
    if not proven and step is not Step.COMPUTED:
        return False
    earlier = takewhile(lambda item: item.wallet != replicate.wallet, task.replicates)
    place = sum((item.standing is Standing.PROVEN) is proven for item in earlier)
    return place < (PROVEN_WHOLE if proven else OTHERS_WHOLE)


def _tail(text: str) -> str:
    """The last characters of a text, with a note of how many were cut."""
    cut = len(text) - SHORT_TAIL_CHARACTERS
    return text if cut <= 0 else f"[The pool has cut {cut} characters here.]\n{text[-SHORT_TAIL_CHARACTERS:]}"
