"""How a dataset is encrypted for enclaves, and a result for its beneficiary (iExec SDK 8.24 and 9.0.1).

    file   IV (16 bytes) ‖ AES-256-CBC of the content, PKCS#7 padding
    key    32 bytes; as a secret and in an enclave's environment: base64

CBC authenticates nothing. A dataset's own guard is its checksum on chain, which is that of the encrypted file; a wrong
key is noticed by the padding at the end, in all but one of 256 cases, so nothing may be used before the end was read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from protocol.errors import BadMessage

KEY_BYTES = 32
IV_BYTES = BLOCK_BYTES = 16


def read_key(text: str) -> bytes:
    """The key behind its base64, white space anywhere allowed. Raises BadMessage, whose text never repeats it."""
    try:
        key = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadMessage(why="a key is written as base64") from None
    if len(key) != KEY_BYTES:
        raise BadMessage(why=f"a key has {KEY_BYTES} bytes, this one {len(key)}")
    return key


def encrypted(content: Iterable[bytes], key: bytes, iv: bytes) -> Iterator[bytes]:
    """The encrypted file, piece by piece. `iv`: IV_BYTES random bytes, new for each file."""
    cipher, padding = Cipher(AES256(key), CBC(iv)).encryptor(), PKCS7(8 * BLOCK_BYTES).padder()
    yield iv
    for piece in content:
        yield cipher.update(padding.update(piece))
    yield cipher.update(padding.finalize()) + cipher.finalize()


def decrypted(file: Iterable[bytes], key: bytes) -> Iterator[bytes]:
    """The content of an encrypted file, piece by piece; believe it only once all has come.

    Raises BadMessage if the file was cut, or does not open with this key.
    """
    pieces, head = iter(file), b""
    while len(head) < IV_BYTES:
        piece = next(pieces, None)
        if piece is None:
            raise BadMessage(why="an encrypted file begins with an IV of 16 bytes, this one ends before")
        head += piece
    cipher, padding = Cipher(AES256(key), CBC(head[:IV_BYTES])).decryptor(), PKCS7(8 * BLOCK_BYTES).unpadder()
    yield padding.update(cipher.update(head[IV_BYTES:]))
    for piece in pieces:
        yield padding.update(cipher.update(piece))
    try:
        yield padding.update(cipher.finalize()) + padding.finalize()
    except ValueError:
        raise BadMessage(why="the file was cut, or does not open with this key") from None
