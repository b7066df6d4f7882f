"""Headers of an upload by which an enclave answers for a result, where the pool cannot recompute the digest.

Result-Digest: 0x…        goes on chain: of what the app wrote, before anything was encrypted
Enclave-Signature: 0x…    over it, for the uploader and the task, by the key of the task's challenge (`poco.enclave`)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from protocol.errors import BadMessage, Refused
from protocol.poco.enclave import recover_enclave
from protocol.types import Contract, Hash32, Signature, TaskId, Wallet

RESULT_HEADER, SIGNATURE_HEADER = "Result-Digest", "Enclave-Signature"
_DIGEST = re.compile(r"0x[0-9a-f]{64}")
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{130}")


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an enclave says of a result: its digest, and the signature over that."""

    digest: Hash32
    signature: Signature

    def headers(self) -> dict[str, str]:
        """The headers Result-Digest and Enclave-Signature of an upload, by name."""
        return {RESULT_HEADER: self.digest, SIGNATURE_HEADER: self.signature}

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Read an upload's headers, looked up by name in any case. Raises BadMessage."""
        digest, signature = headers.get(RESULT_HEADER, ""), headers.get(SIGNATURE_HEADER, "")
        if not _DIGEST.fullmatch(digest) or not _SIGNATURE.fullmatch(signature):
            why = f"the result of an enclave's task comes with {RESULT_HEADER} (32 bytes) and {SIGNATURE_HEADER} (65)"
            raise BadMessage(why=why)
        return cls(Hash32(digest), Signature(signature))

    def require_by(self, challenge: Contract | Wallet, wallet: Wallet, task: TaskId) -> None:
        """Raise Refused unless the key of `challenge` signed this digest for this wallet and task."""
        if recover_enclave(self.signature, wallet, task, self.digest) != challenge:
            raise Refused(why=f"the enclave's signature is not by {challenge}, the task's challenge, for this result")
