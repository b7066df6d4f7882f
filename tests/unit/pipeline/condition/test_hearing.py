"""When the silence of machines tells nothing of them, and when it does."""

from __future__ import annotations

import pytest

from pipeline.domain.condition.hearing import LONGEST_SECONDS, Hearing, unheard_lately

NOW, SILENCE, SWEEP = 10_000.0, 60.0, 5.0


@pytest.mark.parametrize(
    ("found", "unheard"),
    [
        (Hearing(), False),
        (Hearing(swept_at=NOW - 1), False),
        # The scheduler or its database was away, and no sweep has run since.
        (Hearing(swept_at=NOW - SILENCE), False),
        (Hearing(swept_at=NOW - SILENCE - 1), True),
        # The last sweep heard nobody, or one within the time that machines have to be heard again.
        (Hearing(NOW, NOW, NOW), True),
        (Hearing(NOW, NOW - 200, NOW - SILENCE + 1), True),
        (Hearing(NOW, NOW - 200, NOW - SILENCE), False),
        # Sweeps have heard nobody for so long that nobody is there.
        (Hearing(NOW, NOW - LONGEST_SECONDS + 1, NOW), True),
        (Hearing(NOW, NOW - LONGEST_SECONDS, NOW), False),
        # Written by a clock that was wrong.
        (Hearing(NOW, NOW + 500, NOW + 500), False),
    ],
)
def test_silence_tells_nothing_from_an_outage_until_machines_could_be_heard_again(
    found: Hearing, unheard: bool
) -> None:
    assert unheard_lately(found, NOW, SILENCE, SWEEP) is unheard
