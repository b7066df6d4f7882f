"""Encryption of datasets and results against `openssl` on the command line, which shares no code with ours here."""

from __future__ import annotations

import base64
import io
import random
import subprocess
import zipfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from protocol.enclave import result
from protocol.enclave.cipher import IV_BYTES, KEY_BYTES, decrypted, encrypted, read_key
from protocol.enclave.result import CONTENT_FILE, KEY_FILE, read_public_key, write_encrypted
from protocol.errors import BadMessage, TooLarge

#: Round trips of each kind: one program to start for a dataset's, two for a result's.
ROUND_TRIPS = 100
KEY, IV = bytes(range(KEY_BYTES)), bytes(range(100, 100 + IV_BYTES))
PRIVATE = rsa.generate_private_key(65537, 2048)


def openssl(*words: str, given: bytes) -> bytes:
    return subprocess.run(["openssl", *words], input=given, capture_output=True, check=True).stdout


def aes(direction: str, key: bytes, iv: bytes, given: bytes) -> bytes:
    return openssl("enc", direction, "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex(), given=given)


def pem(public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    return base64.b64encode(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).decode()


def cases(seed: int) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
    """Key, IV and a content in pieces: each length around a block's end is among them, and none."""
    draw = random.Random(seed)
    for number in range(ROUND_TRIPS):
        content = draw.randbytes(number if number < 40 else draw.randrange(20_000))
        cuts = sorted(draw.randrange(len(content) + 1) for _ in range(draw.randrange(4)))
        ends = [0, *cuts, len(content)]
        yield (
            draw.randbytes(KEY_BYTES),
            draw.randbytes(IV_BYTES),
            [content[begin:end] for begin, end in pairwise(ends)],
        )


def test_a_hundred_of_our_files_are_those_that_openssl_makes_and_we_open_them() -> None:
    for key, iv, pieces in cases(1):
        content = b"".join(pieces)
        theirs = iv + aes("-e", key, iv, content)
        assert b"".join(encrypted(pieces, key, iv)) == theirs
        cut = len(theirs) // 3
        assert b"".join(decrypted([theirs[:3], theirs[3:cut], theirs[cut:]], key)) == content


def test_openssl_opens_a_hundred_of_our_results_with_the_beneficiarys_key(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = read_public_key(pem(PRIVATE.public_key()))
    for key, iv, pieces in cases(2):
        stored = io.BytesIO()
        write_encrypted(stored, pieces, public, key, iv)
        with zipfile.ZipFile(stored) as archive:
            assert archive.namelist() == [KEY_FILE, CONTENT_FILE]
            wrapped, content = archive.read(KEY_FILE), archive.read(CONTENT_FILE)
        found = openssl("pkeyutl", "-decrypt", "-inkey", str(path), given=wrapped)
        assert found == key
        assert aes("-d", found, content[:IV_BYTES], content[IV_BYTES:]) == b"".join(pieces)


def test_a_file_that_was_cut_or_has_another_key_does_not_open() -> None:
    whole = b"".join(encrypted([b"a dataset" * 10], KEY, IV))
    for file, key in ((whole[:-1], KEY), (whole[:-16], KEY), (whole[:IV_BYTES], KEY), (whole, bytes(KEY_BYTES))):
        with pytest.raises(BadMessage, match="cut, or does not open"):
            list(decrypted([file], key))
    with pytest.raises(BadMessage, match="begins with an IV"):
        list(decrypted([whole[:15]], KEY))


@pytest.mark.parametrize("text", ["", "not base64!", "AAAA", base64.b64encode(bytes(31)).decode(), "é"])
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(BadMessage) as refused:
        read_key(text)
    assert not text or text not in str(refused.value)


def test_a_key_may_be_wrapped_by_a_line_end() -> None:
    text = base64.b64encode(KEY).decode()
    assert read_key(f" {text[:20]}\n{text[20:]}\n") == KEY


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "AAAA",
        base64.b64encode(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----").decode(),
        pem(rsa.generate_private_key(65537, 1024).public_key()),
        pem(ec.generate_private_key(ec.SECP256R1()).public_key()),
    ],
    ids=["empty", "no PEM", "no key", "too short", "not RSA"],
)
def test_a_result_is_encrypted_for_nothing_but_a_good_rsa_key(secret: str) -> None:
    with pytest.raises(BadMessage, match="encryption key"):
        read_public_key(secret)


def test_a_result_that_the_sdk_would_not_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "MOST_CONTENT_BYTES", 32)
    for size, fits in ((15, True), (16, False)):
        try:
            write_encrypted(io.BytesIO(), [bytes(size)], PRIVATE.public_key(), KEY, IV)
        except TooLarge:
            assert not fits
        else:
            assert fits
