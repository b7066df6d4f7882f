"""Who may sign in, on a real API, MongoDB and RabbitMQ: the policy's commands act at once on every process."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import amqp
import httpx
import pytest

from chain.contracts import hub
from pipeline.broker.users import machine_user
from pipeline.domain.records import ChainFacts, TaskRecord
from pipeline.flow.cleanup import tidy
from pipeline.flow.cleanup.keep_results import DAY
from pipeline.flow.machines import enrolment
from pipeline.flow.machines.enrolment import Gate
from pipeline.scheduler import Scheduler
from pipeline.store.client import database
from protocol.ethereum.signing import Key
from protocol.types import NRlc, Wallet, Wei
from tests.integration.api.broker import connect
from tests.integration.api.conftest import STRANGER, WORKER, Api, management
from tests.waiting import ample, wait_until


@pytest.fixture
def gate(api: Api) -> Gate:
    store = api.services.store
    return Gate(store.workers, store.enrolment, api.services.broker, api.settings)


@pytest.fixture(name="sluice")
def enrol(sluice: Callable[..., tuple[int, Any]]) -> Callable[..., tuple[int, Any]]:
    """Runs `sluice enrol …` with the operator's address and token alone, as on a laptop; returns (exit code, its JSON
    or what it printed).
    """

    def run(*words: str, as_json: bool = True) -> tuple[int, Any]:
        return sluice("enrol", *words, *(["--json"] if as_json else []))

    return run


def refused(answer: httpx.Response, words: str, status: int = 403) -> None:
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def sign_in(api: Api, key: Key = WORKER, **more: Any) -> httpx.Response:
    return api.answer(key, api.challenge(key.wallet), **more)


def nothing_at_the_broker(api: Api, wallet: Wallet) -> bool:
    with management(api.settings) as broker:
        user = machine_user(api.settings.amqp_pool_vhost, wallet)
        return broker.get(f"/api/users/{user}").status_code == 404


def test_an_allow_list_refuses_others_before_anything_is_made_for_them(api: Api, sluice: Any) -> None:
    assert sluice("policy", "--mode", "allow")[0] == 0
    refused(sign_in(api), "allow list")
    assert nothing_at_the_broker(api, WORKER.wallet)
    assert api.services.store.workers.get_worker(WORKER.wallet) is None
    for _ in range(2):
        assert sluice("allow", WORKER.wallet.upper().replace("0X", "0x"))[1]["wallets"] == [WORKER.wallet]
    assert sign_in(api).status_code == 200
    refused(sign_in(api, STRANGER), "allow list")


def test_denying_a_machine_disconnects_it_and_ends_its_token_at_once(api: Api, sluice: Any) -> None:
    session = api.sign_in(WORKER)
    connection = connect(session.broker)
    assert sluice("deny", WORKER.wallet, "--dry-run")[1]["dry_run"]
    api.ping(session)
    assert sluice("deny", WORKER.wallet, "--note", "copies votes")[0] == 0
    header = {"authorization": f"Bearer {session.token}"}
    refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), "banned")
    with pytest.raises((amqp.exceptions.ConnectionForced, OSError)) as cut:
        wait_until(lambda: connection.drain_events(timeout=ample(5)), 5.0)
    assert not isinstance(cut.value, TimeoutError)
    refused(sign_in(api), "banned")
    assert sluice("allow", WORKER.wallet)[0] == 0
    # The old token does not come back with the wallet.
    refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), "ended this token", 401)
    assert api.ping(api.sign_in(WORKER))


def test_the_operator_is_told_of_the_list_that_keeps_a_machine_out(api: Api, sluice: Any, admin: httpx.Client) -> None:
    api.sign_in(WORKER)
    sluice("deny", WORKER.wallet)

    def says() -> str:
        return " ".join(admin.get(f"/workers/{WORKER.wallet}").raise_for_status().json()["says"])

    assert "`sluice enrol forget" in says()
    lifted = admin.post(f"/workers/{WORKER.wallet}/unban").raise_for_status().json()["says"]
    assert "on the deny list: `sluice enrol forget" in lifted
    refused(sign_in(api), "deny list")
    sluice("forget", WORKER.wallet)
    assert "sluice enrol" not in says()
    sluice("policy", "--mode", "allow")
    assert "`sluice enrol allow" in says()


def test_a_wallet_can_be_denied_before_it_ever_signs_in(api: Api, sluice: Any) -> None:
    assert sluice("deny", WORKER.wallet)[0] == 0
    refused(sign_in(api), "deny list")
    assert sluice("forget", WORKER.wallet)[0] == 0
    assert sign_in(api).status_code == 200


def test_who_may_work_decides_at_once_what_the_pool_offers(
    api: Api, sluice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders are withdrawn within 10 s of the last machine's going, also if the operator has sent it away."""
    sent = list[str]()
    for words in (
        ("deny", WORKER.wallet),
        ("forget", WORKER.wallet),
        ("allow", WORKER.wallet),
        ("revoke", WORKER.wallet),
        ("policy", "--mode", "allow"),
        ("policy", "--reset"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(api.services.notifier, "send_orders", partial(sent.append, words[0]))
            assert sluice(*words, "--dry-run")[0] == 0
            assert sent == []
            assert sluice(*words)[0] == 0
            assert sent == [words[0]]
            sent.clear()


def test_a_sign_in_that_was_under_way_when_its_wallet_was_denied_is_undone(api: Api, gate: Gate) -> None:
    broker = api.services.broker

    class DeniesMeanwhile:
        """The operator's command comes between the decision and the new user."""

        def __getattr__(self, name: str) -> Any:
            return getattr(broker, name)

        def enrol(self, wallet: Wallet, *, new: bool) -> str:
            enrolment.deny(gate, wallet, api.clock())
            return broker.enrol(wallet, new=new)

    application = api.application
    application.state.services = replace(api.services, broker=cast("Any", DeniesMeanwhile()))
    try:
        refused(sign_in(api), "banned")
    finally:
        application.state.services = api.services
    assert nothing_at_the_broker(api, WORKER.wallet)


def test_an_invite_admits_as_many_machines_as_it_says_and_each_again(api: Api, sluice: Any) -> None:
    sluice("policy", "--mode", "invite")
    refused(sign_in(api), "SLUICE_INVITE")
    refused(sign_in(api, invite="nonsense"), "not one of this pool")
    code = sluice("invite", "--uses", "1")[1]["code"]
    assert sign_in(api, invite=code).status_code == 200
    refused(sign_in(api, STRANGER, invite=code), "used up")
    assert sign_in(api, invite=code).status_code == 200
    assert sign_in(api).status_code == 200
    shown = sluice("show")[1]
    assert [row["wallet"] for row in shown["listed"]] == [WORKER.wallet]
    assert code not in json.dumps(shown)


def test_one_use_of_an_invite_is_taken_by_one_of_many_at_the_same_time(api: Api) -> None:
    stored = api.services.store.enrolment
    stored.invite("code", 3, api.clock() + 60, api.clock())
    wallets = [Wallet(f"0x{number:040x}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(lambda wallet: stored.use("code", wallet, api.clock()), wallets)) == 3


def test_an_invite_that_has_expired_or_is_withdrawn_admits_nobody(api: Api, sluice: Any) -> None:
    sluice("policy", "--mode", "invite")
    made = sluice("invite", "--days", "1")[1]
    api.clock.ahead = 25 * 3600.0
    refused(sign_in(api, invite=made["code"]), "expired")
    assert sluice("invite", "--withdraw", "another", "--dry-run")[0] == 2
    assert sluice("invite", "--withdraw", made["name"], "--dry-run", as_json=False) == (
        0,
        f"Invite {made['name']} would be withdrawn.\n",
    )
    refused(sign_in(api, invite=made["code"]), "expired")
    assert sluice("invite", "--withdraw", made["name"])[0] == 0
    assert sluice("invite", "--withdraw", made["name"])[0] == 2
    refused(sign_in(api, invite=made["code"]), "not one of this pool")


def test_a_node_that_does_not_answer_is_no_reason_to_refuse(api: Api, sluice: Any) -> None:
    sluice("policy", "--least-stake", "1000")
    # No node is part of these tests: nothing listens there.
    refused(sign_in(api), "the chain does not answer", 503)
    assert nothing_at_the_broker(api, WORKER.wallet)
    sluice("policy", "--reset")
    assert sign_in(api).status_code == 200


@pytest.fixture
def staked(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    """Has the hub say what a wallet has; reading the real one is `tests/integration/pipeline`'s."""

    def has(free: int, locked: int, score: int) -> None:
        monkeypatch.setattr(hub.Hub, "head", lambda _: 1)
        monkeypatch.setattr(hub.Hub, "account", lambda *_: SimpleNamespace(stake=free, locked=locked))
        monkeypatch.setattr(hub.Hub, "scores", lambda *_: [score])

    return has


def test_a_least_stake_counts_what_is_locked_and_a_least_score_is_asked_too(
    api: Api, sluice: Any, staked: Callable[[int, int, int], None]
) -> None:
    sluice("policy", "--least-stake", "1000", "--least-score", "3")
    staked(600, 399, 3)
    refused(sign_in(api), "has 999")
    staked(600, 400, 2)
    refused(sign_in(api), "score of 3")
    staked(600, 400, 3)
    assert sign_in(api).status_code == 200


def test_a_full_pool_takes_nobody_new_and_lets_its_own_come_back(api: Api, sluice: Any) -> None:
    sluice("policy", "--most-machines", "1")
    assert sign_in(api).status_code == 200
    refused(sign_in(api, STRANGER), "at most 1 machines and has as many")
    assert sign_in(api).status_code == 200
    sluice("allow", STRANGER.wallet)
    assert sign_in(api, STRANGER).status_code == 200


def test_an_address_may_have_so_many_machines_and_another_address_its_own(api: Api, sluice: Any) -> None:
    sluice("policy", "--most-per-address", "1")
    assert sign_in(api).status_code == 200
    refused(sign_in(api, STRANGER), "from one network address")
    elsewhere = httpx.Client(base_url=api.http.base_url, headers={"x-forwarded-for": "203.0.113.7"}, timeout=ample(10))
    with elsewhere:
        assert sign_in(replace(api, http=elsewhere), STRANGER).status_code == 200
    stranger = api.services.store.workers.get_worker(STRANGER.wallet)
    assert stranger is not None
    assert stranger.address == "203.0.113.7"


def test_a_stricter_mode_cuts_off_at_once_whom_it_does_not_admit(api: Api, sluice: Any) -> None:
    allowed, other = api.sign_in(WORKER), api.sign_in(STRANGER)
    sluice("allow", WORKER.wallet)
    assert sluice("policy", "--mode", "allow", "--dry-run")[1]["cut_off"] == [STRANGER.wallet]
    api.ping(other)
    assert sluice("policy", "--mode", "allow")[1]["cut_off"] == [STRANGER.wallet]
    assert api.ping(allowed)
    header = {"authorization": f"Bearer {other.token}"}
    refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), "ended this token", 401)
    assert nothing_at_the_broker(api, STRANGER.wallet)


def test_a_machine_that_holds_work_is_not_refused_by_a_new_least_stake(
    api: Api, give: Callable[..., TaskRecord], sluice: Any, staked: Callable[[int, int, int], None]
) -> None:
    api.sign_in(WORKER)
    held = {"task": "0x" + "11" * 32, "since": api.clock(), "stake": "0"}
    database(api.settings)["workers"].update_one({"_id": WORKER.wallet}, {"$set": {"held": [held]}})
    sluice("policy", "--least-stake", "1000")
    staked(0, 0, 0)
    assert sign_in(api).status_code == 200
    database(api.settings)["workers"].update_one({"_id": WORKER.wallet}, {"$set": {"held": []}})
    refused(sign_in(api), "has 0")


def test_a_revoked_machine_signs_in_again(api: Api, sluice: Any) -> None:
    session = api.sign_in(WORKER)
    assert sluice("revoke", WORKER.wallet)[0] == 0
    header = {"authorization": f"Bearer {session.token}"}
    refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), "ended this token", 401)
    assert api.ping(api.sign_in(WORKER))


def test_a_token_that_another_process_has_ended_brings_no_result_any_more(api: Api) -> None:
    header, task = api.bearer(WORKER), "0x" + "11" * 32
    # This process has just found it good.
    api.http.head(f"/tasks/{task}/result", headers=header)
    ended = {"$set": {"not_before": api.clock() + 1}}
    assert database(api.settings)["workers"].update_one({"_id": WORKER.wallet}, ended).matched_count
    refused(api.http.put(f"/tasks/{task}/result", content=b"zip", headers=header), "ended this token", 401)


def test_words_that_are_wrong_end_with_2_and_change_nothing(sluice: Any) -> None:
    for words in (("allow", "0x12"), ("policy",), ("policy", "--reset", "--mode", "open"), ("policy", "--mode", "no")):
        assert sluice(*words)[0] == 2
    assert sluice("show")[1]["set_by_command"] == []


def test_a_rotated_key_signs_at_once_and_tokens_of_the_former_go_on(
    api: Api, sluice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = api.sign_in(WORKER)
    # Where the key's file is.
    monkeypatch.setenv("SLUICE_HOME", str(api.settings.home))
    assert sluice("rotate-token-key")[0] == 0
    assert api.ping(session)
    newer = api.sign_in(WORKER)
    assert sluice("rotate-token-key", "--at-once")[0] == 0
    header = {"authorization": f"Bearer {newer.token}"}
    refused(api.http.post("/workers/ping", json={"tasks": []}, headers=header), "replaced", 401)


def test_a_long_silent_machine_loses_its_user_and_queues_and_has_them_again_at_its_next_sign_in(api: Api) -> None:
    for key in (WORKER, STRANGER):
        api.sign_in(key)
    workers, settings = api.services.store.workers, api.settings
    workers.store_facts([(WORKER.wallet, ChainFacts(2, NRlc(0), Wei(1), funded=True, score=5))], api.clock())
    scheduler = cast("Scheduler", SimpleNamespace(settings=settings, store=api.services.store, clock=api.clock))
    api.clock.ahead = settings.newcomer_idle_days * DAY - 60
    assert tidy.remove_idle_machines(scheduler, api.services.broker) == 0
    api.clock.ahead = settings.newcomer_idle_days * DAY + 60
    assert tidy.remove_idle_machines(scheduler, api.services.broker) == 1
    assert nothing_at_the_broker(api, STRANGER.wallet)
    assert not nothing_at_the_broker(api, WORKER.wallet)
    api.clock.ahead = settings.worker_idle_days * DAY + 60
    assert tidy.remove_idle_machines(scheduler, api.services.broker) == 1
    assert tidy.remove_idle_machines(scheduler, api.services.broker) == 0
    back = api.sign_in(STRANGER)
    connect(back.broker).close()


def test_wallets_that_sign_in_and_go_take_no_more_of_the_broker_than_the_limit(api: Api, sluice: Any) -> None:
    """Each has two queues and a user at RabbitMQ, 0.4 MB, for a day: 2,000 such sign-ins left 862 MB there."""
    sluice("policy", "--most-machines", "1")
    assert sign_in(api).status_code == 200
    refused(sign_in(api, STRANGER), "at most 1 machines and has as many")
    assert not nothing_at_the_broker(api, WORKER.wallet)
    # It is gone: the sweep notes that, and its place is free; what it has at RabbitMQ goes with the next to come.
    api.clock.ahead = api.settings.worker_lost_seconds + 1
    assert api.services.store.workers.set_lost(WORKER.wallet, api.clock() - api.settings.worker_lost_seconds)
    assert sign_in(api, STRANGER).status_code == 200
    assert nothing_at_the_broker(api, WORKER.wallet)
    assert not nothing_at_the_broker(api, STRANGER.wallet)
    assert api.services.store.workers.with_queues() == [STRANGER.wallet]


def test_what_limits_and_tidying_ask_uses_an_index(api: Api) -> None:
    api.sign_in(WORKER)
    rows = database(api.settings)["workers"]
    for query in (
        {"lost": False, "banned": False, "_id": {"$ne": "x"}, "seen_at": {"$gte": 0.0}},
        {"lost": False, "banned": False, "_id": {"$ne": "x"}, "address": "127.0.0.1"},
        {"queues": True, "held": [], "pledged": [], "successes": 0, "seen_at": {"$lt": 1.0}},
        {"queues": True, "held": [], "pledged": [], "seen_at": {"$lt": 1.0}},
        {"queues": True, "seen_at": {"$gte": 0.0}, "_id": {"$ne": "x"}},
    ):
        assert "COLLSCAN" not in json.dumps(rows.find(query).explain()["queryPlanner"]["winningPlan"], default=str)
