"""What the management API counts of a queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class QueueCount:
    """Messages and consumers of a queue; `queues`: of how many together."""

    name: str
    ready: int
    unacknowledged: int
    consumers: int
    queues: int = 1

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the management API, where a queue that was made a moment ago has no counts."""
        ready, held, consumers = (
            int(row.get(name) or 0) for name in ("messages_ready", "messages_unacknowledged", "consumers")
        )
        return cls(str(row["name"]), ready, held, consumers)
