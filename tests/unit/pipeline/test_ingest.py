"""From a deal to its tasks, and from lane intents to failures."""

from __future__ import annotations

from types import SimpleNamespace

from chain.lane.intent import Intent, IntentState
from pipeline.actions import Action, Method, Submit, Want
from pipeline.ingest import Catalogue, ingest, task_records
from pipeline.records import DealRecord
from pipeline.transactions import failures_of, initializes, without_initialize
from pipeline.wake import chunks
from protocol.errors import BadMessage, RpcError
from protocol.ids import task_id
from protocol.types import ZERO_ADDRESS, BlockNumber, DealId, NRlc, TaskId, Timestamp
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
    assert failures_of(ended) == [(TaskId(TASK), "finalize", 2, "reverted")]
    assert failures_of([intent(IntentState.FAILED)])[0][2] == 0


class Deals:
    """Stands for the collection: which deals were noticed, stored and set aside."""

    def __init__(self, *noticed: DealId) -> None:
        self.noticed = {deal_id: BlockNumber(3) for deal_id in noticed}
        self.stored: list[DealId] = []
        self.aside: list[DealId] = []

    def blocks(self, _: object) -> dict[DealId, BlockNumber]:
        return self.noticed

    def put(self, deals: list[DealRecord]) -> None:
        self.stored += [deal.deal_id for deal in deals]

    def gone(self, deal_ids: list[DealId]) -> list[DealId]:
        return [deal_id for deal_id in deal_ids if deal_id not in self.noticed]

    def ingested(self, _: object) -> None:
        """Nothing to remember."""

    def unreadable(self, deal_id: DealId, _: str) -> None:
        self.aside.append(deal_id)


class Hub:
    """A hub on which one deal's answer is not of its types and another's app cannot be asked for now."""

    def __init__(self, *, broken: DealId, silent: DealId) -> None:
        self.broken, self.silent = broken, silent

    def deals(self, deal_ids: list[DealId]) -> list[None]:
        if self.broken in deal_ids:
            raise BadMessage(why="viewDeal answered what is not its types")
        if self.silent in deal_ids:
            raise RpcError(method="eth_call", code=-32000, message="header not found")
        return [None for _ in deal_ids]


def test_a_deal_that_cannot_be_read_does_not_keep_others_from_being_read() -> None:
    good, broken, silent = (DealId("0x" + digit * 64) for digit in "abc")
    deals = Deals(good, broken, silent)
    store = SimpleNamespace(deals=deals, tasks=SimpleNamespace(add=len))
    hub = Hub(broken=broken, silent=silent)
    catalogue = Catalogue(hub)  # type: ignore[arg-type]  # stands for the real one
    assert ingest(store, catalogue, POOL, [good, broken, silent]) == []  # type: ignore[arg-type]  # idem
    assert deals.aside == [broken], "only what can never be read is set aside"


def test_a_long_list_is_cut_and_nothing_falls_off() -> None:
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]]
    assert list(chunks([], 2)) == []


def test_initialize_is_put_off_and_nothing_else_when_the_lane_has_no_room() -> None:
    actions: list[Action] = [Submit(Method.INITIALIZE, 0, {}), Want(1), Submit(Method.FINALIZE, 0, {})]
    assert initializes(actions)
    assert without_initialize(actions) == actions[1:]
    assert not initializes(without_initialize(actions))
