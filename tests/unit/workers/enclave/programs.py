"""Pre- and post-compute in Python, for machines without an engine: another implementation of the programs in
`enclaves/`, which `tests/integration/sms/enclave_images.py` holds against it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from protocol.enclave.cipher import IV_BYTES, KEY_BYTES, decrypted, read_key
from protocol.enclave.result import read_public_key, write_encrypted
from protocol.enclave.session import PRE_COMPUTE, Service
from protocol.errors import BadMessage, TaskFailure
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.enclave import session_message, sign_result
from protocol.types import Wallet
from workers.data import outputs
from workers.data.outputs import ResultLimits
from workers.enclave import door as door_
from workers.enclave.door import Door
from workers.enclave.port import Host, Work
from workers.enclave.surrounding import Shape
from workers.sandbox.engine.container_state import ContainerExit

#: Called with the path of a file, gives its bytes.
Fetch = Callable[[str], bytes]
LIMITS = ResultLimits(2**30)


class Failed(Exception):
    """Ends a program with a cause."""


def run(
    service: Service, work: Work, host: Host, door: Door, shape: Shape, fetched: Fetch | None = None
) -> ContainerExit:
    """In place of a container of this service. `fetched`: pre-compute's own way to its files; None: by the door."""
    del host, shape
    variables, folders = service.environment, work.folders
    key = Key.from_hex(variables["SIGN_TEE_CHALLENGE_PRIVATE_KEY"])
    signed = key.sign_message(to_bytes(session_message(Wallet(variables["SIGN_WORKER_ADDRESS"]), work.task_id)))
    base = door_.URL + door_.FILES
    try:
        if service.name == PRE_COMPUTE:
            through = fetched or (lambda url: door.file(url.removeprefix(base)).read_bytes())
            fetch(variables, folders.inputs, through)
        else:
            with TemporaryDirectory() as scratch:
                zip_, computed = seal(work, variables, folders.outputs, Path(scratch))
                if zip_ is not None:
                    door.take_zip(variables["RESULT_STORAGE_TOKEN"], model(zip_))
            door.take_result(signed, computed)
    except Failed as failed:
        door.take_exit_causes(service.name, signed, json.dumps([{"cause": str(failed), "message": "why"}]).encode())
        return ContainerExit(1, False, False)
    return ContainerExit(0, False, False)


def fetch(variables: Mapping[str, str], folder: Path, fetched: Fetch) -> None:
    """Pre-compute: each dataset and input file, whole, in `folder`."""
    prefixes = ["IEXEC_DATASET"] if variables["IS_DATASET_REQUIRED"] == "true" else []
    prefixes += [f"IEXEC_DATASET_{number}" for number in range(1, int(variables.get("IEXEC_BULK_SLICE_SIZE", "0")) + 1)]
    for prefix in prefixes:
        sealed = fetched(variables[f"{prefix}_URL"])
        if f"0x{hashlib.sha256(sealed).hexdigest()}" != variables[f"{prefix}_CHECKSUM"]:
            raise Failed("PRE_COMPUTE_INVALID_DATASET_CHECKSUM")
        try:
            content = b"".join(decrypted([sealed], read_key(variables[f"{prefix}_KEY"])))
        except BadMessage:
            raise Failed("PRE_COMPUTE_DATASET_DECRYPTION_FAILED") from None
        (folder / variables[f"{prefix}_FILENAME"]).write_bytes(content)
    for number in range(1, int(variables["IEXEC_INPUT_FILES_NUMBER"]) + 1):
        name = variables[f"IEXEC_INPUT_FILE_NAME_{number}"]
        (folder / name).write_bytes(fetched(variables[f"IEXEC_INPUT_FILE_URL_{number}"]))


def seal(work: Work, variables: Mapping[str, str], folder: Path, scratch: Path) -> tuple[bytes | None, bytes]:
    """Post-compute: the zip that is stored, unless a contract gets the result, and what is said of it."""
    callback = variables["RESULT_STORAGE_CALLBACK"] == "true"
    clear = scratch / "clear.zip"
    try:
        packed = outputs.pack(work.task_id, folder, clear, callback=callback, result_limits=LIMITS)
    except TaskFailure as failure:
        raise Failed(failure.cause) from None
    key, wallet = Key.from_hex(variables["SIGN_TEE_CHALLENGE_PRIVATE_KEY"]), Wallet(variables["SIGN_WORKER_ADDRESS"])
    computed = {
        "deterministic-output-path": None if callback else "/iexec_out",
        "callback-data": packed.callback_data,
        "task-id": work.task_id,
        "result-digest": packed.digest,
        "enclave-signature": sign_result(key, wallet, work.task_id, packed.digest),
    }
    content = clear.read_bytes()
    if variables["RESULT_ENCRYPTION"] == "true":
        content = _encrypted(content, variables["RESULT_ENCRYPTION_PUBLIC_KEY"], scratch / "sealed.zip")
    return None if callback else content, json.dumps(computed).encode()


def _encrypted(content: bytes, public_key: str, target: Path) -> bytes:
    try:
        public = read_public_key(public_key)
    except BadMessage:
        raise Failed("POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY") from None
    with target.open("wb") as file:
        write_encrypted(file, [content], public, secrets.token_bytes(KEY_BYTES), secrets.token_bytes(IV_BYTES))
    return target.read_bytes()


def model(content: bytes) -> Iterator[bytes]:
    """The body by which a result is stored, in pieces."""
    body = json.dumps(
        {"chainTaskId": "0x", "zip": base64.b64encode(content).decode(), "deterministHash": "0x"}
    ).encode()
    return iter([body[:100], body[100:]])
