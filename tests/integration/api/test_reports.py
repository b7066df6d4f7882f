"""Reports of worker machines to a real API: what is stored, what is published, and who may read an app's output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pymongo.errors import AutoReconnect

from config.celery_apps import core_app
from config.settings import Settings
from config.topology import PIPELINE_QUEUE
from ops.stack import ports
from pipeline.broker.flower import flower_launch
from pipeline.broker.monitor import flower_sign_in
from pipeline.broker.notify import FREED
from pipeline.domain.machines.slots import forgotten_slots
from pipeline.domain.records import ReplicateState, Reservation, TaskRecord
from pipeline.store.machine.workers import Workers
from protocol.poco.tags import GPU_BIT, make_tag
from protocol.types import Hash32, NRlc
from protocol.wire import LOG_TAIL_CHARACTERS, Step
from tests.integration.api.conftest import REQUESTER, STRANGER, TASK, WORKER, Api, management
from tests.integration.pipeline.rows import NO_TAG, deal
from tests.waiting import ample, wait_until

REPORTS = f"/tasks/{TASK}/reports"


@pytest.fixture
def pipeline_queue(api_settings: Settings) -> Iterator[Any]:
    """The scheduler's queue, which has no consumer yet."""
    with core_app(api_settings).connection_for_write() as connection:
        queue = core_app(api_settings).amqp.queues[PIPELINE_QUEUE](connection.default_channel)
        queue.declare()
        queue.purge()
        yield connection.default_channel


def published(channel: Any) -> list[tuple[str, str]]:
    """(task name, arguments, or FREED if the message says that) of every wake-up in the queue."""
    found = []
    while (message := channel.basic_get(PIPELINE_QUEUE, no_ack=True)) is not None:
        told = message.headers
        found.append((str(told["task"]), FREED if told.get(FREED) else str(told["argsrepr"])))
    return found


def test_an_accepted_report_is_stored_and_wakes_the_pipeline(
    api: Api, give: Callable[..., TaskRecord], pipeline_queue: Any
) -> None:
    give()
    header = api.bearer(WORKER)
    assert api.services.notifier.flush(ample(5.0))
    published(pipeline_queue)
    answer = api.http.post(REPORTS, json={"step": "computed"}, headers=header)
    assert answer.status_code == 204
    task = api.services.store.tasks.get_task(TASK)
    assert task is not None
    assert task.replicates[0].state is ReplicateState.COMPUTED
    assert api.services.notifier.flush(ample(5.0))
    assert published(pipeline_queue) == [("pipeline.assign", FREED)], "nothing else is to be decided"


def test_a_result_that_may_change_more_than_a_slot_has_its_task_decided_upon(
    api: Api, give: Callable[..., TaskRecord], pipeline_queue: Any
) -> None:
    give()
    api.services.store.tasks._rows.update_one({"_id": TASK}, {"$set": {"wants": 1}})
    api.http.post(REPORTS, json={"step": "computed"}, headers=api.bearer(WORKER)).raise_for_status()
    assert api.services.notifier.flush(ample(5.0))
    assert ("pipeline.advance", f"(['{TASK}'],)") in published(pipeline_queue)


def test_the_report_of_a_machine_that_works_alone_gives_its_slot_back(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    give()
    header, workers = api.bearer(WORKER), api.services.store.workers
    enrolled = workers.get_worker(WORKER.wallet)
    assert enrolled is not None
    assert workers.reserve(WORKER.wallet, [Reservation(TASK, api.clock(), NRlc(0))])
    api.http.post(REPORTS, json={"step": "computed"}, headers=header).raise_for_status()
    worker, task = workers.get_worker(WORKER.wallet), api.services.store.tasks.get_task(TASK)
    assert worker is not None
    assert task is not None
    assert (worker.held, [item.task_id for item in worker.pledged]) == ((), [TASK])
    assert (task.replicates[0].holds_slot, task.replicates[0].pledged) == (False, True)


def test_a_crash_before_the_slot_is_given_back_leaves_it_to_the_sweep(
    api: Api, give: Callable[..., TaskRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    give()
    header, workers = api.bearer(WORKER), api.services.store.workers
    now = api.clock()
    assert workers.reserve(WORKER.wallet, [Reservation(TASK, now, NRlc(0))])

    def end(*_: object) -> None:
        raise AutoReconnect

    with monkeypatch.context() as patch:
        patch.setattr(Workers, "pledge", end)
        assert api.http.post(REPORTS, json={"step": "computed"}, headers=header).status_code == 503
    assert api.http.post(REPORTS, json={"step": "computed"}, headers=header).status_code == 204
    holding, tasks = workers.holding_since(now + 1, 10), api.services.store.tasks.load_tasks([TASK])
    assert forgotten_slots(holding, {TASK: tasks[0]}, now + 1) == ([], [(WORKER.wallet, TASK)])


def test_a_repeated_report_is_accepted_and_changes_nothing(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    header = api.bearer(WORKER)
    for _ in range(2):
        assert api.http.post(REPORTS, json={"step": "started"}, headers=header).status_code == 204
    task = api.services.store.tasks.get_task(TASK)
    assert task is not None
    assert task.version == 1


def test_a_report_on_another_workers_task_is_refused(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    answer = api.http.post(REPORTS, json={"step": "computed"}, headers=api.bearer(STRANGER))
    assert (answer.status_code, "not given to this wallet" in answer.json()["error"]) == (403, True)
    task = api.services.store.tasks.get_task(TASK)
    assert task is not None
    assert task.replicates[0].steps == {}


def test_a_report_on_no_task_of_ours_is_not_found(api: Api) -> None:
    answer = api.http.post(f"/tasks/0x{'ee' * 32}/reports", json={"step": "started"}, headers=api.bearer(WORKER))
    assert answer.status_code == 404


def test_reports_that_are_malformed_or_too_large_are_refused(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    header = api.bearer(WORKER)
    bodies: list[tuple[object, int]] = [
        ({"step": "paid"}, 400),
        ({"step": "started", "wallet": STRANGER.wallet}, 400),
        ({"step": "failed", "cause": "x" * 201}, 400),
        ({"step": "computed", "stdout": "x" * (LOG_TAIL_CHARACTERS + 1)}, 400),
        ({"step": "computed", "stdout": "x" * 3_000_000}, 413),
    ]
    assert [api.http.post(REPORTS, json=body, headers=header).status_code for body, _ in bodies] == [
        status for _, status in bodies
    ]


def test_only_the_requester_reads_what_the_app_printed(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    body = {"step": "computed", "exit_code": 0, "stdout": "hello", "stderr": "oops"}
    api.http.post(REPORTS, json=body, headers=api.bearer(WORKER)).raise_for_status()

    def read(key: Any, query: dict[str, int]) -> httpx.Response:
        challenge = api.http.get("/tasks/logs/challenge", params={"address": key.wallet, **query}).json()
        authorization = f"0x{'00' * 32}_{key.sign_typed_data(challenge)}_{key.wallet}"
        return api.http.get(f"/tasks/{TASK}/logs", params=query, headers={"Authorization": authorization})

    for query in ({}, {"chainId": api.settings.chain_id}):
        assert read(REQUESTER, query).json() == {
            "chainTaskId": TASK,
            "computeLogsList": [{"walletAddress": WORKER.wallet, "stdout": "hello", "stderr": "oops"}],
        }
    assert read(STRANGER, {}).status_code == 403
    assert api.http.get(f"/tasks/{TASK}/logs").status_code == 401
    assert api.http.get("/tasks/logs/challenge", params={"address": "0x12"}).status_code == 400
    assert api.http.get(f"/tasks/logs/challenge?address={WORKER.wallet}&chainId=1").status_code == 400


def test_tasks_and_deals_are_public(api: Api, give: Callable[..., TaskRecord]) -> None:
    task = give()
    model = api.http.get(f"/tasks/{TASK}").json()
    assert (model["chainTaskId"], model["currentStatus"], model["trust"]) == (TASK, "RECEIVED", 1)
    assert model["replicates"][0]["walletAddress"] == WORKER.wallet
    replicate = api.http.get(f"/tasks/{TASK}/replicates/{WORKER.wallet}").json()
    assert replicate["currentStatus"] == "CREATED"
    assert api.http.get(f"/tasks/{TASK}/replicates/{STRANGER.wallet}").status_code == 404
    assert api.http.get(f"/tasks/0x{'ee' * 32}").status_code == 404
    assert api.http.get(f"/deals/{task.deal_id}").status_code == 404


def test_a_deal_says_of_every_open_task_what_it_waits_for(api: Api, give: Callable[..., TaskRecord]) -> None:
    task = give()
    api.services.store.deals._rows.insert_one({"_id": task.deal_id, "block": deal().matched_block, "state": "new"})
    api.services.store.deals.store_for_later(replace(deal(1), deal_id=task.deal_id))
    api.services.store.tasks.save([replace(task, replicates=(), wants=1, tag=Hash32("0x" + "0" * 63 + "9"))])

    def why() -> str:
        (shown,) = api.http.get(f"/deals/{task.deal_id}").json()["tasks"]
        return str(shown["why"])

    def tagged(tag: Hash32) -> None:
        (stored,) = api.services.store.tasks.load_tasks([TASK])
        api.services.store.tasks.save([replace(stored, tag=tag)])

    assert "names no secret service" in why()
    tagged(make_tag(GPU_BIT))
    assert "No machine has signed in" in why()
    api.sign_in(WORKER)
    assert "demands: GPU" in why()
    tagged(NO_TAG)
    assert "were not read from the chain yet" in why()


def test_the_sdk_finds_the_api_through_compass(api: Api) -> None:
    found = api.http.get(f"/{api.settings.chain_id}/workerpools/{api.settings.workerpool}")
    assert found.json() == {"apiUrl": api.settings.api_url}
    assert api.http.get(f"/1/workerpools/{api.settings.workerpool}").status_code == 404


def test_a_ping_says_which_tasks_this_pool_has_no_record_of(api: Api, give: Callable[..., TaskRecord]) -> None:
    give()
    unknown = "0x" + "ee" * 32
    pong = api.http.post("/workers/ping", json={"tasks": [TASK, unknown]}, headers=api.bearer(WORKER))
    assert pong.json() == {"forget": [], "abort": [], "unknown": [unknown], "superseded": False}


def test_flower_shows_a_machine_and_each_of_its_steps_to_who_signs_in(
    api: Api, give: Callable[..., TaskRecord]
) -> None:
    give()
    settings = api.settings
    # Reached by others it asks who comes.
    sign_in = flower_sign_in(settings.model_copy(update={"flower_host": "0.0.0.0"}))
    assert sign_in is not None
    launch = flower_launch(settings, api.services.broker.admit_flower(), settings.rabbitmq_api, sign_in)
    env = {
        **os.environ,
        **launch.env,
        "SLUICE_AMQP_CORE_VHOST": settings.amqp_core_vhost,
    }
    flower = subprocess.Popen(launch.argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.flower_port}", timeout=ample(5.0)) as ui:
            wait_until(lambda: _listens_to_events(settings), 30.0, what="Flower")
            for page in ("/", "/tasks", "/api/tasks", "/api/workers"):
                assert ui.get(page).status_code == 401
                assert ui.get(page, auth=("monitor", "another password")).status_code == 401
            user, _, password = sign_in.partition(":")
            ui.auth = (user, password)
            header = api.bearer(WORKER)
            for step in (Step.STARTED, Step.COMPUTED, Step.UPLOADED, Step.CONTRIBUTED):
                api.http.post(REPORTS, json={"step": step}, headers=header).raise_for_status()
            api.http.post("/workers/ping", json={"tasks": [TASK]}, headers=header).raise_for_status()
            steps = wait_until(lambda: _steps(ui, 3), 15.0, what="three steps in Flower")
            assert steps == {
                "compute": "SUCCESS",
                "upload": "SUCCESS",
                "contribute_and_finalize": "SUCCESS",
            }
            # Another test's machine may be there too: what only Flower shows is sent a moment later.
            assert wait_until(lambda: _machines(ui).get(f"w.{WORKER.wallet}"), 5.0, what="the machine in Flower")
    finally:
        flower.send_signal(signal.SIGTERM)
        assert flower.wait(ample(10)) == 0


def _listens_to_events(settings: Settings) -> bool:
    """Whether Flower has its event queue bound; it drops what is sent before."""
    with management(settings) as broker:
        bindings = broker.get(f"/api/exchanges/{settings.amqp_core_vhost}/celeryev/bindings/source")
    return bindings.status_code == 200 and bool(bindings.json())


def _steps(ui: httpx.Client, count: int) -> dict[str, str]:
    """States of the steps; the scheduler's own Celery tasks, named `pipeline.…`, are there too."""
    rows = ui.get("/api/tasks").json().values()
    tasks = {row["name"]: row["state"] for row in rows if "." not in row["name"]}
    return tasks if len(tasks) >= count and set(tasks.values()) == {"SUCCESS"} else {}


def _machines(ui: httpx.Client) -> dict[str, bool]:
    return {row["hostname"]: row["status"] for row in ui.get("/workers", params={"json": 1}).json()["data"]}


def test_the_process_starts_serves_and_ends_cleanly_on_sigterm(api_settings: Settings) -> None:
    code = "from pipeline.api.serve import run\nfrom config.settings import settings\nrun(settings())"
    port = ports.free_port()
    wanted = api_settings.model_dump(include=api_settings.model_fields_set) | {"api_port": port}
    env = {
        f"SLUICE_{name.upper()}": getattr(value, "get_secret_value", lambda value=value: str(value))()
        for name, value in wanted.items()
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ample(5.0)) as http:

            def serves() -> bool:
                try:
                    return http.get("/config").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(serves, 20.0, what="the API process")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(ample(15)) == 0
