"""Asks the secret service for challenges of tasks' enclaves, on a thread of its own: nothing else waits for it.

    advance ── AskChallenge, saved ──► ask ──► thread ── POST /tee/challenges/{task} ──► the task's record ──► advance
                                                  └── none told: why, into the record; `decide` has it asked again

A service that has lost a challenge makes another when it is asked.

Each batch ends where the service says nothing at all (away, too slow, 429), or fails for FAILURES tasks in a row (5xx):
one that is slow costs a few seconds of this thread, however many tasks wait for it. The tasks are asked for in another
order each time, so that those for which it fails always keep none of the others waiting. What is lost with the process
is asked again.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import httpx
import structlog
from pymongo.errors import PyMongoError

from config.connections.http_client import http_client
from config.metrics import CHALLENGES
from config.settings import Settings
from config.values.endpoints import secret_services
from pipeline.broker.background import Background
from pipeline.broker.notify import Notifier
from pipeline.store.task.challenges import Awaited, TaskChallenges
from protocol.errors import NoChallenge
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.enclave import challenge_request
from protocol.poco.tags import Framework, framework
from protocol.types import ZERO_ADDRESS, Hash32, TaskId, Wallet

log = structlog.get_logger(__name__)

#: Seconds of silence that a request waits, seconds for its answer from the first bytes on, and bytes of that: an
#: address has 42.
SILENT_SECONDS, ANSWER_SECONDS, MOST_BYTES = 5.0, 10.0, 1024
#: Server errors in a row that are no task's own: ours answers 503 for a task that its node does not know yet.
FAILURES = 3
#: Statuses by which the service says nothing about the task: any other one is about this request alone.
_SAYS_NOTHING = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS})
_ADDRESS = re.compile(r'"?(0x[0-9a-fA-F]{40})"?')


class Told(StrEnum):
    """The kind of answer that came in place of a challenge; NoChallenge has it in its field `told`."""

    NOTHING = "nothing"  #: it is away, too slow or overloaded
    FAILURE = "failure"  #: it failed, for this task or for all
    REFUSAL = "refusal"  #: it answered for this task alone


class SecretServiceApi:
    """The secret service at one address, as the workerpool's owner asks it. For one thread at a time."""

    def __init__(self, url: str, key: Key, *, transport: httpx.BaseTransport | None = None) -> None:
        """`key`: of the workerpool's owner; `transport`: for tests."""
        self.url, self._key = url, key
        headers = {"accept-encoding": "identity"}
        self._http = http_client(
            url, timeout=SILENT_SECONDS, headers=headers, answer_seconds=lambda: ANSWER_SECONDS, transport=transport
        )

    def challenge(self, task_id: TaskId) -> Wallet:
        """The challenge of a task. Raises NoChallenge, whose field `told` is a Told."""
        signature = self._key.sign_message(to_bytes(challenge_request(task_id)))
        try:
            with self._http.stream(
                "POST", f"/tee/challenges/{task_id}", headers={"authorization": signature}
            ) as answer:
                content = b""
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise self._none("its answer is too long", Told.FAILURE)
        except httpx.HTTPError as error:
            raise self._none(str(error) or type(error).__name__, Told.NOTHING) from error
        status = answer.status_code
        if status >= 500 or status in _SAYS_NOTHING:
            raise self._none(f"it answered HTTP {status}", Told.FAILURE if status >= 500 else Told.NOTHING)
        found = _ADDRESS.fullmatch(content.decode(errors="replace").strip())
        if not answer.is_success or found is None or found[1].lower() == ZERO_ADDRESS:
            raise self._none(f"it answered HTTP {status} without an address", Told.REFUSAL)
        return Wallet(found[1].lower())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _none(self, why: str, told: Told) -> NoChallenge:
        """The error for an answer without a challenge."""
        return NoChallenge(what=f"The secret service at {self.url}", why=why, told=told)


class Challenges:
    """One process's requests to the secret services, each of which serves one kind of enclave or any."""

    def __init__(
        self,
        apis: Mapping[Framework, SecretServiceApi],
        store: TaskChallenges,
        notifier: Notifier,
        *,
        shuffle: Callable[[list[TaskId]], None] = random.shuffle,
    ) -> None:
        """`notifier`: for the thread alone; `shuffle`: puts a batch into some order, in place."""
        self._apis, self._store, self._notifier, self._shuffle = dict(apis), store, notifier, shuffle
        self._background: Background[TaskId] = Background("challenges", self._deliver)

    @classmethod
    def of(cls, settings: Settings, key: Key, store: TaskChallenges, notifier: Notifier) -> Challenges | None:
        """None if the settings name no secret service. Raises BadSetting."""
        named = secret_services(settings)
        apis = {url: SecretServiceApi(url, key) for url in {*named.values()}}
        return cls({kind: apis[url] for kind, url in named.items()}, store, notifier) if named else None

    def ask(self, task_ids: Sequence[TaskId]) -> None:
        """Have the challenges of these tasks asked for soon."""
        if task_ids:
            self._background.put(*task_ids)

    def stop(self) -> None:
        """End the thread; what is queued is dropped."""
        self._background.stop(0.0)
        for api in {*self._apis.values()}:
            api.close()
        self._notifier.close()

    def _deliver(self, task_ids: Sequence[TaskId]) -> None:
        """Ask for the challenges of queued tasks; what cannot be stored is asked for again later."""
        try:
            self._ask(task_ids)
        except PyMongoError as error:
            log.warning(
                "Challenges could not be stored.", action="challenges_unstored", why=str(error).partition(" (")[0]
            )

    def _ask(self, task_ids: Sequence[TaskId]) -> None:
        """Ask for each task's challenge where its kind of enclave is served. Raises PyMongoError."""
        awaited = self._store.awaited(list(dict.fromkeys(task_ids)))
        for served in dict.fromkeys(self._apis.values()):
            self._ask_one(served, {task: it for task, it in awaited.items() if self._api_of(it.tag) is served})

    def _api_of(self, tag: Hash32) -> SecretServiceApi | None:
        """The service for tasks of a tag."""
        kind = framework(tag)
        return None if kind is None else self._apis.get(kind)

    def _ask_one(self, api: SecretServiceApi, awaited: Mapping[TaskId, Awaited]) -> None:
        """Ask one service for each task's challenge and store it; stop at an answer that holds for all. Raises
        PyMongoError.
        """
        waiting = list(awaited)
        self._shuffle(waiting)
        told, failures = [], 0
        for place, task_id in enumerate(waiting):
            try:
                self._store.record(task_id, api.challenge(task_id), awaited[task_id].asked_at)
            except NoChallenge as error:
                said = error.fields["told"]
                failures = failures + 1 if said is Told.FAILURE else 0
                of_all = said is Told.NOTHING or failures == FAILURES
                CHALLENGES.labels("refused" if said is Told.REFUSAL else "unknown").inc()
                log.warning("No challenge was told.", action="challenge_untold", task=task_id, why=str(error))
                self._store.record_none(waiting[place:] if of_all else [task_id], str(error))
                if of_all:
                    break
            else:
                failures = 0
                CHALLENGES.labels("told").inc()
                told.append(task_id)
        self._notifier.send_advance(told)
