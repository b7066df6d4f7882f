"""The last of `make image-test`: the scheduler that all others used is stopped."""

from __future__ import annotations

from tests.image.base import docker
from tests.image.conftest import Image


def test_the_scheduler_ends_within_its_grace_period(image: Image, scheduler: str) -> None:
    docker(image.host, "stop", scheduler)
    state = image.state(scheduler)
    # 137 would be SIGKILL, after the grace period.
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), image.log(scheduler)[-4000:]
