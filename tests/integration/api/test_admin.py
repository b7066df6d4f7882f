"""The operator's API, and the commands that are its client, on real servers."""

from __future__ import annotations

import asyncio
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from amqp import Message

from config import topology
from config.celery_apps import core_app
from config.operator_token import token_file
from config.settings import settings
from config.whole_files import write_whole
from ops import cli
from ops.admin.client import OperatorApi
from pipeline.api.admin.access import operator_token
from pipeline.api.application import create_operations_app
from pipeline.domain.records import ChainFacts, TaskRecord, TaskStage
from pipeline.store.client import database
from protocol.errors import BadSetting, OperatorRefused
from protocol.types import BlockNumber, NRlc, TaskId, Timestamp, Wei
from tests.integration.api.conftest import OFFER, STRANGER, TASK, WORKER, Api
from tests.waiting import wait_until

OTHER = TaskId("0x" + "1f" * 32)


def routes(api: Api) -> list[tuple[str, str]]:
    document = api.operations.get("/openapi.json").json()
    return [
        (method.upper(), re.sub(r"{wallet}", WORKER.wallet, re.sub(r"{(anything|task_id|deal_id)}", TASK, path)))
        for path, methods in document["paths"].items()
        if path.startswith("/admin/")
        for method in methods
    ]


def test_nothing_is_changed_without_the_operators_token(api: Api) -> None:
    found = [(method, path) for method, path in routes(api) if method != "GET"]
    assert len(found) >= 9
    signed_in = api.bearer(WORKER)["authorization"]
    for method, path in found:
        for given in (None, "Bearer", "Bearer x", signed_in, f"Basic {operator_token(api.settings)}"):
            headers = {} if given is None else {"authorization": given}
            answer = api.operations.request(method, path, headers=headers, params={"most": 1})
            assert answer.status_code == 401, (method, path, given)
            assert set(answer.json()) == {"error", "fix"}
    assert api.http.get("/admin/status").status_code == 404, "the public port has none of them"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:18301"},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
        {"authorization": ""},
        {"authorization": "Bearer x"},
    ],
)
def test_only_a_request_from_this_machine_to_this_machine_reads_without_the_token(
    api: Api, headers: dict[str, str]
) -> None:
    found = [path for method, path in routes(api) if method == "GET" and not path.endswith("/live")]
    assert len(found) >= 9
    for path in found:
        assert api.operations.get(path).status_code != 401
        assert api.operations.get(path, headers=headers).status_code == 401, path
    assert api.operations.get("/admin/live", headers=headers).status_code == 401


def test_the_token_is_a_file_that_only_its_owner_reads(api: Api) -> None:
    path = token_file(api.settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() == operator_token(api.settings)
    path.chmod(0o644)
    try:
        with pytest.raises(BadSetting, match="can be read by others"):
            operator_token(api.settings)
    finally:
        path.chmod(0o600)
    assert operator_token(api.settings) not in repr(api.settings)


def test_commands_that_go_on_are_told_of_changes_and_do_not_ask_again_and_again(
    api: Api, sluice: Callable[..., tuple[int, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = OperatorApi.open()
    told = client.follow("/live")
    assert [next(told)["workerpool"] for _ in range(2)] == [api.services.pool.workerpool] * 2
    asked, get = [], OperatorApi.get

    def note(client: OperatorApi, path: str, **options: Any) -> Any:
        asked.append(path)
        return get(client, path, **options)

    monkeypatch.setattr(OperatorApi, "get", note)
    assert sluice("pool", "drain", "--json")[0] == 0
    assert asked == ["/status"], "once in the end: what it is told may be some seconds old"
    monkeypatch.undo()
    api.services.store.pause.resume()
    monkeypatch.setenv("SLUICE_ADMIN_URL", f"http://127.0.0.1:{api.settings.operations_port}/")
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", "x" * 30)
    settings.cache_clear()
    with pytest.raises(OperatorRefused, match="not the operator's token"):
        next(OperatorApi.open().follow("/live"))


def test_a_rotated_operators_token_holds_at_once_and_the_former_is_refused(
    api: Api, admin: httpx.Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = token_file(api.settings)
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN_FILE", str(path))
    former = path.read_text()
    settings.cache_clear()
    assert cli.run(["keys", "rotate", "admin", "--dry-run"]) == 0
    assert "The operator's token, at once" in capsys.readouterr().out
    assert admin.get("/queues").status_code == 200
    settings.cache_clear()
    try:
        assert cli.run(["keys", "rotate", "admin"]) == 0
        assert operator_token(api.settings) not in capsys.readouterr().out
        assert admin.get("/queues").status_code == 401
        newer = {"authorization": f"Bearer {operator_token(api.settings)}"}
        assert admin.get("/queues", headers=newer).status_code == 200
        # What cannot be used does not lock the operator out.
        path.write_text("short")
        assert admin.get("/queues", headers=newer).status_code == 200
    finally:
        write_whole(path, former, mode=0o600)
        settings.cache_clear()
    assert admin.get("/queues").status_code == 200


def test_status_shows_alerts_work_and_machines(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    give()
    api.sign_in(WORKER)
    code, found = sluice("status", "--json")
    assert code == 1, "no chain is part of these tests"
    assert {alert["part"] for alert in found["alerts"]} >= {"chain"}
    assert found["work"]["open_tasks"] == 1
    assert found["work"]["machines"]["idle"] == 1
    assert (found["head"], found["gas_balance_wei"]) == (None, None)
    code, screen = sluice("status")
    assert code == 1
    assert "The pool needs you" in screen
    assert "1 idle" in screen
    assert "RECEIVED" in screen


def test_tasks_are_listed_by_stage_deal_and_machine(
    api: Api, give: Callable[..., TaskRecord], admin: httpx.Client, sluice: Callable[..., tuple[int, Any]]
) -> None:
    first, second = give(), give(task_id=OTHER, wallet=STRANGER.wallet)
    store = api.services.store
    assert store.tasks.save([replace(second, stage=TaskStage.COMPLETED, open=False, matched_block=BlockNumber(9))]) == {
        OTHER
    }

    def ids(**params: Any) -> list[str]:
        return [line["task_id"] for line in admin.get("/tasks", params=params).raise_for_status().json()]

    assert ids() == [TASK]
    assert ids(all=True) == [OTHER, TASK], "those matched last come first"
    assert ids(all=True, before=f"9:{OTHER}") == [TASK]
    assert ids(stage="COMPLETED") == [OTHER]
    assert ids(deal=first.deal_id) == [TASK, OTHER]
    assert ids(deal=first.deal_id, first=0x1F) == [OTHER]
    assert ids(deal=first.deal_id, stage="COMPLETED", limit=1) == [OTHER], "a page has only what is asked for"
    assert ids(worker=WORKER.wallet, stage="RUNNING") == []
    assert ids(worker=WORKER.wallet) == [TASK]
    assert ids(worker=STRANGER.wallet) == [], "that one is over"
    code, screen = sluice("task", "ls")
    assert code == 0
    assert TASK in screen
    assert OTHER not in screen


def test_pages_of_tasks_matched_in_one_block_leave_none_out(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    wanted = {give(task_id=TaskId(f"0x{number:064x}")).task_id for number in range(1, 8)}
    seen: list[str] = []
    words = ["task", "ls", "--limit", "3"]
    while found := sluice(*words, "--json")[1]:
        seen += [line["task_id"] for line in found]
        hint = sluice(*words)[1].strip().splitlines()[-1]
        if "--before" not in hint:
            break
        words = ["task", "ls", "--limit", "3", "--before", hint.rpartition(" ")[2]]
    assert sorted(seen) == sorted(wanted)
    assert "--before" not in sluice("task", "ls", "--limit", "3", "--worker", WORKER.wallet)[1]


def test_what_strangers_write_does_not_drive_the_terminal(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    evil = "ok\x1b]52;c;aGk=\x07\x1b[2J\x1b[1A"
    give()
    api.sign_in(WORKER, capabilities=OFFER.model_dump() | {"name": evil})
    # As a row of an older release has it.
    database(api.settings)["workers"].update_one({"_id": WORKER.wallet}, {"$set": {"name": evil, "version": evil}})
    database(api.settings)["tasks"].update_one({"_id": TASK}, {"$set": {"why": evil, "replicates.0.cause": evil}})
    for words in (
        ("worker", "ls"),
        ("worker", "show", WORKER.wallet),
        ("worker", "drain", WORKER.wallet),
        ("explain", TASK),
        ("task", "ls"),
        ("task", "show", TASK),
    ):
        code, said = sluice(*words)
        assert code == 0
        assert "ok" in said or words[:2] in {("explain", TASK), ("task", "ls")}
        assert "\x1b" not in said, words
        assert "\x07" not in said, words


def test_drain_waits_for_a_task_that_is_computed_before_it_is_initialized(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    task = give()
    assert task.stage is TaskStage.RECEIVED
    assert sluice("pool", "drain", "--wait", "0.1", "--json") == (1, {"drained": False})
    assert sluice("status", "--json")[1]["work"]["begun_tasks"] == 1
    late = replace(task, contribution_deadline=Timestamp(1), final_deadline=Timestamp(2))
    assert api.services.store.tasks.save([late]) == {TASK}
    assert sluice("pool", "drain", "--json")[0] == 0, "nobody can vote on it any more"


def test_a_task_is_shown_with_what_happened_and_what_it_waits_for(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    give()
    token = api.bearer(WORKER)
    api.http.post(f"/tasks/{TASK}/reports", json={"step": "started"}, headers=token).raise_for_status()
    code, found = sluice("task", "show", TASK, "--json")
    assert code == 0
    assert [moment["what"] for moment in found["moments"]] == ["matched", "assigned", "reported started"]
    (replicate,) = found["replicates"]
    assert (replicate["wallet"], replicate["name"], replicate["state"]) == (WORKER.wallet, "m", "STARTED")
    assert found["why"]
    code, screen = sluice("task", "show", TASK)
    assert code == 0
    assert "reported started" in screen
    assert sluice("task", "show", "0x" + "77" * 32)[0] == 2
    assert sluice("task", "show", TASK[:12], "--json")[1]["task_id"] == TASK, "the beginning is enough"
    code, said = sluice("deal", "show", TASK[:12])
    assert (code, "is a task, not a deal" in said) == (2, True)
    code, said = sluice("task", "show", "12")
    assert (code, "0x and hex digits" in said, "--help" in said) == (2, True, True)


def test_explain_takes_the_beginning_of_an_id_and_says_when_it_is_not_enough(
    give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    give()
    give(task_id=OTHER, wallet=STRANGER.wallet)
    code, found = sluice("explain", TASK[:10], "--json")
    assert (code, found["kind"], found["id"]) == (0, "task", TASK)
    code, said = sluice("explain", "0x1f1f1f")
    assert (code, OTHER in said) == (0, True)
    assert sluice("explain", "0x77777777")[0] == 2
    assert sluice("explain", "hello")[0] == 2


def test_several_ids_with_one_beginning_are_named(
    give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    twin = TaskId(TASK[:-1] + "2")
    give()
    give(task_id=twin)
    code, said = sluice("explain", TASK[:10])
    assert code == 2
    assert TASK in said
    assert twin in said


def test_what_is_said_of_a_machine_is_what_the_matching_would_do(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    """In a pool without a machine that was ever right, newcomers decide also where their number is limited."""
    api.sign_in(WORKER)
    task = give(trust=5, wallet=STRANGER.wallet)
    waiting = replace(task, replicates=(), wants=1, newcomers=0, contribution_deadline=task.final_deadline)
    assert api.services.store.tasks.save([waiting]) == {TASK}
    api.services.store.workers.store_facts(
        [(WORKER.wallet, ChainFacts(1, NRlc(100), Wei(10**18), funded=True))], api.services.clock()
    )
    assert any("it may be given them now" in says for says in sluice("explain", WORKER.wallet, "--json")[1]["says"])
    assert sluice("pool", "pause")[0] == 0
    said = sluice("explain", WORKER.wallet, "--json")[1]["says"]
    assert "paused" in said[0]
    assert said[1:] == ["No task waits for a worker."]


def test_a_machine_is_drained_limited_and_given_back(api: Api, sluice: Callable[..., tuple[int, Any]]) -> None:
    api.sign_in(WORKER)
    wallet = WORKER.wallet
    assert sluice("worker", "drain", wallet, "--dry-run", "--json")[1]["changed"] is True
    assert sluice("worker", "ls", "--json")[1][0]["state"] == "idle", "a dry run changes nothing"
    code, done = sluice("worker", "drain", wallet, "--json")
    assert (code, done["changed"]) == (0, True)
    assert sluice("worker", "drain", wallet, "--json")[1]["changed"] is False, "it may be said twice"
    assert sluice("worker", "ls", "--json")[1][0]["state"] == "drained"
    assert any("drained" in says for says in sluice("explain", wallet, "--json")[1]["says"])
    assert sluice("worker", "slots", wallet, "3", "--json")[1]["changed"] is True
    assert "(at most 3)" in sluice("worker", "show", wallet)[1]
    assert sluice("worker", "undrain", wallet, "--json")[1]["changed"] is True
    assert sluice("worker", "show", wallet, "--json")[1]["operator_slots"] is None
    assert sluice("worker", "drain", STRANGER.wallet)[0] == 2, "no such machine"
    assert sluice("worker", "drain", wallet, "--cancel")[0] == 2


def test_a_ban_cuts_a_machine_off_and_is_lifted(api: Api, sluice: Callable[..., tuple[int, Any]]) -> None:
    session = api.sign_in(WORKER)
    assert sluice("worker", "ban", WORKER.wallet)[0] == 0
    header = {"authorization": f"Bearer {session.token}"}
    assert api.http.post("/workers/ping", json={"tasks": []}, headers=header).status_code == 403
    assert sluice("worker", "ls", "--json")[1][0]["state"] == "banned"
    assert sluice("worker", "unban", WORKER.wallet)[0] == 0
    api.sign_in(WORKER)


def test_a_pause_is_kept_shown_and_ended(api: Api, sluice: Callable[..., tuple[int, Any]]) -> None:
    assert sluice("pool", "pause", "--dry-run", "--json")[1] == {
        "changed": True,
        "dry_run": True,
        "says": "The pool begins no new task from now on.",
    }
    assert api.services.store.pause.state() is None
    assert sluice("pool", "pause", "--why", "$new disk")[0] == 0
    assert sluice("pool", "pause", "--json")[1]["changed"] is False
    pause = api.services.store.pause.state()
    assert pause is not None
    found = sluice("status", "--json")[1]
    assert found["work"]["paused"]["since"] == pause.since
    assert any(alert["part"] == "pause" for alert in found["alerts"])
    assert sluice("pool", "drain", "--json") == (0, {"drained": True, "begun": 0, "waiting": 0})
    assert sluice("pool", "resume", "--json")[1]["changed"] is True
    assert sluice("pool", "resume", "--json")[1]["changed"] is False
    assert sluice("status", "--json")[1]["work"]["paused"] is None


def test_deals_and_queues_are_listed(
    api: Api, give: Callable[..., TaskRecord], sluice: Callable[..., tuple[int, Any]]
) -> None:
    task = give()
    rows = database(api.settings)["deals"]
    rows.insert_one({"_id": task.deal_id, "state": "unreadable", "block": 4, "why": "a name that is no UTF-8"})
    rows.insert_one({"_id": "0x" + "99" * 32, "state": 5, "block": "odd"})
    code, found = sluice("deal", "ls", "--json")
    assert code == 0
    assert [(deal["deal_id"], deal["open_tasks"], deal["why"]) for deal in found] == [
        (task.deal_id, 1, "a name that is no UTF-8")
    ]
    assert "a name that is no UTF-8" in sluice("deal", "show", task.deal_id)[1]
    assert "cannot be served" in sluice("explain", task.deal_id)[1]
    assert sluice("deal", "show", "0x" + "99" * 32)[0] == 0, "an odd row is shown as it is"
    assert sluice("deal", "show", "0x" + "77" * 32)[0] == 2
    code, queues = sluice("queue", "ls", "--json")
    assert code == 0
    assert {"dead", "machines"} <= {queue["name"] for queue in queues}


def die(api: Api, *arguments: str) -> None:
    """Have a message for each argument fail for good in the scheduler's main queue; the first one was tried again by
    way of the queue of retries before, whose name RabbitMQ keeps as that of its first death.
    """
    app = core_app(api.settings)
    with app.connection_for_write() as connection:
        channel: Any = connection.channel()
        topology.pipeline_queue()(channel).declare()
        # Signing in and undraining have others published.
        channel.queue_purge(topology.PIPELINE_QUEUE)
        for argument in arguments:
            app.send_task(topology.ADVANCE, args=([argument],), connection=connection)

            def message() -> Any:
                return channel.basic_get(topology.PIPELINE_QUEUE)

            found = wait_until(message, 10, what="the message")
            if argument == arguments[0]:
                topology.retry_queue()(channel).declare()
                again = Message(found.body, **(found.properties | {"expiration": "1"}))
                channel.basic_publish(again, topology.RETRY_EXCHANGE.name, topology.PIPELINE_QUEUE)
                channel.basic_ack(found.delivery_tag)
                found = wait_until(message, 10, what="the message once more")
            channel.basic_reject(found.delivery_tag, requeue=False)


def test_reading_needs_the_token_here_too_if_the_operator_says_so(api: Api) -> None:
    strict = replace(api.services, settings=api.settings.model_copy(update={"admin_sign_in": "always"}))
    transport = httpx.ASGITransport(app=create_operations_app(strict), client=("127.0.0.1", 1))
    token = {"authorization": f"Bearer {operator_token(api.settings)}"}

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [(await client.get("/admin/tasks", headers=headers)).status_code for headers in ({}, token)]

    assert asyncio.run(statuses()) == [401, 200]


@pytest.fixture
def _emptied_queues(api: Api) -> Iterator[None]:
    yield
    with core_app(api.settings).connection_for_write() as connection:
        channel: Any = connection.channel()
        for queue in (topology.PIPELINE_QUEUE, topology.DEAD_QUEUE):
            channel.queue_purge(queue)


@pytest.mark.usefixtures("_emptied_queues")
def test_dead_letters_are_shown_delivered_again_and_removed(api: Api, sluice: Callable[..., tuple[int, Any]]) -> None:
    assert sluice("dead", "ls", "--json") == (0, [])
    die(api, "first", "second", "third")

    def listed() -> Any:
        found = sluice("dead", "ls", "--json")[1]
        return found if len(found) == 3 else None

    found = wait_until(listed, 10, what="three dead letters")
    assert [(item["task"], item["queue"], item["reason"]) for item in found] == [
        (topology.ADVANCE, topology.PIPELINE_QUEUE, "rejected")
    ] * 3
    assert all(item["died_at"] for item in found)
    first, second, third = (item["id"] for item in found)
    assert sluice("dead", "ls", "--json") == (1, found), "a look leaves all in place, in their order"
    assert "second" in sluice("dead", "show", second)[1]
    assert sluice("dead", "retry", second, "--dry-run", "--json")[1]["messages"] == [second]
    assert len(sluice("dead", "ls", "--json")[1]) == 3
    assert sluice("dead", "retry", second, "--json")[1]["messages"] == [second]
    with core_app(api.settings).connection_for_write() as connection:
        channel: Any = connection.channel()
        again = wait_until(lambda: channel.basic_get(topology.PIPELINE_QUEUE), 10, what="the message")
    assert again.headers["id"] == second
    assert "x-death" not in again.headers
    assert sluice("dead", "drop", first, "--json")[1]["messages"] == [first]
    assert [item["id"] for item in sluice("dead", "ls", "--json")[1]] == [third]
    assert sluice("dead", "drop", "no-such-id")[0] == 2
    assert sluice("dead", "drop")[0] == 2, "neither ids nor --all"
    assert sluice("dead", "drop", "--all", "--json")[1]["messages"] == [third]
    assert sluice("dead", "ls")[0] == 0


def test_a_command_that_cannot_reach_the_pool_says_where_it_looked_and_what_to_set(
    monkeypatch: pytest.MonkeyPatch, sluice: Callable[..., tuple[int, Any]], tmp_path: Any
) -> None:
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", "x" * 40)
    code, said = sluice("status")
    assert (code, "not the operator's token" in said) == (2, True)
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", f"  {'S3cret' * 6}\n")
    assert sluice("status")[0] == 2, "spaces around it are nothing"
    for bad in ("S3cret" * 6 + " \u00e9", "S3cret S3cret S3cret S3cret S3cret", "S3cret"):
        monkeypatch.setenv("SLUICE_ADMIN_TOKEN", bad)
        code, said = sluice("status")
        assert (code, "SLUICE_ADMIN_TOKEN" in said) == (2, True)
        assert "S3cret" not in said
    monkeypatch.setenv("SLUICE_ADMIN_TOKEN", "x" * 40)
    monkeypatch.setenv("SLUICE_ADMIN_URL", "http://pool.example:18301")
    code, said = sluice("status")
    assert (code, "in clear" in said) == (2, True)
    monkeypatch.setenv("SLUICE_ADMIN_URL", "http://user:hunter2@127.0.0.1:9")
    code, said = sluice("status")
    assert code == 1
    assert "SLUICE_ADMIN_URL" in said
    assert "hunter2" not in said
    monkeypatch.delenv("SLUICE_ADMIN_TOKEN")
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    code, said = sluice("status")
    assert (code, "SLUICE_ADMIN_TOKEN" in said, "admin.token" in said) == (2, True, True)
