"""Whether a worker can enter the network of its containers."""

from __future__ import annotations

from workers.sandbox.network import egress


def test_an_engine_that_no_process_of_ours_has_begun_is_in_another_pid_namespace() -> None:
    assert "PID namespace of its own" in str(egress.why_apart(0))


def test_whether_the_starter_of_an_engine_has_ended_says_nothing_of_the_engine() -> None:
    # More than any kernel gives a process.
    assert egress.why_apart(2**22 + 1) is None
