"""Results of enclaves: believed for the enclave's signature, since nobody but their beneficiary may be able to read
them.

    task without a challenge    the digest is recomputed from the zip (`result_zip`)
    task with one               before the body is read: its headers' digest is signed by that challenge's key
        result encrypted        the zip has the two files that the beneficiary opens; the digest is the signed one
        result in clear         the digest is recomputed all the same, and must be the signed one
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.api.results.result_zip import CheckedResult, check_encrypted, check_result
from pipeline.domain.records import TaskRecord
from protocol.errors import BadMessage, Refused
from protocol.results.attestation import Attestation
from protocol.results.params import read_params
from protocol.types import ZERO_ADDRESS, Wallet


def attestation_of(task: TaskRecord, wallet: Wallet, headers: Mapping[str, str]) -> Attestation | None:
    """What the enclave says of the result that an upload brings; None for a task without one.

    `headers`: looked up by name in any case. Raises BadMessage, Refused.
    """
    if task.challenge == ZERO_ADDRESS:
        return None
    said = Attestation.of(headers)
    said.require_by(task.challenge, wallet, task.task_id)
    return said


def is_encrypted(params: str, task: TaskRecord) -> bool:
    """Whether the deal with these params wants its enclaves' results encrypted. What goes to a callback never is."""
    try:
        return read_params(params).result_encryption and not task.has_callback
    except BadMessage:
        return False


def check_attested(
    path: Path, task: TaskRecord, said: Attestation, *, encrypted: bool, max_unpacked: int
) -> CheckedResult:
    """Check the zip at `path` of a result that its enclave signed. Raises BadMessage, Refused."""
    if encrypted:
        return check_encrypted(path, said.digest, max_unpacked=max_unpacked)
    checked = check_result(path, callback=task.has_callback, max_unpacked=max_unpacked)
    if checked.digest != said.digest:
        raise Refused(why=f"the enclave signed {said.digest}, and the digest of this result is {checked.digest}")
    return checked
