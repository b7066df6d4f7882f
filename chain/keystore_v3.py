"""Opening an Ethereum V3 keystore (Web3 Secret Storage): what geth, MetaMask and the iExec CLI write.

    password ──kdf──► 32 bytes ┬─ first 16: AES-128-CTR key of the ciphertext
                               └─ last 16 ‖ ciphertext ──keccak──► must equal `mac`

By hand, since eth_keyfile takes half a second to import in every process (it brings BLS curves along).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Crypto.Cipher import AES

from protocol.errors import BadKeystore
from protocol.keccak import keccak

#: Most memory scrypt may take. geth's standard, n = 2^18 and r = 8, needs 256 MB.
_SCRYPT_MEMORY = 1 << 30
#: Bytes that the key derivation yields.
_DERIVED = 32


def open_keystore(path: Path, text: str, password: bytes) -> bytes:
    """The 32 secret bytes inside the keystore `text` that was read from `path`. Raises BadKeystore."""
    try:
        # "crypto" is the standard; the earliest wallets wrote "Crypto".
        document = json.loads(text)
        crypto = document.get("crypto") or document["Crypto"]
        version, cipher = document["version"], crypto["cipher"]
        ciphertext = bytes.fromhex(crypto["ciphertext"])
        mac = bytes.fromhex(crypto["mac"])
        counter = bytes.fromhex(crypto["cipherparams"]["iv"])
        derived = _derive(crypto["kdf"], crypto["kdfparams"], password)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _not_v3(path) from None
    if version != 3 or cipher != "aes-128-ctr":
        raise _not_v3(path)
    if not hmac.compare_digest(keccak(derived[16:] + ciphertext), mac):
        raise BadKeystore(path=path, why="the password does not open it", fix="Correct the password file.")
    return AES.new(derived[:16], AES.MODE_CTR, nonce=b"", initial_value=counter).decrypt(ciphertext)


def _not_v3(path: Path) -> BadKeystore:
    return BadKeystore(path=path, why="it is not an Ethereum V3 keystore", fix="Give the JSON file of a V3 keystore.")


def _derive(kdf: str, params: Mapping[str, Any], password: bytes) -> bytes:
    salt = bytes.fromhex(params["salt"])
    if kdf == "scrypt":
        return hashlib.scrypt(
            password, salt=salt, n=params["n"], r=params["r"], p=params["p"], dklen=_DERIVED, maxmem=_SCRYPT_MEMORY
        )
    if kdf == "pbkdf2" and params["prf"] == "hmac-sha256":
        return hashlib.pbkdf2_hmac("sha256", password, salt, params["c"], _DERIVED)
    # V3 names no other; the caller says so in words.
    raise ValueError(kdf)
