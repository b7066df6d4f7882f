"""The gas market as this machine saw it last, in a file that its processes and commands share.

It is noted by what asks the node anyway, at every check of the machine (`workers.fitness.checkup`), so that taking a
task asks nothing more.
"""

from __future__ import annotations

import json

from chain.lane.rules.fees import FeeMarket
from config.whole_files import write_whole
from protocol.types import Wei
from workers.data.layout import Layout


def note(layout: Layout, market: FeeMarket) -> None:
    """Keep what the chain asks now."""
    write_whole(layout.market, json.dumps({"base_fee": market.base_fee, "tip": market.tip}))


def noted(layout: Layout) -> FeeMarket | None:
    """What the chain asked at the last look; None if there was none."""
    try:
        known = json.loads(layout.market.read_text())
        base_fee = known["base_fee"]
        return FeeMarket(None if base_fee is None else Wei(int(base_fee)), Wei(int(known["tip"])))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
