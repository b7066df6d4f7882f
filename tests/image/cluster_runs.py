"""docker compose --profile cluster: three of MongoDB and RabbitMQ each, two schedulers; deals end whichever dies."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from ops.pool.site import Servers
from protocol.poco.view import TaskStatus
from tests.image import composed
from tests.image.compose_runs import Pool, machine_beside, started
from tests.image.conftest import Image, does_a_task
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def pool(image: Image, shared_servers: Servers) -> Iterator[Pool]:
    """All services of the profile are up and healthy."""
    with started(image, shared_servers, composed.CLUSTER) as found:
        yield found


@pytest.fixture(scope="module")
def machine(pool: Pool, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of the container of a machine beside it."""
    with machine_beside(pool, image, tmp_path_factory.mktemp("machine")) as name:
        yield name


def test_three_of_each_server_and_two_schedulers_become_healthy(pool: Pool) -> None:
    found = [json.loads(line) for line in pool.project.compose("ps", "--format", "json").stdout.splitlines()]
    assert {each["Service"]: (each["State"], each["Health"]) for each in found} == dict.fromkeys(
        composed.services(composed.CLUSTER), ("running", "healthy")
    )


def test_they_carry_a_deal_from_end_to_end(pool: Pool, image: Image, machine: str) -> None:
    does_a_task(
        pool.ground, lambda: image.restarted(machine), lambda: f"{image.log(machine)[-4000:]}\n{pool.project.log()}"
    )


@pytest.mark.parametrize("service", ["mongodb", "rabbitmq", "scheduler"])
def test_a_deal_ends_although_the_first_of_a_kind_is_killed_in_the_middle(
    pool: Pool, image: Image, machine: str, service: str
) -> None:
    assert not image.ended(machine)
    container = pool.project.container(service)
    deal = pool.ground.buy(trust=1, volume=4, args="sleep 2")
    os.kill(image.state(container)["Pid"], signal.SIGKILL)
    views = pool.ground.wait([deal])
    assert {view.status for view in views.values()} == {TaskStatus.COMPLETED}, pool.project.log()[-8000:]
    wait_until(lambda: image.state(container)["Health"]["Status"] == "healthy", 240, what=f"health of {service}")
