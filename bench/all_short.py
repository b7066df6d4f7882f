"""Every benchmark of speed in a short form, one after the other, and its ratios in one file.

The others check promises rather than measure, and report by themselves whether they hold: chaos, faults, hostile,
workerdrop. They take many minutes, and some stop the stack's servers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import bag, catchup, flat, lane, latency, throughput
from bench.crowds import crowd
from bench.rig.ratios import Comparison, all_ratios, compare
from protocol.errors import BadInput

RESULTS = Path("bench/results")
#: Each benchmark with its short form: some ten seconds to a minute, of which half is the start of a pool.
SHORT: tuple[tuple[str, Callable[[], Iterator[str]]], ...] = (
    ("latency", partial(latency.run, block_time=1.0, tasks=6)),
    ("latency", partial(latency.run, block_time=1.0, tasks=6, state="pending")),
    ("throughput", partial(throughput.run, tasks=80, workers=4, slots=2)),
    ("throughput", partial(throughput.run_null, tasks=200, workers=4, slots=8)),
    ("lane", partial(lane.run, scale=0.5, only=("payments", "initializeArray of 50"))),
    ("catchup", partial(catchup.run, blocks=10_000)),
    ("bag", partial(bag.run, tasks=2_000, only=("middle", "open"))),
    ("crowd", partial(crowd.run, logins=100, pings=2_000)),
    ("flat", partial(flat.run, ended=20_000, workers=2_000)),
)


class NoFigures(BadInput):
    """{path} holds no figures of `bench all`: {why}."""


def run(to: Path | None = None) -> Iterator[str]:
    """Run all of SHORT; each line as it comes, with its benchmark's name, and in the end one that names the file.

    `to`: the file; default RESULTS/<time>.json.
    """
    now, load = datetime.now(UTC), os.getloadavg()[0]
    path = to or RESULTS / f"{now:%Y-%m-%dT%H%M%SZ}.json"
    figures: list[dict[str, Any]] = []
    for name, measure in SHORT:
        for line in measure():
            figures.append({"bench": name, **json.loads(line)})
            yield json.dumps(figures[-1])
    _write(path, now, load, figures)
    yield json.dumps({"results": str(path)})


def _write(path: Path, now: datetime, load: float, figures: list[dict[str, Any]]) -> None:
    """Write the figures to a file. `load`: the machine's before, over the last minute: processes that run or wait."""
    body = {
        "date": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "version": version("sluice"),
        "cores": os.cpu_count(),
        "load": round(load, 1),
        "ratios": all_ratios(figures),
        "figures": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1) + "\n")


def compare_files(before: Path, after: Path) -> Comparison:
    """What became of the ratios in the file `before` in the file `after`. Raises NoFigures."""
    return compare(_read(before)["ratios"], _read(after)["ratios"])


def busy(path: Path) -> str | None:
    """A sentence if the machine of this file had other things to do than its figures; None if not. Raises NoFigures."""
    body = _read(path)
    load, cores = body.get("load", 0.0), body.get("cores", 1)
    if load <= cores:
        return None
    return f"{path} was measured on a machine that was busy (load {load:g} on {cores} cores): measure it again."


def _read(path: Path) -> dict[str, Any]:
    """The figures in a file. Raises NoFigures."""
    try:
        body = json.loads(path.read_text())
        return {**body, "ratios": {str(name): float(value) for name, value in body["ratios"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoFigures(path=path, why=f"{type(error).__name__}: {error}") from error
