"""The demo's confidential deal (`sluice demo --enclave`): what is kept secret, by whom, and who can read the result.

    provider    dataset, encrypted ─► IPFS, registry      its key, the app's secret ─┐
    requester   a secret for the app, the public half of a result key ───────────────┴─► secret service ─► enclave
    requester   result's private key ─► opens the zip that the enclave has encrypted

The buyer is `ops.market`, as in all of the demo; docs/quickstart/confidential.md does the same with iExec's SDK 9.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ops.market.contracts import NewDataset
from ops.market.secrets import store_secret
from ops.poco.accounts import dev_key
from ops.pool.on_chain import PROVIDER, PoolOnChain
from protocol.enclave.cipher import IV_BYTES, KEY_BYTES, encrypted
from protocol.enclave.result import LEAST_KEY_BITS
from protocol.enclave.secrets import RESULT_KEY_NAME, app_secret, dataset_key, requester_secret, wallet_secret
from protocol.ethereum.hexbytes import to_hex
from protocol.types import Hash32

ROWS = b"rows that only an enclave may read\n"
DEVELOPERS, REQUESTERS = b"what the developer knows", b"what the requester knows"
#: Name of the requester's secret.
SECRET_NAME = "demo"  # noqa: S105 - a name
#: Public exponent that all RSA keys have.
_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class Confidential:
    """An encrypted dataset, whose key and the result's are made for this run."""

    #: URL of the secret service.
    service: str
    dataset: NewDataset
    dataset_key: bytes = field(repr=False)
    result_key: RSAPrivateKey = field(repr=False)

    @classmethod
    def prepare(cls, service: str, publish: Callable[[bytes], str]) -> Confidential:
        """Encrypt the dataset and publish it. `publish`: puts a file where machines fetch it; returns its URL."""
        key = secrets.token_bytes(KEY_BYTES)
        file = b"".join(encrypted([ROWS], key, secrets.token_bytes(IV_BYTES)))
        checksum = Hash32(to_hex(hashlib.sha256(file).digest()))
        dataset = NewDataset("sluice-demo-confidential", publish(file), checksum)
        return cls(service, dataset, key, generate_private_key(_EXPONENT, LEAST_KEY_BITS))

    def store_secrets(self, on_chain: PoolOnChain) -> None:
        """Have the secrets' owners store them; the dataset is the pool's last. Raises Unavailable, Refused."""
        provider, requester = dev_key(PROVIDER), on_chain.requester
        public = self.result_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for owner, secret, value in (
            (provider, dataset_key(on_chain.datasets[-1]), base64.b64encode(self.dataset_key)),
            (provider, app_secret(on_chain.app), DEVELOPERS),
            (requester, requester_secret(requester.wallet, SECRET_NAME), REQUESTERS),
            (requester, wallet_secret(requester.wallet, RESULT_KEY_NAME), base64.b64encode(public)),
        ):
            store_secret(self.service, owner, secret, value)
