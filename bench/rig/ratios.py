"""What became of each ratio between two runs of the benchmarks. Pure.

A ratio compares Sluice with the bare thing that it is made of (`bare`), measured in the same run on the same machine,
or with the fewest blocks that PoCo allows, so that it means the same on a fast machine and on a slow one, as long as
neither is busy with other things. More is better. It is the field of a benchmark's line that begins with PREFIX:

    {"trust": 5, "state": "latest", …, "share_of_minimal_blocks": 0.98}
        ──► "latency, trust 5, state latest: share_of_minimal_blocks" 0.98
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: How the name of a ratio begins.
PREFIX = "share_of_"
#: The part of a ratio that may be lost from one run to the next: below it the noise of a shared machine hides changes.
MOST_LOST = 0.2
#: The part by which a ratio has to change to be worth a sentence.
WORTH_SAYING = 0.05
#: Fields that tell one line of a benchmark from its others.
_TELLING = ("case", "what", "when", "call", "trust", "state")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs of the benchmarks beside each other, in sentences."""

    #: For each ratio that lost more than MOST_LOST, or that the later run lacks.
    worse: tuple[str, ...]
    #: Others that are worth knowing.
    changed: tuple[str, ...]
    #: Ratios that both runs have.
    compared: int


def ratios_of(bench: str, line: Mapping[str, Any]) -> dict[str, float]:
    """The ratios in one line of the benchmark `bench`, by full name."""
    told = [f"{field} {line[field]}" for field in _TELLING if field in line]
    return {
        f"{', '.join((bench, *told))}: {field}": float(value)
        for field, value in line.items()
        if field.startswith(PREFIX)
    }


def all_ratios(figures: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The ratios in all lines of a run, each with its benchmark's name as field `bench`."""
    return {name: value for line in figures for name, value in ratios_of(str(line["bench"]), line).items()}


def compare(before: Mapping[str, float], after: Mapping[str, float]) -> Comparison:
    """What got worse, and what else changed, from the ratios `before` to those `after`."""
    worse, changed = [], []
    for name, was in before.items():
        if name not in after:
            worse.append(f"{name} was {was:g} and is not measured any more.")
            continue
        part = after[name] / was - 1 if was else 0.0
        says = f"{name} was {was:g} and is {after[name]:g}, {abs(part):.0%} {'less' if part < 0 else 'more'}."
        if part < -MOST_LOST:
            worse.append(says)
        elif abs(part) >= WORTH_SAYING:
            changed.append(says)
    changed += [
        f"{name} is {value:g} and was not measured before." for name, value in after.items() if name not in before
    ]
    return Comparison(tuple(worse), tuple(changed), len(before.keys() & after.keys()))
