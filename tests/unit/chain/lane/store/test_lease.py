"""Which holder of a lease is certainly dead: only of processes that this machine would see if they lived."""

from __future__ import annotations

import pytest

from chain.lane.store.lease import holder_is_dead, new_holder, process_of

#: Above the most that Linux gives (2**22).
NO_PID = 2**22 + 1


def ended(**changed: str) -> str:
    """A process of this machine that has ended, or one like it."""
    host, _, started, where, random = new_holder().split("|")
    fields = {"host": host, "pid": str(NO_PID), "started": started, "where": where, "random": random}
    return "|".join((fields | changed).values())


def test_an_ended_process_of_this_machine_is_dead_and_a_living_one_is_not() -> None:
    assert holder_is_dead(ended())
    assert not holder_is_dead(new_holder())
    assert process_of(ended(host="host")) == f"pid {NO_PID} on host"


@pytest.mark.parametrize(
    "elsewhere",
    [
        ended(where="3d6f0c5e-0000-4000-8000-000000000000-4026531836"),
        ended(where="?"),
        # As earlier releases named them: host, pid, start, random digits.
        f"vm|{NO_PID}|12|abcd1234",
        "elsewhere",
        "",
    ],
    ids=["another boot or container", "where is not known", "an earlier release", "another form", "nobody"],
)
def test_a_process_of_another_host_or_container_by_the_same_name_is_never_taken_for_dead(elsewhere: str) -> None:
    assert not holder_is_dead(elsewhere)
