"""The operator's API, and the commands that are its client, on real servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from pipeline.domain.records import ChainFacts, TaskRecord, TaskStage
from pipeline.store.client import database
from protocol.types import BlockNumber, NRlc, TaskId, Timestamp, Wei
from tests.integration.api.conftest import OFFER, STRANGER, TASK, WORKER, Api

OTHER = TaskId("0x" + "1f" * 32)


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
    assert sluice("task", "ls", "--worker", STRANGER.wallet) == (0, "There is no such task.\n")
    database(api.settings)["tasks"].delete_one({"_id": TASK})
    assert "--all" in sluice("task", "ls")[1], "one that is over is there"


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
    assert "handed to the lane" not in screen, "nothing is said of transactions that are not noted with this task"
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
    code, told = sluice("pool", "status", "--json")
    assert (code, told["paused"]) == (1, {"since": pause.since, "why": ""})
    assert "Paused since" in sluice("pool", "status")[1]
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
