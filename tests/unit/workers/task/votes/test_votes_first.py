"""A machine that may not start reveals what it has voted first, and never by what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from chain.lane.model.intent import IntentState
from chain.lane.store.sqlite import SqliteStore
from config.settings import Settings, read_settings
from protocol.errors import (
    BadMessage,
    BadSetting,
    EngineUnavailable,
    PoolUnavailable,
    Refused,
    RpcUnavailable,
    SluiceError,
    WrongChain,
)
from protocol.types import Hash32, TaskId
from protocol.wire import SECOND_MACHINE, PoolConfig
from tests.unit.workers.assignments import WORKER_KEY, assignment, task_id
from tests.unit.workers.pool.test_complete_settings import POOL
from workers import log_file, machine, votes_first
from workers.context import Machine
from workers.data.layout import Layout, layout_of
from workers.money import pins
from workers.pool.api import PoolApi, UnaskedApi
from workers.pool.saved_config import load_pool_config, save_pool_config
from workers.pool.settings import complete_settings
from workers.task import votes
from workers.task.journal import Journal
from workers.task.replicate import ReplicateStage
from workers.task.unfinished import Unfinished

OTHER = "0x" + "99" * 20
NODE = "https://node.example"


class Revealed(Exception):
    """In place of upkeep and of the refusal that follows it."""


@dataclass
class Place:
    """One machine's disk, its pool and the nodes that it can be told of."""

    settings: Settings
    layout: Layout
    #: What the pool's `/config` answers, and what a sign-in does.
    config: Callable[[], PoolConfig] = lambda: POOL
    sign_in: Callable[[], Any] = lambda: pytest.fail("signed in")
    engine: Callable[[], None] = lambda: None
    #: By URL, what a node answers to the check of its chain; POOL's own answers as it should.
    nodes: dict[str, Callable[[], None]] = field(default_factory=dict)
    owner: str = POOL.scheduler
    #: The machines by which votes were revealed, with the refusal.
    revealed: list[tuple[Machine, SluiceError]] = field(default_factory=list)

    def vote(self, *, ended: bool = False) -> TaskId:
        with closing(Journal(self.layout.journal)) as journal:
            journal.add(assignment(1), 1.0)
            journal.mark_running(task_id(1), None, 1.0)
            digest = Hash32("0x" + "ab" * 32)
            journal.mark_computed(task_id(1), 1.0, digest=digest, callback_data=None, cause=None, exit_code=0)
            journal.mark_committed(task_id(1), 1.0)
            if ended:
                journal.end(task_id(1), 2.0)
        return task_id(1)

    def stop_while_voting(self, state: IntentState | None) -> TaskId:
        """Computed, and the vote in the lane in this state (None: not there), which the journal was not told."""
        with closing(Journal(self.layout.journal)) as journal:
            journal.add(assignment(1), 1.0)
            journal.mark_running(task_id(1), None, 1.0)
            digest = Hash32("0x" + "ab" * 32)
            journal.mark_computed(task_id(1), 1.0, digest=digest, callback_data=None, cause=None, exit_code=0)
            replicate = journal.find(task_id(1))
        assert replicate is not None
        if state is not None:
            vote = replace(votes.contribute(replicate, POOL.chain_id, 7.0), state=state)
            with closing(SqliteStore(self.layout.lane)) as store:
                store.add([vote])
        return task_id(1)

    def start(self, **changed: object) -> None:
        settings = read_settings(**{**self.settings.model_dump(exclude_unset=True), **changed})
        with machine.signed_in(settings):
            pass


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in ("CHAIN_ID", "HUB", "WORKERPOOL", "RPC_URL", "WS_URL", "BLOCK_TIME", "ALLOW_PLAINTEXT"):
        monkeypatch.delenv(f"SLUICE_{name}", raising=False)
    settings = read_settings(home=tmp_path, private_key="0x" + "11" * 32, api_url="https://pool.example")
    made = Place(settings, layout_of(tmp_path, WORKER_KEY.wallet))
    made.layout.make()
    own = complete_settings(settings, POOL)
    pins.keep(made.layout, own)
    save_pool_config(own, WORKER_KEY.wallet, POOL)

    def refuse(own: Machine, refusal: SluiceError, left: Unfinished, alone: Any) -> None:
        assert left.votes == 1
        with alone:
            made.revealed.append((own, refusal))
        raise Revealed from refusal

    monkeypatch.setattr(votes_first, "refuse", refuse)
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(machine, "START_TIMEOUT", 0.0)
    monkeypatch.setattr(machine, "PREDECESSOR_TIMEOUT", 0.0)
    monkeypatch.setattr(machine, "_try_engine", lambda _: made.engine())
    monkeypatch.setattr(log_file, "keep", lambda _: None)
    monkeypatch.setattr(PoolApi, "config", lambda _: made.config())
    monkeypatch.setattr(Machine, "sign_in", lambda *_, **__: made.sign_in())

    def connect(own: Settings) -> Any:
        return SimpleNamespace(name="node", url=own.rpc_url, close=lambda: None)

    def hub(rpc: Any, address: str) -> Any:
        def check(_: Settings) -> None:
            made.nodes.get(rpc.url, lambda: None)()

        def tasks(_: object) -> Any:
            raise RpcUnavailable(what="node", why="views are not asked here")

        owner = SimpleNamespace(owner=made.owner)
        return SimpleNamespace(address=address, check_chain=check, workerpool=lambda _: owner, tasks=tasks)

    for module in (machine, votes_first):
        monkeypatch.setattr(module, "connect", connect)
        monkeypatch.setattr(module, "Hub", hub)
    yield made


def raising(error: SluiceError) -> Callable[[], Any]:
    def ask() -> Any:
        raise error

    return ask


def names(**changed: object) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        place.config = lambda: POOL.model_copy(update=changed)

    return change


def nothing(_: Place) -> None:
    pass


def no_pool(place: Place) -> None:
    place.config = raising(BadSetting(name="SLUICE_API_URL", why="no Sluice pool answers", fix="Set it."))


def another_owner(place: Place) -> None:
    place.owner = OTHER


def a_node_of(error: SluiceError) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        place.config = lambda: POOL.model_copy(update={"rpc_url": NODE, "ws_url": None})
        place.nodes[NODE] = raising(error)

    return change


WRONG = WrongChain(why="it is on chain 2", fix="Name another.")
AWAY = RpcUnavailable(what="node", why="away")
#: What is wrong at the start, what the operator has changed, and words of the refusal.
REFUSALS = {
    "plain AMQP": (names(amqp_host="mq.example", amqp_port=5672), {}, "RabbitMQ"),
    "plain HTTP of the pool": (nothing, {"api_url": "http://pool.example"}, "API"),
    "something else than a pool": (no_pool, {}, "no Sluice pool answers"),
    "another hub": (names(hub=OTHER), {}, "in place of"),
    "another workerpool": (names(workerpool=OTHER), {}, "in place of"),
    "another chain": (names(chain_id=2), {}, "in place of"),
    "a plain node of the pool": (names(rpc_url="http://node.example", ws_url=None), {}, "node"),
    "a node of another chain": (a_node_of(WRONG), {}, "chain 2"),
    "a node that is away": (a_node_of(AWAY), {}, "away"),
    "a workerpool of another scheduler": (another_owner, {}, "belongs to"),
    "a hub that the operator names": (nothing, {"hub": OTHER}, "SLUICE_HUB"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_votes_are_revealed_before_a_start_is_refused_by_what_the_last_start_checked(
    place: Place, refusal: str
) -> None:
    change, changed, words = REFUSALS[refusal]
    change(place)
    place.vote()
    with pytest.raises(Revealed):
        place.start(**changed)
    ((own, why),) = place.revealed
    assert words in str(why)
    assert own.pool == POOL
    named = (own.settings.hub, own.settings.workerpool, own.settings.chain_id, own.settings.rpc_url)
    assert named == (POOL.hub, POOL.workerpool, POOL.chain_id, POOL.rpc_url)
    # What is refused is not spoken to.
    assert isinstance(own.api, UnaskedApi) == (not isinstance(why, RpcUnavailable))
    assert load_pool_config(place.settings, WORKER_KEY.wallet) == POOL


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("ended", [False, True])
def test_a_start_without_votes_is_refused_at_once(place: Place, refusal: str, ended: bool) -> None:
    change, changed, words = REFUSALS[refusal]
    change(place)
    if ended:
        place.vote(ended=True)
    with pytest.raises((BadSetting, WrongChain, RpcUnavailable), match=words):
        place.start(**changed)
    assert place.revealed == []


@pytest.mark.parametrize("state", [IntentState.QUEUED, IntentState.SENT, IntentState.FINAL])
def test_a_vote_that_the_lane_has_and_the_journal_was_not_told_of_is_revealed_before_a_refusal(
    place: Place, state: IntentState
) -> None:
    another_owner(place)
    task = place.stop_while_voting(state)
    with pytest.raises(Revealed):
        place.start()
    assert len(place.revealed) == 1
    with closing(Journal(place.layout.journal)) as journal:
        told = journal.find(task)
    # As of the vote: consensus may have come right after it.
    assert told is not None and (told.stage, told.updated_at) == (ReplicateStage.COMMITTED, 7.0)


@pytest.mark.parametrize("state", [None, IntentState.FAILED])
def test_a_result_whose_vote_the_lane_has_not_or_gave_up_is_no_vote(place: Place, state: IntentState | None) -> None:
    another_owner(place)
    place.stop_while_voting(state)
    with pytest.raises(WrongChain, match="belongs to"):
        place.start()
    assert place.revealed == []


def test_a_task_that_was_aborted_before_it_had_a_result_hinders_nothing(place: Place) -> None:
    another_owner(place)
    place.stop_while_voting(IntentState.SENT)
    with closing(Journal(place.layout.journal)) as journal:
        journal.add(assignment(2), 1.0)
        journal.mark_aborted(task_id(2), 2.0)
    with pytest.raises(Revealed):
        place.start()


@pytest.mark.parametrize(
    ("changed", "answer", "words"),
    [
        ({}, WRONG, "chain 2"),
        ({"rpc_url": NODE}, WRONG, "chain 2"),
        ({"rpc_url": "http://node.example"}, None, "SLUICE_RPC_URL"),
    ],
    ids=["the node lies", "the operator's own node lies", "the operator's own node is plain"],
)
def test_votes_are_not_revealed_by_a_node_that_is_refused_and_that_is_said(
    place: Place, changed: dict[str, object], answer: SluiceError | None, words: str
) -> None:
    place.vote()
    if answer is not None:
        place.nodes = {url: raising(answer) for url in (POOL.rpc_url, NODE)}
    with capture_logs() as logged, pytest.raises((WrongChain, BadSetting), match=words):
        place.start(**changed)
    assert place.revealed == []
    (said,) = (line["event"] for line in logged if line["action"] == "votes_left")
    assert "cannot be without what is refused" in said


def test_while_votes_wait_a_node_that_is_away_is_asked_until_it_answers(place: Place) -> None:
    place.vote()
    asked: list[int] = []

    def answer() -> None:
        asked.append(1)
        if len(asked) < 6:
            raise AWAY

    place.nodes[POOL.rpc_url] = answer
    place.sign_in = raising(Refused(why="this wallet is banned from the pool"))
    with pytest.raises(Revealed):
        place.start()
    assert len(asked) >= 6


def test_a_pool_that_is_away_is_asked_again_while_votes_are_revealed(place: Place) -> None:
    place.vote()
    place.config = raising(PoolUnavailable(what="pool", why="away"))
    with pytest.raises(Revealed):
        place.start()
    ((own, _),) = place.revealed
    assert type(own.api) is PoolApi


@pytest.mark.parametrize(
    "refusal",
    [
        Refused(why="this wallet is banned from the pool: ask its operator"),
        Refused(why="this machine's Sluice (0.1) is too old for this pool"),
        PoolUnavailable(what="pool", why="away"),
        BadMessage(why="the pool's answer is not a Session"),
        EngineUnavailable(what="Docker", why="away"),
    ],
    ids=["banned", "too old", "away", "garbled", "engine"],
)
def test_votes_are_revealed_before_a_sign_in_that_is_refused_ends_the_machine(
    place: Place, refusal: SluiceError
) -> None:
    place.vote()
    place.sign_in = raising(refusal)
    with pytest.raises(Revealed):
        place.start()
    assert [why for _, why in place.revealed] == [refusal]


def test_a_second_machine_with_the_wallet_reveals_nothing_since_both_would_send(place: Place) -> None:
    place.vote()
    place.sign_in = raising(Refused(why=f"{SECOND_MACHINE} (a) is at work with this wallet"))
    with pytest.raises(Refused, match="is at work"):
        place.start()
    assert place.revealed == []


def test_a_start_that_the_engine_ends_changes_nothing_of_what_the_last_one_checked(place: Place) -> None:
    place.vote()
    place.config = lambda: POOL.model_copy(update={"rpc_url": NODE, "ws_url": None})
    place.engine = raising(EngineUnavailable(what="Docker", why="away"))
    with pytest.raises(Revealed):
        place.start()
    assert load_pool_config(place.settings, WORKER_KEY.wallet) == POOL


def test_a_pool_that_is_refused_gets_no_request(tmp_path: Path) -> None:
    # Unit tests cannot open sockets.
    api = UnaskedApi("http://pool.example")
    archive = tmp_path / "result.zip"
    archive.write_bytes(b"x")
    asked: list[Callable[[], object]] = [
        api.config,
        api.time,
        lambda: api.sign_in(WORKER_KEY, POOL, None),  # type: ignore[arg-type]
        lambda: api.ping("t", []),
        lambda: api.leave("t"),
        lambda: api.worker(WORKER_KEY.wallet),
        lambda: api.put_result("t", task_id(1), archive),
    ]
    for ask in asked:
        with pytest.raises(PoolUnavailable, match=r"pool\.example"):
            ask()
    api.close()
