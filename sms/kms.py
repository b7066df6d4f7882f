"""A key service (KMS) outside of Sluice, reached through a program of the operator's.

    SLUICE_SMS_KMS_COMMAND wrap      key as hex on standard input ──► one line of text on standard output
    SLUICE_SMS_KMS_COMMAND unwrap    that line ──► the key as hex

The file of keys then holds nothing that opens a secret without that service. Each cloud's own command-line program, or
a hardware module's, is a script of a few lines away; none of their libraries is needed here.
"""

from __future__ import annotations

import shlex
import subprocess

from protocol.errors import BadSetting, Unavailable

SETTING = "SLUICE_SMS_KMS_COMMAND"
#: Seconds: a request to a key service takes one at most, and a service that starts asks for each of its keys.
ANSWER_SECONDS = 20.0
#: Characters of a wrapped key: those of 32 bytes take some hundreds.
MOST_CHARACTERS = 16_384


class CommandKms:
    """A `config.key_ring.KeyWrapping` by a program. No key is in an error: not even what the program complained of."""

    def __init__(self, command: str) -> None:
        """Raises BadSetting if `command` is not one or several words as a shell takes them."""
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise BadSetting(
                name=SETTING, why=f"it is not a command ({error})", fix="See docs/secret-service.md."
            ) from error
        if not self._words:
            raise BadSetting(name=SETTING, why="it is empty", fix="Unset it, or see docs/secret-service.md.")

    def __repr__(self) -> str:
        return f"CommandKms({self._words[0]})"

    def wrap(self, secret: bytes) -> str:
        """The wrapped key, as text for the key file. Raises Unavailable."""
        return self._run("wrap", secret.hex())

    def unwrap(self, wrapped: str) -> bytes:
        """The key that was wrapped into this text. Raises Unavailable."""
        try:
            return bytes.fromhex(self._run("unwrap", wrapped))
        except ValueError:
            raise self._failed("unwrap", "it did not print a key as hex") from None

    def _run(self, what: str, given: str) -> str:
        """Run the key service's command with a line of input; returns the line that it prints. Raises Unavailable."""
        try:
            done = subprocess.run(
                [*self._words, what],
                input=f"{given}\n",
                capture_output=True,
                text=True,
                timeout=ANSWER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._failed(what, f"it took longer than {ANSWER_SECONDS:g} s") from None
        except (OSError, UnicodeDecodeError) as error:
            raise self._failed(what, type(error).__name__) from None
        printed = done.stdout.strip()
        if done.returncode != 0:
            raise self._failed(what, f"it ended with exit code {done.returncode}")
        if not printed or len(printed) > MOST_CHARACTERS or not printed.isprintable():
            raise self._failed(what, "it did not print one line of text")
        return printed

    def _failed(self, what: str, why: str) -> Unavailable:
        """The error for a command that failed."""
        return Unavailable(what=f"the key service ({SETTING} {what})", why=why)
