"""Chain, hub and workerpool that a machine works for, as it found them first: a pool that names others is refused.

What the operator sets by name takes precedence over both, and is how a change is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from config.settings import Settings
from config.whole_files import write_whole
from protocol.errors import BadSetting
from workers.data.layout import Layout

_WORDS = {"chain_id": "chain id", "hub": "hub", "workerpool": "workerpool"}


def check(layout: Layout, own: Settings, given: Collection[str]) -> None:
    """Compare the machine's settings, completed by its pool's, with what they were first. Reads only.

    `given`: names of the settings that the operator set. Raises BadSetting that says what changed.
    """
    known, now = _pinned(layout), _of(own)
    changed = [name for name in _WORDS if name in known and known[name] != now[name] and name not in given]
    if not changed:
        return
    words = ", ".join(f"{_WORDS[name]} {now[name]} in place of {known[name]}" for name in changed)
    accept = " ".join(f"SLUICE_{name.upper()}={now[name]}" for name in changed)
    raise BadSetting(
        name="SLUICE_API_URL",
        why=f"the pool at {own.api_url} now names {words}, which is what this machine has worked for so far",
        fix="Nothing was signed for it. Ask the pool's operator by another way than this address. To accept the change,"
        f" start the machine once with {accept}; to work for another pool, use another SLUICE_HOME.",
    )


def keep(layout: Layout, own: Settings) -> None:
    """Write to disk the settings that `check` has checked, which later starts must have too. Called when a machine
    starts.
    """
    write_whole(layout.pins, json.dumps(_of(own)))


def _of(own: Settings) -> dict[str, str]:
    """The settings that must not change between starts, in lower case."""
    return {name: str(getattr(own, name)).lower() for name in _WORDS}


def _pinned(layout: Layout) -> Mapping[str, str]:
    """The settings that `keep` wrote; those of an older release are read from the pool's saved configuration; empty if
    there are none. Raises BadSetting.
    """
    for path in (layout.pins, layout.pool):
        try:
            known = json.loads(path.read_text())
            return {name: str(known[name]).lower() for name in _WORDS}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            if path == layout.pool:
                continue
            raise BadSetting(
                name="SLUICE_HOME",
                why=f"{path} cannot be read ({type(error).__name__}), which says for which pool this machine works",
                fix="Look what the pool's operator says of chain, hub and workerpool; then remove the file.",
            ) from error
    return {}
