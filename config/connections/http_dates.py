"""Moments and waits in the headers of HTTP answers, as another machine wrote them."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

#: Seconds that a server may ask us to wait at most: longer than any limit of a registry lasts. A moment beyond what
#: calendars hold can be neither compared nor shown.
LONGEST_RETRY_AFTER: Final = 24 * 3600.0


def read_http_date(text: str | None) -> datetime | None:
    """The moment that a header names (RFC 9110); None without a header, and for one that names none with a zone."""
    try:
        found = None if text is None else parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        # OverflowError: a number in it that no machine word holds.
        return None
    return found if found is not None and found.tzinfo is not None else None


def read_retry_after(text: str | None, now: datetime) -> float:
    """Seconds of a `Retry-After` header (RFC 9110: a number, or a date), at most LONGEST_RETRY_AFTER; 0 for one that
    says neither.
    """
    if text is not None and text.strip().isdecimal():
        return min(float(text.strip()[:9]), LONGEST_RETRY_AFTER)
    at = read_http_date(text)
    return 0.0 if at is None else min(max((at - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)
