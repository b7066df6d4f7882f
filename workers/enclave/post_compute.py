"""What happens after an app in an enclave: its result is digested, encrypted if its beneficiary wants it, and signed.

out/ ──► digest, of the files in clear ──► signature of its hash and seal by the task's challenge key
  └────► result.zip, or clear.zip ──► result.zip that the beneficiary's key alone opens
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from protocol.enclave.cipher import IV_BYTES, KEY_BYTES
from protocol.enclave.result import read_public_key, write_encrypted
from protocol.errors import BadInput, BadMessage, TaskDeclined, TooLarge
from protocol.ethereum.signing import Key
from protocol.poco.enclave import sign_result
from protocol.results.error_result import NO_ENCLAVE_KEY, EnclaveFailure
from protocol.types import Wallet
from workers.data import outputs
from workers.data.outputs import CHUNK_BYTES, PackedResult, ResultLimits
from workers.enclave.port import Work
from workers.sandbox import disk


def seal(work: Work, limits: ResultLimits, variables: Mapping[str, str]) -> PackedResult:
    """Write the zip that is uploaded; digest and signature of the result. `variables`: the session's for post-compute.

    Raises TaskFailure for what the app has left, TaskDeclined.
    """
    folders = work.folders
    # What a callback contract gets is public, and nothing else of the result is fetched by anybody.
    encrypts = variables.get("RESULT_ENCRYPTION") == "true" and not work.has_callback
    key = _challenge_key(work, variables)
    path = folders.clear_zip if encrypts else folders.zip
    packed = outputs.pack(work.task_id, folders.outputs, path, callback=work.has_callback, result_limits=limits)
    if encrypts:
        _encrypt(work, path, variables.get("RESULT_ENCRYPTION_PUBLIC_KEY", ""))
    signature = sign_result(key, Wallet(work.assignment.wallet), work.task_id, packed.digest)
    return replace(packed, enclave_signature=signature)


def _challenge_key(work: Work, variables: Mapping[str, str]) -> Key:
    """The key that signs the result in the enclave. Raises TaskDeclined unless it is that of the task's challenge."""
    try:
        key = Key.from_hex(variables.get("SIGN_TEE_CHALLENGE_PRIVATE_KEY", ""))
    except BadInput:
        key = None
    if key is None or key.wallet != work.assignment.enclave_challenge:
        why = f"the session has no key of {work.assignment.enclave_challenge}, the task's challenge"
        raise TaskDeclined(task=work.task_id, cause=NO_ENCLAVE_KEY, why=why)
    return key


def _encrypt(work: Work, clear: Path, public_key: str) -> None:
    """Encrypt a result's zip for the beneficiary. Raises TaskDeclined."""
    folders = work.folders
    disk.require_free_space(work.task_id, folders.root, disk.LEAST_FREE_BYTES + clear.stat().st_size)
    partial = folders.zip.with_name(f"{folders.zip.name}.part")
    try:
        with partial.open("wb") as file:
            key, iv = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(IV_BYTES)
            write_encrypted(file, _pieces(clear), read_public_key(public_key), key, iv)
    except TooLarge as error:
        raise TaskDeclined(task=work.task_id, cause=EnclaveFailure.RESULT_SIZE, why=str(error)) from error
    except BadMessage as error:
        raise TaskDeclined(task=work.task_id, cause=EnclaveFailure.RESULT_KEY, why=str(error)) from error
    else:
        partial.replace(folders.zip)
    finally:
        partial.unlink(missing_ok=True)


def _pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file, piece by piece."""
    with path.open("rb") as file:
        yield from iter(lambda: file.read(CHUNK_BYTES), b"")
