"""The *door*: the worker's HTTP API for pre- and post-compute, where they fetch files, report failures, and leave the
result (as iexec-worker 9.2 has it). Here are its rules, `door_server` serves it.

    pre-compute    its files, which this machine has fetched by its own rules    ──► decrypted by the program
    post-compute   zip, as to a result proxy ─► result.zip      digest, signature ─► checked, then voted for
    both           why they fail

What counts is signed by the task's challenge key, which its session gives to these two programs and not to the app. The
first causes and the first result count, as with iExec's worker. That asks the chain whether the task is active; here
the lane does before it sends the vote, so that work may begin before the task is on chain.
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
from protocol.errors import BadInput, BadMessage, NotSignedIn, Refused, TooLarge
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import recover_message_wallet
from protocol.poco.enclave import recover_enclave, session_message
from protocol.types import ZERO_HASH, Hash32, Signature, Wallet
from workers.enclave.port import Work

#: Address of the door in the program's own network: iExec's port.
HOST: Final = "127.0.0.1:13100"
URL: Final = f"http://{HOST}"
#: Below URL: files for pre-compute.
FILES: Final = "/files/"
#: Variables by which programs are told HOST: iExec's in Rust and ours, and iExec's in Java.
VARIABLES: Final = {"WORKER_HOST_ENV_VAR": HOST, "WORKER_HOST": HOST}


@dataclass(slots=True)
class Door:
    """What one program of one task may fetch, and what it has reported and left."""

    work: Work
    #: Files that pre-compute fetches, by name.
    files: dict[str, Path] = field(default_factory=dict)
    #: Bytes of a result's zip at most.
    most_bytes: int = 0
    #: Token that the program shows when it leaves the result.
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    #: The first cause of each program, by the session's name for it.
    exit_causes: dict[str, ExitCause] = field(default_factory=dict)
    result: SignedResult | None = None

    def forget(self) -> None:
        """Forget the reports of an attempt whose end was not seen: the next attempt sends them again."""
        self.exit_causes.clear()
        self.result = None

    def require_task(self, task_id: str) -> None:
        """Raise Refused for what is not about this task."""
        if task_id != self.work.task_id:
            raise Refused(why="there is no such task here")

    def file(self, name: str) -> Path:
        """One of `files`, by name. Raises Refused for any other name."""
        if name not in self.files:
            raise Refused(why="there is no such file")
        return self.files[name]

    @property
    def size(self) -> int:
        """Most bytes that are fetched and left through the door."""
        return self.most_bytes + sum(path.stat().st_size for path in self.files.values())

    def take_exit_causes(self, program: str, authorization: str, body: bytes) -> bool:
        """Note why a program fails; False if it has reported before. Raises NotSignedIn, BadMessage."""
        self._require_signed(authorization)
        cause = read_exit_causes(body)[0]
        return self.exit_causes.setdefault(program, cause) is cause

    def take_result(self, authorization: str, body: bytes) -> None:
        """Note the signed digest of the result. Raises BadMessage for a result of another task, NotSignedIn for one
        that cannot be voted for, or that comes after another.
        """
        self._require_signed(authorization)
        said, assignment = read_signed_result(body), self.work.assignment
        if said.task_id != assignment.task_id:
            raise BadMessage(why="it is another task's")
        if self.result is not None:
            raise NotSignedIn(why="the result was told before")
        digest = Hash32(said.result_digest)
        if digest == ZERO_HASH or not self._attested(digest, said):
            raise NotSignedIn(why="it has no digest, or the result is not signed by the task's challenge key")
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
        """The task's challenge: the address whose key its session gives to these programs."""
        return Wallet(self.work.assignment.enclave_challenge)

    def _attested(self, digest: Hash32, said: SignedResult) -> bool:
        """Whether the challenge key signed this digest."""
        wallet, signature = Wallet(self.work.assignment.wallet), Signature(said.enclave_signature)
        try:
            return recover_enclave(signature, wallet, self.work.task_id, digest) == self._challenge
        except BadInput:
            return False

    def _require_signed(self, authorization: str) -> None:
        """Raise NotSignedIn unless the challenge key signed the request."""
        message = session_message(Wallet(self.work.assignment.wallet), self.work.task_id)
        try:
            signed = recover_message_wallet(to_bytes(message), Signature(authorization)) == self._challenge
        except BadInput:
            signed = False
        if not signed:
            raise NotSignedIn(why="it is not signed by the task's challenge key")
