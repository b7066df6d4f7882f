"""Encryption of what is stored: AES-256-GCM under the newest key of SLUICE_SMS_KEY_FILE.

    stored    key id, nonce (12 bytes, random) ‖ ciphertext ‖ tag (16 bytes)
    bound to  its place (`web2:0x…:name`, `challenge:0x…`), so that no row can stand in for another

Random nonces are safe for 2**32 values of one key (NIST SP 800-38D, section 8.3).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from config.key_ring import KeyFile, RingKey, derived
from config.settings import Settings
from config.values.sms_settings import SmsSettings, sms_key_file
from protocol.errors import StorageUnavailable
from sms.kms import CommandKms

NONCE_BYTES = 12
_PURPOSE = "secrets at rest"
_FIX = "Put the file back from your copy: what is stored can be read with it alone."


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value, and the id of the key that opens it."""

    key_id: str
    content: bytes = field(repr=False)


class Vault:
    """Encrypts and decrypts with the keys of one file. Safe for several threads."""

    def __init__(self, keys: KeyFile[RingKey]) -> None:
        self.keys = keys

    @classmethod
    def of(cls, settings: Settings, sms: SmsSettings) -> Vault:
        """The vault of SLUICE_SMS_KEY_FILE, made if absent. Raises BadSetting; Unavailable without the key service."""
        path = sms_key_file(settings.home, sms)
        wrapping = None if sms.kms_command is None else CommandKms(sms.kms_command)
        return cls(KeyFile(path, RingKey, setting="SLUICE_SMS_KEY_FILE", fix=_FIX, wrapping=wrapping))

    def seal(self, value: bytes, place: str) -> Sealed:
        """Encrypt `value` for storage at `place`: `open` decrypts it there and nowhere else."""
        key, nonce = self.keys.newest, secrets.token_bytes(NONCE_BYTES)
        return Sealed(key.id, nonce + _cipher(key).encrypt(nonce, value, place.encode()))

    def open(self, sealed: Sealed, place: str) -> bytes:
        """The value that was sealed for `place`. Raises StorageUnavailable if its key is gone, or it was changed."""
        key = next((key for key in self.keys.all() if key.id == sealed.key_id), None)
        if key is None:
            raise StorageUnavailable(what="a stored secret", why=f"SLUICE_SMS_KEY_FILE has no key {sealed.key_id}")
        nonce, content = sealed.content[:NONCE_BYTES], sealed.content[NONCE_BYTES:]
        try:
            return _cipher(key).decrypt(nonce, content, place.encode())
        except InvalidTag:
            raise StorageUnavailable(what="a stored secret", why="it was changed, or moved from another row") from None


def _cipher(key: RingKey) -> AESGCM:
    """The cipher of a key of the key ring."""
    return AESGCM(derived(key.secret, _PURPOSE))
