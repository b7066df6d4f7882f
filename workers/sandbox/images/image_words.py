"""Parts of an image's configuration, which is not trusted, that no container of ours gets. Pure.

platform        another one than the engine's                    declined
labels          other programs at this engine obey them          each has no text in the container
health check    run by the engine beside the app's limits        none (`Engine.create`)
lists           slow engines down by the square of their length  declined beyond MOST_ENTRIES
volumes         filled by the engine, before the app runs, each  declined where that may be more than an app may write,
                with what the image has at its place             or more than there is room for (`engine_disk`)

By the engine's own reading: it takes keys in any case, and a few letters for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocol.wire import SCRATCH_BYTES
from workers.task.outcome import verdict
from workers.task.outcome.verdict import Verdict

#: Variables, labels, volumes or ports of an image at most: honest ones have some dozens. Docker 20.10 needs 75 s to
#: start a container with 200,000 variables, and 0.7 ms for each volume.
MOST_ENTRIES: Final = 1_000
_LISTS: Final = {"Env": "variables", "Labels": "labels", "Volumes": "volumes", "ExposedPorts": "ports"}


@dataclass(frozen=True, slots=True)
class FittingImage:
    """An image that the engine may run."""

    #: What stands in place of its labels (`empty_labels`).
    labels: dict[str, str]
    #: Bytes that the engine copies for its volumes at most.
    copied: int


#: Of an image that was not looked at.
NOTHING_ASKED: Final = FittingImage({}, 0)


def fitting(found: Mapping[str, Any]) -> FittingImage:
    """An image that fits. `found`: as the engine inspects it."""
    return FittingImage(empty_labels(found), most_copied(found))


def most_copied(found: Mapping[str, Any]) -> int:
    """Bytes that the engine copies for an image's volumes at most: the places of several may hold the same files, by
    links or as one holds another. `found`: as the engine inspects the image.
    """
    return len((found.get("Config") or {}).get("Volumes") or ()) * max(int(found.get("Size") or 0), 0)


def why_unfit(found: Mapping[str, Any], platform: tuple[str, str]) -> str | None:
    """Why the engine should not run an image, in words; None if it may.

    `found`: as the engine inspects it; `platform`: the engine's system and processor, by Go's names.
    """
    made_for = str(found.get("Os") or ""), str(found.get("Architecture") or "")
    if verdict.of_platform(made_for, platform) is Verdict.MACHINE:
        return f"the image is for {'/'.join(made_for)}, and this machine is {'/'.join(platform)}"
    config = found.get("Config") or {}
    for key, name in _LISTS.items():
        if len(config.get(key) or ()) > MOST_ENTRIES:
            return f"the image has more than {MOST_ENTRIES} {name}"
    if most_copied(found) > SCRATCH_BYTES:
        return f"for the image's volumes more than {SCRATCH_BYTES} bytes may be copied, the most that an app may write"
    return None


def empty_labels(found: Mapping[str, Any]) -> dict[str, str]:
    """The image's labels without their text: given to a container, they stand in place of the image's, which it would
    have too. `found`: as the engine inspects the image.
    """
    return dict.fromkeys((found.get("Config") or {}).get("Labels") or {}, "")
