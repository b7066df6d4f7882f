"""Images of deals that this machine could not have lately, and why: for `sluice worker doctor` and `status`.

<root>/images/refused/<sha256 of the deal's name>.json     one name; gone once the image was fetched, or after a day

Only what the machine's owner can do something about: a registry's rate limit, and apps made for another platform.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from config.whole_files import write_whole

#: Seconds for which a refusal counts as met lately.
KEPT_SECONDS = 24 * 3600.0
#: Records kept at most, the newest: names are free to whoever buys tasks, and each check of the machine reads all.
MOST_KEPT = 200


class Obstacle(StrEnum):
    """What kept the machine from an image."""

    RATE_LIMIT = "rate limit"
    #: It is for another system or processor than the engine's.
    PLATFORM = "platform"


@dataclass(frozen=True, slots=True)
class RefusedImage:
    """One image that the machine could not have. Times are Unix seconds."""

    #: As the deal has it.
    image: str
    registry: str
    obstacle: Obstacle
    #: In words.
    why: str
    met_at: float
    #: When the registry may be asked again, by its own word; None if it did not say, and for PLATFORM.
    until: float | None = None


class RefusedImages:
    """The records of one machine. Several processes may use it at a time: each record is a file of its own."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "images" / "refused"

    def note(self, refused: RefusedImage) -> None:
        """Keep that an image was refused, and drop what is too old or too much."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._path(refused.image), json.dumps(asdict(refused)))
        kept = self.met_since(refused.met_at - KEPT_SECONDS)[:MOST_KEPT]
        self._drop(self._folder.glob("*.json"), keep={self._path(each.image) for each in kept})

    def fetched(self, image: str, registry: str) -> None:
        """Forget what kept the machine from this image, and every rate limit of its registry: that serves again."""
        over = [
            each
            for each in self.met_since(0.0)
            if each.image == image or (each.registry == registry and each.obstacle is Obstacle.RATE_LIMIT)
        ]
        self._drop(self._path(each.image) for each in over)

    def met_since(self, moment: float) -> list[RefusedImage]:
        """Images refused at Unix time `moment` or later, the newest first; none if this machine never ran."""
        found = (_read(path) for path in self._folder.glob("*.json"))
        lately = [each for each in found if each is not None and each.met_at >= moment]
        return sorted(lately, key=lambda each: each.met_at, reverse=True)

    def _path(self, image: str) -> Path:
        """The file about a refused image."""
        return self._folder / f"{hashlib.sha256(image.encode()).hexdigest()}.json"

    def _drop(self, paths: Iterable[Path], keep: frozenset[Path] | set[Path] = frozenset()) -> None:
        """Delete files about refused images."""
        for path in paths:
            if path not in keep:
                path.unlink(missing_ok=True)


def _read(path: Path) -> RefusedImage | None:
    """The record in a file; None if it cannot be read."""
    try:
        found = json.loads(path.read_text())
        return RefusedImage(**found | {"obstacle": Obstacle(found["obstacle"])})
    except (OSError, ValueError, TypeError, KeyError):
        # Just removed, or not of this version.
        return None
