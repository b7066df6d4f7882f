"""The API's secrets: a ring of random keys in a file, from which every token and challenge key is derived.

The newest signs, all verify (`config.key_ring`). Whoever reads the file can sign in as any worker, so it is mode 600.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from config.key_ring import KeyFile, RingKey, derived
from config.settings import Settings

#: Seconds for which a key still verifies after a newer one was made: twice the hour that a token or a challenge lives.
OVERLAP_SECONDS = 7200.0


def token_secret_file(settings: Settings) -> Path:
    """The file with the keys: SLUICE_TOKEN_SECRET_FILE, or `token.secret` in SLUICE_HOME."""
    return settings.token_secret_file or settings.home / "token.secret"


@dataclass(frozen=True)
class Keys(RingKey):
    """One secret and the keys derived from it, one per purpose."""

    @cached_property
    def token(self) -> bytes:
        """Signs the tokens of worker machines."""
        return derived(self.secret, "token")

    @cached_property
    def challenge(self) -> bytes:
        """Marks sign-in challenges as ours."""
        return derived(self.secret, "challenge")

    @cached_property
    def logs(self) -> bytes:
        """Makes the challenges of requesters that read logs."""
        return derived(self.secret, "logs")


class KeyRing(KeyFile[Keys]):
    """The keys of the API."""

    def __init__(self, path: Path) -> None:
        """Makes the file if it is absent. Raises BadSetting if it holds no keys or others can read it."""
        fix = "Delete it: the API makes a new one, and workers sign in again."
        super().__init__(path, Keys, setting="SLUICE_TOKEN_SECRET_FILE", fix=fix)

    @classmethod
    def of(cls, settings: Settings) -> KeyRing:
        """The ring of SLUICE_TOKEN_SECRET_FILE."""
        return cls(token_secret_file(settings))

    def verifying(self, now: float) -> list[Keys]:
        """Keys that verify at `now` (Unix seconds), the newest first."""
        return _verifying(self.all(), now)

    def rotate(self, now: float, *, at_once: bool = False) -> tuple[Keys, list[Keys]]:
        """Add a key that signs from now on; returns it and the keys that were dropped.

        Dropped are keys that had a newer one for OVERLAP_SECONDS: nothing they signed is valid any more. `at_once`:
        all the older ones, so that every machine signs in again.
        """
        return self.add(now, lambda older: [] if at_once else _verifying(older, now))


def _verifying(keys: tuple[Keys, ...], now: float) -> list[Keys]:
    """The keys that verify: the newest, and those that have had a newer one for less than OVERLAP_SECONDS."""
    return [*keys[:1], *(key for newer, key in pairwise(keys) if now < newer.made_at + OVERLAP_SECONDS)]
