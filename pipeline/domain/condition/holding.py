"""Whether the pool holds: begins no new work because something that the work needs has been away for a while. Pure.

    not well ──HOLD_SECONDS──► holding: no initialize, no assignment, no new order; what is begun goes on as it can
             ◄──well again───  it goes on by itself
                                  └─WITHDRAW_SECONDS─► what is offered on the market is withdrawn

Nothing fails because of a hold: deals are still stored, and a task's deadlines pass by the chain's time only.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.domain.condition.health import HealthPart

#: Seconds for which a part must have been away: a restart or a failover takes less, and retries bridge it.
HOLD_SECONDS = 20.0
#: Seconds of a hold after which orders are withdrawn. Each costs a transaction, and a deal that is bought in a shorter
#: hold has enough time left; one that is bought in a longer one may never be computed, and costs the pool its stake.
WITHDRAW_SECONDS = 300.0


def holding(
    parts: Mapping[str, HealthPart], red_since: Mapping[str, float], now: float, *, held: bool = False
) -> str | None:
    """Why the pool begins nothing now: the part that has been away longest, and what is wrong with it; None: it takes
    work. `red_since`: since when each part that is not well has been so, seconds of the same clock as `now`. `held`:
    whether it holds already; then it goes on once all parts are well, since one trouble may turn into another.
    """
    least = 0.0 if held else HOLD_SECONDS
    lasting = [
        (red_since.get(name, now), name)
        for name, part in parts.items()
        if not part.ok and part.needed_to_begin and now >= red_since.get(name, now) + least
    ]
    if not lasting:
        return None
    name = min(lasting)[1]
    return f"{name}: {parts[name].detail}"
