"""The worker as pre- and post-compute see it: where they fetch, report, and leave the result (iexec-worker 9.2).

    pre-compute    its files, which this machine has fetched by its own rules    ──► decrypted by the program
    post-compute   zip, as to a result proxy ─► result.zip      digest, signature ─► checked, then voted for
    both           why they fail

What counts is signed by the task's challenge key, which its session gives to these two programs and not to the app.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from config.whole_files import move_whole
from protocol.enclave.reports import ExitCause, SignedResult, read_exit_causes, read_signed_result
from protocol.enclave.result_model import zip_in
from protocol.errors import BadMessage, NotSignedIn, Refused, TooLarge
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import recover_message_wallet
from protocol.poco.enclave import recover_enclave, session_message
from protocol.types import ZERO_HASH, Hash32, Signature, Wallet
from workers.enclave.port import Work

#: Where a program finds it, in a network of its own: iExec's port.
HOST: Final = "127.0.0.1:13100"
URL: Final = f"http://{HOST}"
#: Below URL: files for pre-compute.
FILES: Final = "/files/"
#: Variables by which programs are told HOST: iExec's in Rust and ours, and iExec's in Java.
VARIABLES: Final = {"WORKER_HOST_ENV_VAR": HOST, "WORKER_HOST": HOST}


@dataclass(slots=True)
class Door:
    """What one program of one task may ask for, and what it has brought."""

    work: Work
    #: By name, what pre-compute fetches.
    files: dict[str, Path] = field(default_factory=dict)
    #: Bytes of a result's zip at most.
    most_bytes: int = 0
    #: By which it leaves the result.
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    exit_cause: ExitCause | None = None
    result: SignedResult | None = None

    def file(self, name: str) -> Path:
        """A file that it was promised. Raises Refused."""
        if name not in self.files:
            raise Refused(why="there is no such file")
        return self.files[name]

    @property
    def size(self) -> int:
        """Bytes of files that go through it at most."""
        return self.most_bytes + sum(path.stat().st_size for path in self.files.values())

    def take_exit_causes(self, authorization: str, body: bytes) -> None:
        """Note why it fails: the first cause counts. Raises NotSignedIn, BadMessage."""
        self._require_signed(authorization)
        self.exit_cause = self.exit_cause or read_exit_causes(body)[0]

    def take_result(self, authorization: str, body: bytes) -> None:
        """Note what the result is. Raises NotSignedIn, BadMessage."""
        self._require_signed(authorization)
        said, assignment = read_signed_result(body), self.work.assignment
        digest = Hash32(said.result_digest)
        if said.task_id != assignment.task_id or digest == ZERO_HASH:
            raise BadMessage(why="it is another task's, or it has no digest")
        signature = Signature(said.enclave_signature)
        if recover_enclave(signature, Wallet(assignment.wallet), self.work.task_id, digest) != self._challenge:
            raise BadMessage(why="the result is not signed by the task's challenge key")
        self.result = said

    def take_zip(self, token: str, body: Iterator[bytes]) -> None:
        """Write the zip to where it is uploaded from. Raises NotSignedIn, BadMessage, OSError."""
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise NotSignedIn(why="it has another token")
        target = self.work.folders.zip
        partial, left = target.with_name(f"{target.name}.part"), self.most_bytes
        try:
            with partial.open("wb") as file:
                for piece in zip_in(body):
                    left -= len(piece)
                    if left < 0:
                        raise TooLarge(limit=self.most_bytes)
                    file.write(piece)
            move_whole(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    @property
    def _challenge(self) -> Wallet:
        return Wallet(self.work.assignment.enclave_challenge)

    def _require_signed(self, authorization: str) -> None:
        message = session_message(Wallet(self.work.assignment.wallet), self.work.task_id)
        if recover_message_wallet(to_bytes(message), Signature(authorization)) != self._challenge:
            raise NotSignedIn(why="it is not signed by the task's challenge key")
