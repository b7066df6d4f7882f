"""The result that post-compute has sent to the door: checked, so that the contract will take it."""

from __future__ import annotations

from typing import Final

from protocol.errors import TaskDeclined
from protocol.results import zip_rules
from protocol.results.error_result import MACHINE_FAILED
from protocol.types import Hash32, Signature
from workers.data import outputs
from workers.data.outputs import PackedResult, ResultLimits
from workers.enclave.door import Door
from workers.enclave.port import Work
from workers.sandbox import disk

#: Bytes by which an encrypted zip is larger than the zip in it, generously.
_SEAL_BYTES: Final = 2**16


def most_zip_bytes(work: Work, limits: ResultLimits) -> int:
    """Most bytes that post-compute's zip may have; deletes an older zip, and requires space for the new one.

    Raises TaskFailure for what is no result, TaskDeclined for one that this machine does not take.
    """
    folders = work.folders
    size = zip_rules.largest_zip(outputs.require_fit(work.task_id, folders.outputs, limits))
    disk.require_free_space(work.task_id, folders.root, work.layout.least_free + size)
    folders.zip.unlink(missing_ok=True)
    return size + _SEAL_BYTES


def packed(door: Door, limits: ResultLimits) -> PackedResult:
    """The result to vote for, once post-compute has ended well. Raises TaskDeclined, TaskFailure."""
    work, folders = door.work, door.work.folders
    if door.result is None:
        raise _without(work, "it has not said what the result is")
    digest, callback_data = Hash32(door.result.result_digest), None
    if work.has_callback:
        # What a contract gets is public: nobody encrypts or stores it but this machine.
        own = outputs.pack(work.task_id, folders.outputs, folders.zip, callback=True, result_limits=limits)
        callback_data = own.callback_data
        if own.digest != digest:
            raise _without(work, f"its digest is {digest}, and that of the callback's data {own.digest}")
    elif not folders.zip.exists():
        raise _without(work, "it has not stored the result")
    return PackedResult(digest, callback_data, Signature(door.result.enclave_signature))


def _without(work: Work, why: str) -> TaskDeclined:
    """The error for a post-compute that ended well and left no usable result."""
    return TaskDeclined(task=work.task_id, cause=MACHINE_FAILED, why=f"post-compute ended well, but {why}")
