"""A result that only its beneficiary can read (iExec SDK 8.24 and 9.0.1, `decryptResult`).

    the zip that is stored ─┬─ iexec_out.zip.aes   the result's zip, as `protocol.enclave.cipher` encrypts it
                            └─ aes-key.rsa         its key, new for each result: RSA PKCS#1 v1.5 for the beneficiary

The beneficiary's public key is a secret like others: base64 of a PEM file (`BEGIN PUBLIC KEY`). A digest is computed of
the files in clear, before: what is on chain does not depend on the encryption.
"""

from __future__ import annotations

import base64
import binascii
import zipfile
from collections.abc import Iterable
from typing import BinaryIO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from protocol.enclave.cipher import BLOCK_BYTES, IV_BYTES, encrypted
from protocol.errors import BadMessage, TooLarge

KEY_FILE, CONTENT_FILE = "aes-key.rsa", "iexec_out.zip.aes"
#: Bytes of either file at most that the SDK opens.
MOST_CONTENT_BYTES = 10**9
#: Bits of an RSA key: fewer are broken, more encrypt to a file that the SDK does not open (1,000 bytes).
LEAST_KEY_BITS, MOST_KEY_BITS = 2048, 8000
#: Bytes of the smallest zip, which has no entry.
_EMPTY_ZIP_BYTES = 22
#: The first day that a zip can name.
_DATE = (1980, 1, 1, 0, 0, 0)


def read_public_key(secret: str) -> RSAPublicKey:
    """The beneficiary's key. Raises BadMessage if the secret is none that a result can be encrypted for."""
    try:
        key = load_pem_public_key(base64.b64decode("".join(secret.split()), validate=True))
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise BadMessage(why="a result's encryption key is base64 of an RSA public key in PEM") from None
    if not isinstance(key, RSAPublicKey) or not LEAST_KEY_BITS <= key.key_size <= MOST_KEY_BITS:
        raise BadMessage(why=f"a result's encryption key is RSA of {LEAST_KEY_BITS} to {MOST_KEY_BITS} bits")
    return key


def why_unfit(key_bytes: int, content_bytes: int) -> str | None:
    """Why files of these sizes, KEY_FILE and CONTENT_FILE, are no encrypted result whatever they hold; None if they may
    be one.
    """
    if not LEAST_KEY_BITS <= key_bytes * 8 <= MOST_KEY_BITS:
        return (
            f"{KEY_FILE} has {key_bytes} bytes, and not those of an RSA key of {LEAST_KEY_BITS} to {MOST_KEY_BITS} bits"
        )
    if content_bytes % BLOCK_BYTES or not IV_BYTES + _EMPTY_ZIP_BYTES < content_bytes <= MOST_CONTENT_BYTES:
        return f"{CONTENT_FILE} has {content_bytes} bytes, and not those of a zip that is encrypted"
    return None


def write_encrypted(target: BinaryIO, content: Iterable[bytes], public: RSAPublicKey, key: bytes, iv: bytes) -> None:
    """Write the zip that is stored to `target`, whose result is `content` piece by piece.

    `key` (KEY_BYTES) and `iv` (IV_BYTES): random, new for each result. Raises TooLarge for a result that the SDK would
    not open; what was written is useless then.
    """
    written = 0
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo(KEY_FILE, _DATE), public.encrypt(key, PKCS1v15()))
        with archive.open(zipfile.ZipInfo(CONTENT_FILE, _DATE), "w") as entry:
            for piece in encrypted(content, key, iv):
                written += len(piece)
                if written > MOST_CONTENT_BYTES:
                    raise TooLarge(limit=MOST_CONTENT_BYTES)
                entry.write(piece)
