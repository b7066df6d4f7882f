"""What settings that are a number may hold, by their unit. Types for pydantic."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

#: A price per gas. Decimal, so that what is written becomes exactly so many wei.
Gwei = Annotated[Decimal, Field(ge=0, decimal_places=9)]
#: A size: every part can store whole numbers of 8 bytes.
Bytes = Annotated[int, Field(gt=0, lt=2**63)]
Port = Annotated[int, Field(ge=1, le=65535)]
#: A wait, an interval or a time-out: at most a day, and never infinite, which `threading.Event.wait` refuses.
Seconds = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
#: Time for which something is kept, at most a century; with 0 for ever.
Days = Annotated[float, Field(gt=0, le=36500)]
DaysOrEver = Annotated[float, Field(ge=0, le=36500)]
