"""Whether the certificates that the pool shows have ended, or end soon. Pure; `pipeline.certificates` looks at them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.condition.facts import CertificateFacts
from protocol.counts import count

_HOUR, _DAY = 3600.0, 86400.0
#: A certificate is near its end in its last tenth, and in its last two weeks at most: who renews by a clock does so
#: with a third of its life left.
NEAR_END_SECONDS, NEAR_END_SHARE = 14 * _DAY, 0.1
#: What to do about one.
RENEW = (
    "Renew it (`sluice scheduler certificate` for one of a CA of your own), and restart what has it open:"
    " `docker compose restart proxy rabbitmq`."
)


def ended(shown: Sequence[CertificateFacts], now: float) -> str | None:
    """Which of them have ended, as a clause without a full stop; None if none has."""
    places = ", ".join(one.place for one in shown if one.ends_at <= now)
    return f"the certificate of {places} has ended: machines and requesters refuse it" if places else None


def first_end(shown: Sequence[CertificateFacts], now: float) -> str:
    """Which of them ends first, and in how many days, as a clause without a full stop. `shown`: at least one."""
    first = min(shown, key=lambda one: one.ends_at)
    return f"the first to end is that of {first.place}, in {_time(first.ends_at - now)}"


def near_end(shown: Sequence[CertificateFacts], now: float) -> list[str]:
    """A clause without a full stop for each certificate that ends soon, compared with how long it is valid in all."""
    return [
        f"the certificate of {one.place} ends in {_time(one.ends_at - now)}; then machines and requesters refuse it"
        for one in shown
        if 0 < one.ends_at - now < min(NEAR_END_SECONDS, NEAR_END_SHARE * (one.ends_at - one.begins_at))
    ]


def _time(seconds: float) -> str:
    """A length of time in days, or in hours on the last of them."""
    return count(int(seconds // _DAY), "day") if seconds >= _DAY else count(int(seconds // _HOUR), "hour")
