"""Results of enclaves on their way in: by whose word they are taken, and which zips are."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from pipeline.api.results.enclaves import attestation_of, check_attested, is_encrypted
from pipeline.api.results.result_zip import MAX_UNPACKED_BYTES, CheckedResult, repack
from pipeline.domain.records import TaskRecord
from protocol.enclave.result import CONTENT_FILE, KEY_FILE, write_encrypted
from protocol.errors import BadMessage, Refused
from protocol.ethereum.signing import Key
from protocol.poco.enclave import sign_result
from protocol.results.attestation import Attestation
from protocol.results.digest import file_digest
from protocol.types import Contract, Hash32, TaskId
from tests.unit.pipeline.builders import TASK, task, wallet

ENCLAVE, OTHER = Key.from_hex("0x" + "33" * 32), Key.from_hex("0x" + "44" * 32)
SEALED = task(trust=1, challenge=Contract(ENCLAVE.wallet))
CLEAR = {"computed.json": b'{"deterministic-output-path": "/iexec_out/result.txt"}', "result.txt": b"hello"}
DIGEST = file_digest(hashlib.sha256(b"hello").digest())


def signed(key: Key = ENCLAVE, *, number: int = 1, task_id: TaskId = TASK, digest: Hash32 = DIGEST) -> Attestation:
    return Attestation(digest, sign_result(key, wallet(number), task_id, digest))


def test_a_task_without_an_enclave_needs_no_signature_and_one_of_an_enclave_does() -> None:
    assert attestation_of(task(trust=1), wallet(1), {}) is None
    assert attestation_of(SEALED, wallet(1), signed().headers()) == signed()
    with pytest.raises(BadMessage, match="Enclave-Signature"):
        attestation_of(SEALED, wallet(1), {})


@pytest.mark.parametrize(
    "said",
    [
        signed(OTHER),
        signed(number=2),
        signed(task_id=TaskId("0x" + "01" * 32)),
        replace(signed(), digest=Hash32("0x" + "ab" * 32)),
    ],
    ids=["another key", "for another wallet", "for another task", "for another digest"],
)
def test_a_signature_by_another_challenge_or_for_something_else_is_refused(said: Attestation) -> None:
    with pytest.raises(Refused, match=f"not by {ENCLAVE.wallet}, the task's challenge"):
        attestation_of(SEALED, wallet(1), said.headers())


@pytest.mark.parametrize(
    ("params", "record", "wanted"),
    [
        ('{"iexec_result_encryption": true}', SEALED, True),
        ('{"iexec_result_encryption": false}', SEALED, False),
        ("", SEALED, False),
        ("null", SEALED, False),
        ('{"iexec_result_encryption": true}', replace(SEALED, callback=Contract("0x" + "cc" * 20)), False),
    ],
)
def test_a_result_is_encrypted_if_the_deal_says_so_and_no_contract_gets_it(
    params: str, record: TaskRecord, wanted: bool
) -> None:
    assert is_encrypted(params, record) is wanted


def check(path: Path, said: Attestation, *, encrypted: bool) -> CheckedResult:
    return check_attested(path, SEALED, said, encrypted=encrypted, max_unpacked=MAX_UNPACKED_BYTES)


def make(folder: Path, entries: Mapping[str, bytes]) -> Path:
    path = folder / "result.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_a_result_in_clear_must_have_the_digest_that_the_enclave_signed(tmp_path: Path) -> None:
    path = make(tmp_path, CLEAR)
    assert check(path, signed(), encrypted=False).digest == DIGEST
    with pytest.raises(Refused, match=f"the digest of this result is {DIGEST}"):
        check(path, signed(digest=Hash32("0x" + "ab" * 32)), encrypted=False)


def test_an_encrypted_result_has_the_digest_that_the_enclave_signed_and_is_stored_as_its_two_files(
    tmp_path: Path,
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    made = io.BytesIO()
    write_encrypted(made, [b"what nobody may read"], key.public_key(), b"\x05" * 32, b"\x06" * 16)
    came, stored = tmp_path / "came.zip", tmp_path / "stored.zip"
    came.write_bytes(b"bytes before the zip" + made.getvalue())
    checked = check(came, signed(), encrypted=True)
    assert (checked.digest, checked.computed) == (DIGEST, None)
    repack(came, stored, checked)
    with zipfile.ZipFile(stored) as after, zipfile.ZipFile(made) as before:
        assert {name: after.read(name) for name in after.namelist()} == {
            name: before.read(name) for name in (KEY_FILE, CONTENT_FILE)
        }
    assert b"bytes before the zip" not in stored.read_bytes()


@pytest.mark.parametrize(
    "entries",
    [CLEAR, {KEY_FILE: b"k"}, {KEY_FILE: b"k", CONTENT_FILE: b"c", "more": b"m"}, {f"a/{KEY_FILE}": b"k"}],
    ids=["in clear", "one file", "a third file", "in a folder"],
)
def test_a_zip_that_is_no_encrypted_result_is_refused_where_the_deal_wants_one(
    tmp_path: Path, entries: Mapping[str, bytes]
) -> None:
    with pytest.raises(BadMessage, match="wants its result encrypted"):
        check(make(tmp_path, entries), signed(), encrypted=True)


@pytest.mark.parametrize(
    ("key", "content"),
    [(0, 48), (1, 48), (255, 48), (1001, 48), (256, 0), (256, 16), (256, 32), (256, 47), (256, 49), (256, 16 + 22)],
)
def test_files_that_cannot_be_an_rsa_key_and_an_encrypted_zip_are_refused_by_their_sizes(
    tmp_path: Path, key: int, content: int
) -> None:
    with pytest.raises(BadMessage, match=f"wants its result encrypted: .* has {content if key == 256 else key} bytes"):
        check(make(tmp_path, {KEY_FILE: bytes(key), CONTENT_FILE: bytes(content)}), signed(), encrypted=True)


@pytest.mark.parametrize(("key", "content"), [(256, 48), (512, 48), (1000, 2**20)])
def test_what_an_encrypted_result_holds_is_not_the_pools_to_see(tmp_path: Path, key: int, content: int) -> None:
    path = make(tmp_path, {KEY_FILE: bytes(key), CONTENT_FILE: bytes(content)})
    assert check(path, signed(), encrypted=True).digest == DIGEST


def test_an_encrypted_result_is_refused_where_the_deal_wants_it_in_clear(tmp_path: Path) -> None:
    with pytest.raises(BadMessage, match=r"no computed\.json"):
        check(make(tmp_path, {KEY_FILE: b"k", CONTENT_FILE: b"c"}), signed(), encrypted=False)
