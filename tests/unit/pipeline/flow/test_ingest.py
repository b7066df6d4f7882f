"""From a deal to its tasks, and from lane intents to failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from bson.errors import InvalidDocument
from pymongo.errors import AutoReconnect

from chain.contracts.hub import App, Category, Deal
from chain.lane.model.intent import Intent, IntentState
from chain.rpc.answers import Absent, Answer, Broken, Known, Unknown
from pipeline.broker.notify import chunks
from pipeline.domain.actions import Action, Method, Submit, Want
from pipeline.domain.records import CLOCKS_APART, DealRecord, TaskRecord
from pipeline.flow.ingest import AT_ONCE, PIECE, Ours, RegistryCache, ingest, task_records
from pipeline.flow.transactions import failures_of, initializes, without_initialize
from pipeline.scheduler import Scheduler
from pipeline.store.deals import Lease
from protocol.poco.events import BlockRef
from protocol.poco.ids import task_id
from protocol.types import ZERO_ADDRESS, BlockHash, BlockNumber, Contract, DealId, NRlc, TaskId, Timestamp
from protocol.wire import Mode
from tests.unit.pipeline.builders import DEAL, NO_TAG, POOL, TASK, wallet


def deal(*, first: int, size: int, trust: int = 1) -> DealRecord:
    return DealRecord(
        deal_id=DEAL,
        app=POOL,
        image="hello:1",
        image_checksum=NO_TAG,
        dataset=None,
        workerpool=POOL,
        requester=wallet(1),
        beneficiary=wallet(1),
        callback=ZERO_ADDRESS,
        params="",
        trust=trust,
        tag=NO_TAG,
        category_seconds=10,
        start_time=Timestamp(1000),
        bot_first=first,
        bot_size=size,
        worker_stake=NRlc(30),
        contribution_deadline=Timestamp(1070),
        final_deadline=Timestamp(1100),
        matched_block=BlockNumber(3),
    )


def test_a_later_part_of_a_bag_has_the_tasks_from_its_first_index_on() -> None:
    tasks = task_records(deal(first=3, size=2))
    assert [(task.index, task.task_id) for task in tasks] == [(3, task_id(DEAL, 3)), (4, task_id(DEAL, 4))]


def test_trust_1_is_done_alone_and_more_by_vote() -> None:
    assert task_records(deal(first=0, size=1))[0].mode is Mode.SOLO
    assert task_records(deal(first=0, size=1, trust=2))[0].mode is Mode.VOTE


def intent(state: IntentState, occasion: int = 0) -> Intent:
    made = Intent.new(1, wallet(1), "finalize", TASK, {}, 0.0, occasion=occasion)
    return Intent(made.key, made.lane, made.method, made.subject, made.args, 0.0, state=state, reason="reverted")


def test_only_failed_intents_are_failures_and_their_key_tells_the_try() -> None:
    ended = [intent(IntentState.FINAL), intent(IntentState.DONE), intent(IntentState.FAILED, 2)]
    assert failures_of(ended, 2000.0) == [(TaskId(TASK), "finalize", 2, "finalize", "reverted")]
    assert failures_of([intent(IntentState.FAILED)], 2000.0)[0].generation == 0


@pytest.mark.parametrize(
    ("method", "args", "name"),
    [
        ("initialize", {"deadline": 1070}, "initialize_too_late"),
        ("initialize", {"deadline": 1071 + CLOCKS_APART}, "initialize"),
        ("initialize", {}, "initialize_to_claim"),
        ("finalize", {"until": 1070}, "finalize_too_late"),
        ("finalize", {}, "finalize"),
        ("claim", {}, "claim"),
    ],
)
def test_a_time_limit_that_is_over_is_no_refusal_of_the_contract(
    method: str, args: dict[str, object], name: str
) -> None:
    made = Intent.new(1, wallet(1), method, TASK, args)
    (failure,) = failures_of([replace(made, state=IntentState.FAILED, reason="deadline passed")], 1070.0)
    assert (failure.method, failure.name) == (method, name)


class Deals:
    """Stands for the collection: which deals were noticed, stored and quarantined."""

    def __init__(self, *noticed: DealId) -> None:
        self.noticed = {deal_id: BlockNumber(3) for deal_id in noticed}
        self.stored: list[DealId] = []
        self.aside: list[DealId] = []
        #: Of the last one that was quarantined.
        self.why = ""
        self.large: list[DealId] = []
        self.postponed: list[DealId] = []

    def match_blocks(self, _: object) -> dict[DealId, BlockNumber]:
        return self.noticed

    def lease_and_store(self, deal: DealRecord, _: float) -> Lease:
        return Lease(deal, 1, 0)

    def store_for_later(self, deal: DealRecord) -> None:
        self.large.append(deal.deal_id)

    def orphaned_among(self, deal_ids: list[DealId]) -> list[DealId]:
        return [deal_id for deal_id in deal_ids if deal_id not in self.noticed]

    def mark_ingested(self, lease: Lease) -> bool:
        self.stored.append(lease.deal.deal_id)
        return True

    def defer(self, deal_id: DealId, _: float) -> None:
        self.postponed.append(deal_id)

    def quarantine(self, deal_id: DealId, why: str) -> None:
        self.aside.append(deal_id)
        self.why = why


class Hub:
    """A hub with given answers; deals without one are matched with an app that cannot be asked for."""

    def __init__(self, told: dict[DealId, Answer[Deal] | Broken], app: Answer[App] | Broken) -> None:
        self.told, self._app = told, app
        self.rpc = SimpleNamespace(name="node")

    def deals(self, deal_ids: list[DealId], at: BlockRef | None) -> list[Answer[Deal] | Broken]:
        assert at == FOLLOWED, "read as of a block that we followed"
        return [self.told[deal_id] for deal_id in deal_ids]

    def app(self, _: Contract, at: BlockRef | None) -> Answer[App] | Broken:
        return self._app

    def category(self, number: int, at: BlockRef | None) -> Answer[Category] | Broken:
        return Known(Category(number, "XS", "", 10))


FOLLOWED = BlockRef(BlockNumber(9), BlockHash("0x" + "9" * 64), BlockHash("0x" + "8" * 64), Timestamp(1_000))
GOOD, BROKEN, SILENT, GONE = (DealId("0x" + digit * 64) for digit in "abcd")
#: The owner of the workerpool when `on_chain` was matched is this scheduler's wallet.
OURS = Ours(POOL, wallet(1))
APP = App(POOL, wallet(1), "hello", "DOCKER", "hello:1", NO_TAG, b"")


def on_chain(deal_id: DealId) -> Deal:
    """A deal of two tasks, of our workerpool."""
    price, nobody = NRlc(0), wallet(1)
    resource = (POOL, nobody, price)
    return Deal(
        deal_id, *resource, None, nobody, price, *resource, 1, 0, NO_TAG, nobody, nobody, None, "", Timestamp(1_000), 0,
        2, price, 0, nobody,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("app", "served", "aside"),
    [
        (Known(APP), [GOOD], [BROKEN]),
        (Unknown("the node answered null"), [], [BROKEN]),
        (Broken("the contract refuses viewApp"), [], [GOOD, BROKEN]),
    ],
)
def test_a_deal_that_cannot_be_read_does_not_keep_others_from_being_read(
    app: Answer[App] | Broken, served: list[DealId], aside: list[DealId]
) -> None:
    deals = Deals(GOOD, BROKEN, SILENT, GONE)
    rows = SimpleNamespace(insert_new=len)
    store = SimpleNamespace(deals=deals, tasks=rows, chain=SimpleNamespace(cursor=lambda: FOLLOWED))
    told = {
        GOOD: Known(on_chain(GOOD)),
        BROKEN: Broken("one of its numbers is 18446744073709551616"),
        SILENT: Unknown("error -32000: header not found"),
        GONE: Absent("the contract has no such deal"),
    }
    registry_cache = RegistryCache(Hub(told, app))  # type: ignore[arg-type]  # stands for the real one
    found, more = ingest(store, registry_cache, OURS, list(told), 0.0)  # type: ignore[arg-type]  # a fake of the store
    assert not more
    assert found == [task_id(deal_id, index) for deal_id in served for index in (0, 1)]
    assert deals.stored == served
    assert deals.aside == aside, "only what can never be read is quarantined"
    assert {SILENT, GONE} <= set(deals.postponed), "they are asked for again a little later, after others"


def ingested(size: int, add: Callable[[list[TaskRecord]], int]) -> tuple[Deals, list[TaskId], bool]:
    """One deal of so many tasks, and one of two, ingested by one message."""
    deals = Deals(GOOD, SILENT)
    store = SimpleNamespace(
        deals=deals, tasks=SimpleNamespace(insert_new=add), chain=SimpleNamespace(cursor=lambda: FOLLOWED)
    )
    told = {GOOD: Known(replace(on_chain(GOOD), bot_size=size)), SILENT: Known(on_chain(SILENT))}
    found = ingest(store, RegistryCache(Hub(told, Known(APP))), OURS, list(told), 0.0)  # type: ignore[arg-type]  # a fake of the store
    return deals, *found


def test_a_deal_of_the_workerpools_next_owner_is_quarantined_with_both_wallets() -> None:
    deals = Deals(GOOD, SILENT)
    store = SimpleNamespace(
        deals=deals, tasks=SimpleNamespace(insert_new=len), chain=SimpleNamespace(cursor=lambda: FOLLOWED)
    )
    told = {GOOD: Known(on_chain(GOOD)), SILENT: Known(replace(on_chain(SILENT), workerpool_owner=wallet(2)))}
    ingest(store, RegistryCache(Hub(told, Known(APP))), OURS, list(told), 0.0)  # type: ignore[arg-type]  # a fake of the store
    assert (deals.stored, deals.aside) == ([GOOD], [SILENT])
    assert all(each in deals.why for each in (wallet(1), wallet(2)))


def test_a_large_deal_is_left_to_bulk_work_and_its_neighbour_is_stored() -> None:
    deals, found, more = ingested(PIECE + 1, len)
    assert (deals.large, deals.stored, more) == ([GOOD], [SILENT], True)
    assert found == [task_id(SILENT, 0), task_id(SILENT, 1)]


def test_only_the_first_tasks_of_a_deal_are_advanced_at_once_and_the_sweep_leaves_the_rest_alone() -> None:
    kept: list[TaskRecord] = []

    def add(tasks: list[TaskRecord]) -> int:
        kept.extend(tasks)
        return len(tasks)

    deals, found, more = ingested(AT_ONCE + 1, add)
    assert more
    assert deals.stored == [GOOD, SILENT]
    assert len([task for task in found if task != task_id(SILENT, 0)]) == AT_ONCE + 1
    assert [task.next_visit for task in kept[AT_ONCE - 1 : AT_ONCE + 1]] == [0.0, kept[AT_ONCE].contribution_deadline]


@pytest.mark.parametrize(
    "error", [OverflowError("8-byte ints"), InvalidDocument("no"), ValueError("what else"), KeyError("x")]
)
def test_a_deal_whose_tasks_cannot_be_stored_is_quarantined_alone(error: Exception) -> None:
    def add(tasks: list[TaskRecord]) -> int:
        if tasks[0].deal_id == GOOD:
            raise error
        return len(tasks)

    deals, found, _ = ingested(2, add)
    assert (deals.aside, deals.stored) == ([GOOD], [SILENT])
    assert found == [task_id(SILENT, 0), task_id(SILENT, 1)]


def test_a_database_that_is_away_sets_nothing_aside() -> None:
    def add(_: list[TaskRecord]) -> int:
        raise AutoReconnect

    with pytest.raises(AutoReconnect):
        ingested(2, add)


def test_a_catalogue_remembers_a_bounded_number_of_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.flow.ingest.MOST_REMEMBERED", 2)
    registry_cache = RegistryCache(Hub({}, Known(APP)))  # type: ignore[arg-type]  # stands for the real one
    for number in range(5):
        registry_cache.app(Contract(wallet(number)), FOLLOWED)
    assert list(registry_cache._apps) == [Contract(wallet(3)), Contract(wallet(4))]


def test_a_long_list_is_cut_and_nothing_falls_off() -> None:
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(chunks([], 2)) == []


def test_initialize_is_put_off_and_nothing_else_when_the_lane_has_no_room() -> None:
    actions: list[Action] = [Submit(Method.INITIALIZE, 0, {}), Want(1), Submit(Method.FINALIZE, 0, {})]
    assert initializes(actions)
    assert without_initialize(actions) == actions[1:]
    assert not initializes(without_initialize(actions))


def test_a_deal_that_a_reorg_has_brought_into_another_block_is_read_again_and_any_other_once() -> None:
    """It may have been matched with other orders: a machine would get its old terms with its new deadlines."""
    stored, asked = deal(first=0, size=3), list[set[DealId]]()

    def load_deals(deal_ids: set[DealId]) -> list[DealRecord]:
        asked.append(set(deal_ids))
        return [stored]

    kept = SimpleNamespace(_deals={}, store=SimpleNamespace(deals=SimpleNamespace(load_deals=load_deals)))
    for _ in range(2):
        assert Scheduler.deals(cast("Scheduler", kept), task_records(stored)) == {DEAL: stored}
    assert asked == [{DEAL}]
    stored = replace(stored, bot_size=2, matched_block=BlockNumber(4))
    for _ in range(2):
        assert Scheduler.deals(cast("Scheduler", kept), task_records(stored)) == {DEAL: stored}
    assert asked == [{DEAL}, {DEAL}]
