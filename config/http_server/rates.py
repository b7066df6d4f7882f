"""How often a wallet or an address may ask, by the names of limits.

The windows are fixed (library `limits`) and counted by each process for itself: several of them allow as many times as
much. Limits are far above what honest machines do; they end floods, not work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from limits import RateLimitItem, parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from config.settings import Settings
from protocol.errors import BadSetting, TooManyRequests

#: Number of counters beyond which those of past windows are dropped.
SWEEP_KEYS = 10_000
#: Limits by the names of their settings.
NAMES = ("requests", "sign_in", "sign_in_wallet", "ping", "upload", "logs")
#: Tasks in a ping whose look-up costs about as much as the ping itself. With the most that a ping may name (1,024),
#: nine pings a minute are answered; a machine sends six.
TASKS_AS_A_PING = 16
_OF_ADDRESS = "network address"
_OF_WALLET = "wallet"


class Counters(Storage):
    """Counters in this process. The library's own start a thread for each hundredth of a second of requests."""

    STORAGE_SCHEME = ["sluice"]  # noqa: RUF012 - the library's registry

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._sweep_at = SWEEP_KEYS
        super().__init__(None)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What this storage raises when it fails: no exception of its own, since it is memory. Required by the library
        `limits`.
        """
        return RuntimeError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count, in a window of `expiry` seconds that begins with the first. Two threads may count as one, rarely."""
        now = time.monotonic()
        count, ends = self._counts.get(key, (0, 0.0))
        if now >= ends:
            count, ends = 0, now + expiry
            if len(self._counts) >= self._sweep_at:
                self._sweep(now)
        self._counts[key] = (count + amount, ends)
        return count + amount

    def _sweep(self, now: float) -> None:
        """Forget the counts whose time is over."""
        self._counts = {key: item for key, item in list(self._counts.items()) if now < item[1]}
        # Keys that are all in use would otherwise be gone through at each request.
        self._sweep_at = max(SWEEP_KEYS, 2 * len(self._counts))

    def get(self, key: str) -> int:
        """How often `key` was counted in its present window."""
        count, ends = self._counts.get(key, (0, 0.0))
        return count if time.monotonic() < ends else 0

    def get_expiry(self, key: str) -> float:
        """When the present window ends, Unix seconds."""
        return time.time() + max(0.0, self._counts.get(key, (0, 0.0))[1] - time.monotonic())

    def check(self) -> bool:
        """Whether the storage can be reached: always, since it is memory. Required by the library `limits`."""
        return True

    def reset(self) -> int | None:
        """Forget all counts; returns how many there were."""
        count = len(self._counts)
        self._counts.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget the count of one key."""
        self._counts.pop(key, None)


class RateLimits:
    """The limits by name, and what was asked under each."""

    def __init__(self, limits: Mapping[str, RateLimitItem]) -> None:
        self._limits = limits
        self._counters = Counters()
        self._limiter = FixedWindowRateLimiter(self._counters)

    @classmethod
    def of(cls, settings: Settings) -> RateLimits:
        """The limits of SLUICE_RATE_…. Raises BadSetting."""
        return cls({name: parsed(f"SLUICE_RATE_{name.upper()}", getattr(settings, f"rate_{name}")) for name in NAMES})

    def count(self, name: str, who: str, cost: int = 1) -> None:
        """Count one request of a wallet, as `cost` of them. Raises TooManyRequests."""
        refused = self.refused(name, who, _OF_WALLET, cost)
        if refused is not None:
            raise refused

    def count_ping(self, wallet: str, tasks: int) -> None:
        """Count a ping that names so many tasks, each of which is looked up. Raises TooManyRequests.

        The first of a window is answered whatever it names: a machine that none is answered of would count as lost.
        """
        self.count("ping", wallet, min(1 + tasks // TASKS_AS_A_PING, self._limits["ping"].amount))

    def refused(self, name: str, who: str, kind: str = _OF_ADDRESS, cost: int = 1) -> TooManyRequests | None:
        """Count one request, as `cost` of them; what to answer if it is one too many."""
        limit = self._limits[name]
        if self._limiter.hit(limit, name, who, cost=cost):
            return None
        ends = self._limiter.get_window_stats(limit, name, who).reset_time
        seconds = max(1, round(ends - time.time() + 0.5))
        return TooManyRequests(who=kind, limit=f"{limit.amount} in {limit.get_expiry()} s", seconds=seconds)

    def reset(self) -> None:
        """Forget all counts; tests call it."""
        self._counters.reset()


def parsed(name: str, text: str) -> RateLimitItem:
    """A limit as the library writes it, such as `60/minute`. Raises BadSetting."""
    try:
        limit = parse(text)
    except ValueError as error:
        raise BadSetting(name=name, why=f"{text!r} is no rate", fix="Write it like 60/minute or 10/second.") from error
    if limit.amount < 1:
        raise BadSetting(name=name, why=f"{text!r} lets nothing in", fix="Write it like 60/minute or 10/second.")
    return limit
