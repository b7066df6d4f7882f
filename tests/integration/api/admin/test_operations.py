"""What the operator's port tells, what the public one does not, and that neither needs another host."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chain.lane.model.intent import LaneId
from chain.lane.store.mongo import MongoStore
from config.settings import Settings
from ops import preflight
from ops.preflight import PreflightFinding
from ops.stack import ports
from pipeline.api.application import PUBLIC_DOCUMENT
from pipeline.domain.records import ChainFacts, Reservation, TaskRecord
from pipeline.store.client import database
from protocol.ethereum.signing import Key
from protocol.types import NRlc, Wei
from tests.integration.api.conftest import SCHEDULER_KEY, TASK, WORKER, Api, management
from tests.waiting import wait_until


def parts(api: Api) -> dict[str, Any]:
    found: dict[str, Any] = api.operations.get("/health").json()["parts"]
    return found


def test_health_names_each_part_and_what_to_do_about_the_one_that_is_away(api: Api) -> None:
    # A report is given again for some seconds: the last one may still count another test's machine.
    wait_until(lambda: not parts(api)["workers"]["ok"], 10, what="a report of this test's pool")
    health = api.operations.get("/health")
    assert (health.status_code, health.json()["ok"]) == (503, False)
    found = parts(api)
    # After half a minute it misses the scheduler's other processes, which these tests do not start.
    rabbitmq = found.pop("rabbitmq")
    assert rabbitmq["ok"] or "no process reads the queue" in rabbitmq["detail"]
    assert {name: part["ok"] for name, part in found.items()} == {
        "mongodb": True,
        "ipfs": True,
        "chain": False,
        "lane": True,
        "workers": False,
    }
    assert all(part["fix"] for part in found.values() if not part["ok"])


def test_health_says_why_the_lane_stands_still(api: Api) -> None:
    lane = LaneId(api.settings.chain_id, api.services.pool.scheduler)
    MongoStore(database(api.settings)).halt(lane, "Nonce 7 was used by a stranger.")
    wait_until(lambda: not parts(api)["lane"]["ok"], 10, what="the halt")
    assert "Nonce 7 was used by a stranger" in parts(api)["lane"]["detail"]


def test_the_public_port_says_only_whether_the_pool_works(api: Api) -> None:
    health = api.http.get("/health")
    assert (health.status_code, health.json()) == (503, {"ok": False})
    assert api.http.get("/live").json() == {"ok": True}
    assert api.http.get("/metrics").status_code == 404


def test_metrics_count_reports_and_tasks(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    report = api.http.post(f"/tasks/{TASK}/reports", json={"step": "started"}, headers=api.bearer(WORKER))
    report.raise_for_status()

    def counted() -> str:
        text = api.operations.get("/metrics").text
        return text if 'sluice_tasks{stage="RECEIVED"} 1.0' in text else ""

    text = wait_until(counted, 10, what="the task in the metrics")
    assert 'sluice_reports_total{step="started"}' in text
    assert 'sluice_part_ok{part="chain"} 0.0' in text


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_api_pages_need_no_other_host(api: Api, page: str) -> None:
    shown = api.operations.get(page).raise_for_status().text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", shown)
    assert loaded
    for address in loaded:
        assert address.startswith("/"), f"{page} loads {address}"
        assert api.operations.get(address).status_code == 200
    assert api.operations.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("page", ["/metrics", "/docs", "/redoc", "/openapi.json", PUBLIC_DOCUMENT])
def test_what_is_for_the_operator_is_not_on_the_public_port(api: Api, page: str) -> None:
    assert api.http.get(page).status_code == 404
    assert api.operations.get(page).status_code == 200


def test_the_operator_has_the_document_of_the_public_api(api: Api) -> None:
    assert "/workers/login" in api.operations.get(PUBLIC_DOCUMENT).json()["paths"]


def test_metrics_have_no_label_per_wallet_that_signed_in(api: Api) -> None:
    api.sign_in(WORKER)
    assert WORKER.wallet not in api.operations.get("/metrics").text


def test_a_path_that_does_not_exist_is_named_with_its_method(api: Api) -> None:
    assert api.http.get("/nonsense").json() == {
        "error": "This API has no GET /nonsense.",
        "fix": "Check method and path.",
    }


# -- before the start --------------------------------------------------------------------------------------------------


@pytest.fixture
def user(api_settings: Settings) -> Iterator[str]:
    """A RabbitMQ user without any tag, as most applications have one; its password is its name."""
    name = f"app-{secrets.token_hex(4)}"
    with management(api_settings) as broker:
        broker.put(f"/api/users/{name}", json={"password": name, "tags": ""}).raise_for_status()
        yield name
        broker.delete(f"/api/users/{name}").raise_for_status()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", ports.free_port())) as server:
        yield server.getsockname()[1]


def examined(settings: Settings, **changes: object) -> dict[str, PreflightFinding]:
    idle = settings.model_copy(update={"operations_port": ports.free_port(), **changes})
    return {finding.part: finding for finding in preflight.examine(idle, Key.from_hex(SCHEDULER_KEY))}


def test_the_error_for_a_broker_user_without_the_administrator_tag_says_how_to_get_it(
    api_settings: Settings, user: str
) -> None:
    port = api_settings.amqp_public_port
    url = type(api_settings.amqp_url)(f"amqp://{user}:{user}@127.0.0.1:{port}")
    for tags in ("", "management", "monitoring"):
        with management(api_settings) as broker:
            broker.put(f"/api/users/{user}", json={"password": user, "tags": tags}).raise_for_status()
        found = examined(api_settings, amqp_url=url)["rabbitmq"]
        assert not found.ok
        assert found.fatal
        assert "administrator" in found.says
        assert "rabbitmqctl set_user_tags" in found.fix
    with management(api_settings) as broker:
        broker.put(f"/api/users/{user}", json={"password": user, "tags": "administrator"}).raise_for_status()
    assert examined(api_settings, amqp_url=url)["rabbitmq"].ok


def test_servers_that_are_away_or_silent_are_each_one_line_and_what_can_be_waited_for_is_not_fatal(
    api_settings: Settings, silent: int
) -> None:
    for port in (silent, ports.free_port()):
        address = f"http://127.0.0.1:{port}"
        found = examined(api_settings, ipfs_api=address, rabbitmq_api=address, rpc_url=address)
        assert {name for name, item in found.items() if not item.ok} == {"ipfs", "rabbitmq", "chain"}
        assert {name for name, item in found.items() if item.fatal} == {"rabbitmq", "chain"}
        assert all("\n" not in item.says and (item.ok or item.fix) for item in found.values())


def test_a_wrong_database_password_or_server_is_one_line_without_the_password(api_settings: Settings) -> None:
    secret = type(api_settings.mongodb_uri)
    for uri in (
        f"mongodb://127.0.0.1:{ports.free_port()}/?replicaSet=rs0",
        "mongodb://me:s3cret@127.0.0.1:1/?replicaSet=rs0",
    ):
        found = examined(api_settings, mongodb_uri=secret(uri))["mongodb"]
        assert found.fatal
        assert "s3cret" not in found.says
        assert "SLUICE_MONGODB_URI" in found.fix


def test_a_running_scheduler_is_asked_about_itself(api: Api) -> None:
    found = {item.part: item for item in preflight.examine(api.settings, Key.from_hex(SCHEDULER_KEY))}
    assert not found["workers"].ok
    assert "scheduler" not in found


def test_metrics_are_also_told_in_the_shape_that_iexecs_order_tooling_reads(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    """Field names and task statuses of iExec Core 9.3 (PlatformMetric, TaskStatus)."""
    task = give()
    api.sign_in(WORKER)
    workers = api.services.store.workers
    workers.store_facts([(WORKER.wallet, ChainFacts(2, NRlc(0), Wei(1), funded=True))], api.clock())
    assert workers.reserve(WORKER.wallet, [Reservation(task.task_id, api.clock(), NRlc(0))])

    def told() -> dict[str, Any]:
        found: dict[str, Any] = api.operations.get("/metrics", headers={"accept": "application/json"}).json()
        return found if found["aliveWorkers"] else {}

    # An answer is given again for some seconds.
    found = wait_until(told, 10, what="the machine")
    statuses = found.pop("currentTaskStatusesCount")
    assert (len(statuses), statuses["RECEIVED"], sum(statuses.values())) == (21, 1, 1)
    assert set(found.pop("latestBlockMetric")) == {"blockNumber", "blockHash", "blockTimestamp"}
    assert found == {
        "aliveWorkers": 1,
        "aliveComputingCpu": 1,
        "aliveRegisteredCpu": 1,
        "aliveComputingGpu": 0,
        "aliveRegisteredGpu": 0,
        "aliveAvailableCpu": 0,
        "aliveTotalCpu": 1,
        "aliveAvailableGpu": 0,
        "aliveTotalGpu": 0,
        "dealEventsCount": 0,
        "dealsCount": 0,
        "replayDealsCount": 0,
        "latestBlockNumberWithDeal": 0,
    }
    assert api.operations.get("/metrics").text.startswith("#")
