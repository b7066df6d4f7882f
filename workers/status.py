"""What a machine holds, read from its journal, whether or not it runs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from chain.keystore import load_key
from config.settings import Settings
from workers.journal import Journal
from workers.layout import layout_of


@dataclass(frozen=True, slots=True)
class Held:
    """One task in this machine's hands. `seconds`: since its last change."""

    task_id: str
    mode: str
    stage: str
    seconds: float
    digest: str | None
    cause: str | None
    link: str | None


def held(settings: Settings) -> list[Held]:
    """Every task not yet forgotten, oldest change first; none if this machine never ran. Raises BadKeystore."""
    layout = layout_of(settings.home, load_key(settings).wallet)
    if not layout.journal.exists():
        return []
    journal = Journal(layout.journal)
    try:
        return [
            Held(
                task_id=item.task_id,
                mode=item.assignment.mode,
                stage=item.stage,
                seconds=round(time.time() - item.updated_at, 1),
                digest=item.digest,
                cause=item.cause,
                link=item.link.location if item.link else None,
            )
            for item in journal.all()
        ]
    finally:
        journal.close()
