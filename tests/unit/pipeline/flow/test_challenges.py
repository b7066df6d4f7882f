"""What the secret service answers when it is asked for a challenge, and what becomes of each answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx
import pytest
from pymongo.errors import AutoReconnect

from pipeline.broker.notify import Notifier
from pipeline.flow.challenges import FAILURES, Challenges, SecretServiceApi, Told
from pipeline.store.task.challenges import Awaited, TaskChallenges
from protocol.errors import NoChallenge
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key, recover_message_wallet
from protocol.poco.enclave import challenge_request
from protocol.poco.tags import Framework, make_tag
from protocol.types import Signature, TaskId, Wallet

OWNER = Key.from_hex("0x" + "55" * 32)
TASKS = [TaskId(f"0x{number:064x}") for number in range(1, 5)]
TOLD = "0x9A43BB008b7A657e1936ebf5d8e28e5c5E021596"
ASKED_AT = 1000.0


def asking(
    answer: httpx.Response | Exception, but: Mapping[TaskId, int] | None = None
) -> tuple[SecretServiceApi, list[httpx.Request]]:
    """A service that gives one answer to everything, and for the tasks of `but` that status; the requests it got."""
    seen: list[httpx.Request] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        status = (but or {}).get(TaskId(request.url.path.rpartition("/")[2]))
        if status is not None:
            return httpx.Response(status)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content)

    return SecretServiceApi("https://sms.example/base", OWNER, transport=httpx.MockTransport(serve)), seen


@pytest.mark.parametrize("text", [TOLD, f'"{TOLD}"', f"{TOLD.lower()}\n"])
def test_the_pools_owner_asks_with_its_signature_and_is_told_an_address(text: str) -> None:
    api, seen = asking(httpx.Response(200, text=text))
    assert api.challenge(TASKS[0]) == TOLD.lower()
    assert (seen[0].method, seen[0].url.path) == ("POST", f"/base/tee/challenges/{TASKS[0]}")
    signature = Signature(seen[0].headers["authorization"])
    assert recover_message_wallet(to_bytes(challenge_request(TASKS[0])), signature) == OWNER.wallet


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("refused"), Told.NOTHING),
        (httpx.ReadTimeout("silent"), Told.NOTHING),
        (httpx.RemoteProtocolError("cut short"), Told.NOTHING),
        (httpx.Response(500), Told.FAILURE),
        (httpx.Response(503, text=TOLD), Told.FAILURE),
        (httpx.Response(429), Told.NOTHING),
        (httpx.Response(200, text="x" * 2000), Told.FAILURE),
        (httpx.Response(401, json={"data": None, "error": "EXECUTION_NOT_AUTHORIZED_TASK_NOT_ACTIVE"}), Told.REFUSAL),
        (httpx.Response(404), Told.REFUSAL),
        (httpx.Response(302, text=TOLD), Told.REFUSAL),
        (httpx.Response(200, text=""), Told.REFUSAL),
        (httpx.Response(200, text="<html>"), Told.REFUSAL),
        (httpx.Response(200, text="0x" + "00" * 20), Told.REFUSAL),
        (httpx.Response(200, content=b"\xff\xfe"), Told.REFUSAL),
    ],
    ids=lambda value: getattr(value, "status_code", None) and f"{value.status_code}-{len(value.content)}",
)
def test_an_answer_without_an_address_tells_no_challenge(answer: httpx.Response | Exception, said: Told) -> None:
    api, _ = asking(answer)
    with pytest.raises(NoChallenge, match=r"The secret service at https://sms\.example/base gave no challenge") as told:
        api.challenge(TASKS[0])
    assert told.value.fields["told"] is said


@dataclass
class Records(TaskChallenges):
    """Keeps in memory what would be stored."""

    told: dict[TaskId, Wallet] = field(default_factory=dict)
    why: dict[TaskId, str] = field(default_factory=dict)
    full: bool = False
    #: The last digit of a task's tag, where it is not TDX's.
    kinds: dict[TaskId, int] = field(default_factory=dict)

    def awaited(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Awaited]:
        untold = [task for task in task_ids if task not in self.told]
        return {task: Awaited(make_tag(self.kinds.get(task, 0x9)), ASKED_AT) for task in untold}

    def record(self, task_id: TaskId, challenge: Wallet, asked_at: float) -> None:
        assert asked_at == ASKED_AT
        if self.full:
            raise AutoReconnect("the primary steps down")
        self.told[task_id] = challenge

    def record_none(self, task_ids: Sequence[TaskId], why: str) -> None:
        self.why |= dict.fromkeys(task_ids, why)


@dataclass
class Advanced(Notifier):
    """Keeps in memory which tasks would be looked at."""

    tasks: list[TaskId] = field(default_factory=list)

    def send_advance(self, tasks: Sequence[TaskId]) -> None:
        self.tasks += tasks

    def close(self) -> None:
        """Nothing to close."""


def as_it_is(_: list[TaskId]) -> None:
    """Leave a batch in its order."""


def asked(
    api: SecretServiceApi,
    records: Records,
    shuffle: Callable[[list[TaskId]], None] = as_it_is,
    others: Mapping[Framework, SecretServiceApi] | None = None,
) -> list[TaskId]:
    """Ask for all of TASKS; those that are looked at afterwards."""
    notifier = Advanced()
    apis = dict.fromkeys(Framework, api) | dict(others or {})
    challenges = Challenges(apis, records, notifier, shuffle=shuffle)
    challenges.ask([*TASKS, TASKS[0]])
    assert challenges._background.flush(10.0)
    challenges.stop()
    return notifier.tasks


def test_each_task_is_asked_for_once_and_looked_at_once_its_challenge_is_known() -> None:
    api, seen = asking(httpx.Response(200, text=TOLD))
    records = Records(told={TASKS[1]: Wallet("0x" + "11" * 20)})
    assert asked(api, records) == [TASKS[0], TASKS[2], TASKS[3]]
    assert len(seen) == 3
    assert records.told[TASKS[1]] == "0x" + "11" * 20


def test_a_challenge_that_was_told_and_not_stored_is_asked_for_again_also_by_another_process() -> None:
    api, seen = asking(httpx.Response(200, text=TOLD))
    records = Records(full=True)
    assert asked(api, records) == []
    records.full = False
    assert asked(asking(httpx.Response(200, text=TOLD))[0], records) == TASKS
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        (httpx.ConnectError("refused"), 1),
        (httpx.ReadTimeout("silent"), 1),
        (httpx.Response(429), 1),
        (httpx.Response(503), FAILURES),
        (httpx.Response(500), FAILURES),
    ],
    ids=["refused", "silent", "429", "503", "500"],
)
def test_a_service_that_is_away_is_asked_a_few_times_however_many_tasks_wait(
    answer: httpx.Response | Exception, times: int
) -> None:
    api, seen = asking(answer)
    records = Records()
    assert asked(api, records) == []
    assert len(seen) == times
    assert list(records.why) == TASKS


def test_each_task_is_asked_for_where_its_kind_of_enclave_is_served_and_one_service_keeps_no_other_waiting() -> None:
    (tdx, seen), (scone, away) = asking(httpx.Response(200, text=TOLD)), asking(httpx.ConnectError("refused"))
    records = Records(kinds={TASKS[0]: 0x3, TASKS[2]: 0x3, TASKS[3]: 0x5})
    assert asked(tdx, records, others={Framework.SCONE: scone}) == [TASKS[1], TASKS[3]]
    assert (len(seen), len(away)) == (2, 1)
    assert list(records.why) == [TASKS[0], TASKS[2]]


@pytest.mark.parametrize("status", [500, 503])
def test_tasks_for_which_the_service_always_fails_keep_no_other_from_its_challenge(status: int) -> None:
    api, _ = asking(httpx.Response(200, text=TOLD), dict.fromkeys(TASKS[: FAILURES - 1], status))
    records = Records()
    assert asked(api, records) == TASKS[FAILURES - 1 :]
    assert list(records.why) == TASKS[: FAILURES - 1]


def test_each_time_the_tasks_are_asked_for_in_another_order() -> None:
    # So many that a batch in this order asks for none of the others.
    but = dict.fromkeys(TASKS[:FAILURES], 503)
    records = Records()
    assert asked(asking(httpx.Response(200, text=TOLD), but)[0], records) == []
    assert asked(asking(httpx.Response(200, text=TOLD), but)[0], records, list.reverse) == TASKS[FAILURES:]
    assert list(records.told) == TASKS[FAILURES:]


def test_a_task_that_is_refused_keeps_no_other_from_being_asked_for() -> None:
    api, seen = asking(httpx.Response(401))
    records = Records()
    assert asked(api, records) == []
    assert len(seen) == len(TASKS)
    assert all("401" in why for why in records.why.values())
