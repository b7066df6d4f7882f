"""Parts of an image's configuration, which is not trusted, that no container of ours gets. Pure.

platform        another one than the engine's                    declined
labels          other programs at this engine obey them          each has no text in the container
health check    run by the engine beside the app's limits        none (`Engine.create`)
lists           slow engines down by the square of their length  declined beyond MOST_ENTRIES

By the engine's own reading: it takes keys in any case, and a few letters for others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from workers.task import verdict
from workers.task.verdict import Verdict

#: Variables, labels, volumes or ports of an image at most: honest ones have some dozens. Docker 20.10 needs 75 s to
#: start a container with 200,000 variables, and 0.7 ms for each volume.
MOST_ENTRIES: Final = 1_000
_LISTS: Final = {"Env": "variables", "Labels": "labels", "Volumes": "volumes", "ExposedPorts": "ports"}


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
    return None


def empty_labels(found: Mapping[str, Any]) -> dict[str, str]:
    """The image's labels without their text: given to a container, they stand in place of the image's, which it would
    have too. `found`: as the engine inspects the image.
    """
    return dict.fromkeys((found.get("Config") or {}).get("Labels") or {}, "")
