"""Amounts of money as people write and read them. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

from protocol.errors import BadInput
from protocol.types import NRlc

#: nRLC in one RLC, wei in one gwei and in one unit of the native token.
NRLC, GWEI, ETHER = 10**9, 10**9, 10**18
_AMOUNT = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*(RLC|nRLC)", re.IGNORECASE)


def rlc(amount: int) -> str:
    """nRLC as RLC, exactly."""
    return _decimal(amount, 9)


def gwei(amount: int) -> str:
    """Wei as gwei, exactly."""
    return _decimal(amount, 9)


def ether(amount: int) -> str:
    """Wei as native token, exactly."""
    return _decimal(amount, 18)


def amount_of(text: str) -> NRlc:
    """nRLC of `12.5 RLC` or `100 nRLC`. Raises BadInput."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise BadInput(what=f"{text!r} is no amount: write it like `12.5 RLC` or `100 nRLC`.")
    number = Decimal(match[1]) * (NRLC if match[2].lower() == "rlc" else 1)
    if number != int(number) or number == 0 or number >= 2**63:
        raise BadInput(what=f"{text!r} is no amount: one nRLC is the least, there are no parts of it, and RLC are few.")
    return NRlc(int(number))


def _decimal(amount: int, digits: int) -> str:
    """An amount of the smallest unit as decimal text with at most `digits` places."""
    whole, part = divmod(abs(amount), 10**digits)
    text = f"{part:0{digits}d}".rstrip("0")
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}.{text}" if text else f"{sign}{whole}"
