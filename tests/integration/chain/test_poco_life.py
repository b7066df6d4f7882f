"""Whole lives of tasks by raw calls: `chain.contracts` and `protocol` against the real contracts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from chain.contracts import calls, decode
from chain.contracts.decode import TOPICS
from chain.testing import known
from ops.market import contracts, orders
from ops.market.match import Matched, match
from ops.market.orders import Offer
from ops.market.rewards import rewards, total
from ops.poco.deploy import TEST_10_CATEGORY
from ops.poco.receipts import Receipt
from ops.poco.sender import DirectSender, TxRequest
from protocol.errors import TransactionReverted
from protocol.ethereum.hexbytes import to_hex
from protocol.poco.authorization import sign_authorization
from protocol.poco.enclave import sign_result
from protocol.poco.ids import deal_id, task_id
from protocol.poco.orders import AppOrder, DatasetOrder, RequestOrder, WorkerpoolOrder
from protocol.poco.seal import result_hash, result_seal
from protocol.poco.view import ChainView, ContributionStatus, TaskStatus, fold
from protocol.poco.weights import consensus_reached, group_weight
from protocol.types import BlockNumber, Contract, Hash32, NRlc, TaskId, Timestamp, Wallet
from tests.integration.conftest import Chain

OWNER, REQUESTER, WORKERS = 1, 2, (3, 4, 5, 6, 7, 8, 9)
DEPOSIT = NRlc(10**9)
#: Per task: workers stake 30, the pool stakes 30, and 99 of it are the workers' if all goes well.
PRICE = NRlc(100)
DIGEST = Hash32("0x" + "ab" * 32)
WRONG_DIGEST = Hash32("0x" + "cd" * 32)
CHECKSUM = Hash32("0x" + "11" * 32)
RESULTS = to_hex(b'{"storage":"ipfs","location":"/ipfs/QmResult"}')
TEE_TAG = Hash32("0x" + "0" * 63 + "3")


@pytest.fixture
def chain(still_chain: Chain) -> Chain:
    return still_chain


@dataclass(frozen=True, slots=True)
class Shop:
    """An opened market: one app, one dataset, one pool, everybody with stake."""

    chain: Chain
    app: Contract
    dataset: Contract
    pool: Contract

    @property
    def owner(self) -> DirectSender:
        return self.chain.sender(OWNER)

    @property
    def requester(self) -> DirectSender:
        return self.chain.sender(REQUESTER)

    def worker(self, number: int) -> DirectSender:
        return self.chain.sender(WORKERS[number])

    def offer(self, *, category: int = TEST_10_CATEGORY) -> Offer:
        market, key = self.chain.market, self.owner.key
        return Offer(
            orders.offer_app(market, key, self.app),
            orders.offer_work(market, key, self.pool, category=category, price=PRICE),
            orders.offer_dataset(market, key, self.dataset),
        )

    def buy(self, *, trust: int, volume: int = 1, category: int = TEST_10_CATEGORY) -> Matched:
        offer = self.offer(category=category)
        request = orders.request(self.chain.market, self.requester.key, offer, trust=trust, volume=volume)
        return match(self.requester, self.chain.market, [(offer, request)])[0]

    def send(self, sender: DirectSender, method: str, data: str) -> Receipt:
        return sender.run([TxRequest(self.chain.at.hub, data, calls.gas_limit(method, data))])[0]

    def initialize(self, deal: Matched) -> None:
        data = calls.initialize_array([(deal.deal_id, index) for index in range(len(deal.tasks))])
        self.send(self.owner, "initializeArray", data)

    def contribute(self, number: int, task: TaskId, digest: Hash32 = DIGEST) -> None:
        worker = self.worker(number)
        data = calls.contribute(
            task,
            result_hash(task, digest),
            result_seal(worker.wallet, task, digest),
            sign_authorization(self.owner.key, worker.wallet, task),
        )
        self.send(worker, "contribute", data)

    def reveal(self, number: int, task: TaskId) -> None:
        self.send(self.worker(number), "reveal", calls.reveal(task, DIGEST))

    def view(self, task: TaskId) -> ChainView:
        return self.chain.hub.tasks([task])[0]

    def folded(self, task: TaskId) -> ChainView:
        """The same, from logs alone."""
        logs = self.chain.rpc.call(
            "eth_getLogs",
            {"address": self.chain.at.hub, "fromBlock": "0x0", "toBlock": "latest", "topics": [list(TOPICS.values())]},
        )
        seen = [item for item in (decode.seen(raw, Timestamp(0)) for raw in logs) if item is not None]
        return fold(task, [item for item in seen if getattr(item.event, "task_id", None) == task], category_seconds=10)


def open_shop(chain: Chain) -> Shop:
    """A market on this chain."""
    accounts = (OWNER, REQUESTER, *WORKERS)
    app, dataset, pool = contracts.open_market(
        chain.sender(OWNER),
        chain.sender(0),
        chain.at,
        [
            contracts.NewApp("hello", "docker.io/library/hello:1", CHECKSUM),
            contracts.NewDataset("numbers", "http://127.0.0.1/numbers.txt", CHECKSUM),
            contracts.NewWorkerpool("test pool"),
        ],
        {chain.sender(index).wallet: DEPOSIT for index in accounts},
    )
    return Shop(chain, app, dataset, pool)


@pytest.fixture
def shop(chain: Chain) -> Shop:
    return open_shop(chain)


def test_opening_a_market_takes_two_blocks_and_registers_everything(chain: Chain) -> None:
    before = chain.hub.head()
    owner, payer = chain.sender(OWNER), chain.sender(0)
    wallets = [chain.sender(index).wallet for index in range(1, 7)]
    wanted: list[contracts.NewApp | contracts.NewDataset | contracts.NewWorkerpool] = [
        contracts.NewApp("hello", "sluice/hello:1", CHECKSUM),
        contracts.NewDataset("numbers", "http://127.0.0.1/numbers.txt", CHECKSUM),
        contracts.NewWorkerpool("test pool", worker_stake_ratio=50, scheduler_reward_ratio=10),
    ]

    app, dataset, pool = contracts.open_market(owner, payer, chain.at, wanted, dict.fromkeys(wallets, DEPOSIT))

    hub = chain.hub
    assert hub.head() - before <= 3
    shown, file = known(hub.app(app)), known(hub.dataset(dataset))
    assert (shown.image, shown.kind, shown.owner) == ("sluice/hello:1", "DOCKER", owner.wallet)
    assert (file.location, file.checksum) == ("http://127.0.0.1/numbers.txt", CHECKSUM)
    assert (hub.workerpool(pool).worker_stake_ratio, hub.workerpool(pool).scheduler_reward_ratio) == (50, 10)
    assert [account.stake for account in hub.accounts(wallets)] == [DEPOSIT] * 6


def test_an_entry_that_exists_is_used_again(shop: Shop) -> None:
    wanted = [contracts.NewApp("hello", "docker.io/library/hello:1", CHECKSUM)]

    assert contracts.create(shop.owner, shop.chain.at, wanted) == [shop.app]


def test_deal_and_task_ids_are_known_before_the_deal_is_matched(shop: Shop) -> None:
    offer = shop.offer()
    request = orders.request(shop.chain.market, shop.requester.key, offer, volume=3)
    predicted = deal_id(request.order_hash(shop.chain.market.chain_id, shop.chain.at.hub), 0)

    (deal,) = match(shop.requester, shop.chain.market, [(offer, request)])

    assert deal.deal_id == predicted
    assert deal.tasks == tuple(task_id(predicted, index) for index in range(3))
    found = known(shop.chain.hub.deals([deal.deal_id])[0])
    assert found is not None
    assert (found.workerpool, found.app, found.dataset) == (shop.pool, shop.app, shop.dataset)
    assert (found.trust, found.bot_size, found.worker_stake) == (1, 3, NRlc(30))


def test_several_deals_are_matched_in_one_block(shop: Shop) -> None:
    offer, market = shop.offer(), shop.chain.market
    requests = [orders.request(market, shop.requester.key, offer, trust=trust) for trust in (1, 3, 5, 10)]

    deals = match(shop.requester, market, [(offer, request) for request in requests])

    assert [deal.trust for deal in deals] == [1, 3, 5, 10]
    assert len({deal.block_number for deal in deals}) == 1


def test_orders_survive_the_way_through_the_sdks_json_and_still_match(shop: Shop) -> None:
    offer, market = shop.offer(), shop.chain.market
    request = orders.request(market, shop.requester.key, offer)
    read = Offer(
        AppOrder.from_json(offer.app.to_json()),
        WorkerpoolOrder.from_json(offer.workerpool.to_json()),
        DatasetOrder.from_json(offer.dataset.to_json()),
    )

    (deal,) = match(shop.requester, market, [(read, RequestOrder.from_json(request.to_json()))])

    assert len(deal.tasks) == 1


def test_a_match_that_the_hub_refuses_says_the_hubs_code(shop: Shop) -> None:
    offer = shop.offer(category=0)
    request = orders.request(shop.chain.market, shop.requester.key, shop.offer())

    with pytest.raises(TransactionReverted, match="iExecV5-matchOrders-0x00"):
        match(shop.requester, shop.chain.market, [(offer, request)])


def test_a_trust_1_task_is_contributed_and_finalized_in_one_transaction(shop: Shop) -> None:
    deal = shop.buy(trust=1)
    (task,) = deal.tasks
    shop.initialize(deal)
    worker = shop.worker(0)
    authorization = sign_authorization(shop.owner.key, worker.wallet, task)

    data = calls.contribute_and_finalize(task, DIGEST, RESULTS, authorization)
    receipt = shop.send(worker, "contributeAndFinalize", data)

    view = shop.view(task)
    assert (view.status, view.results) == (TaskStatus.COMPLETED, RESULTS)
    assert view.contributions[0].worker == worker.wallet
    assert receipt.gas_used < calls.gas_limit("contributeAndFinalize", data)
    gains = rewards(shop.chain.rpc, shop.chain.at.hub, deal.tasks, deal.block_number)[task]
    assert gains == {shop.requester.wallet: -100, worker.wallet: 99, shop.owner.wallet: 1}
    assert all_unlocked(shop)


def test_a_trust_5_task_takes_three_votes_three_reveals_and_a_finalize(shop: Shop) -> None:
    deal = shop.buy(trust=5)
    (task,) = deal.tasks
    shop.initialize(deal)

    for number in range(3):
        assert shop.view(task).status is TaskStatus.ACTIVE
        shop.contribute(number, task)
    assert shop.view(task).status is TaskStatus.REVEALING
    for number in range(3):
        shop.reveal(number, task)
    shop.send(shop.owner, "finalize", calls.finalize(task, RESULTS))

    view = shop.view(task)
    assert (view.status, view.results) == (TaskStatus.COMPLETED, RESULTS)
    assert [vote.status for vote in view.contributions] == [ContributionStatus.REVEALED] * 3
    assert_same(shop.folded(task), view)
    assert all_unlocked(shop)


def test_a_liar_pays_the_honest(shop: Shop) -> None:
    """At trust 5 one lie costs two more votes: 8 · 5 is not above (1 + 8 + 2) · 4, but 16 · 5 is above 19 · 4."""
    deal = shop.buy(trust=5)
    (task,) = deal.tasks
    shop.initialize(deal)
    honest, liar = range(4), 4

    shop.contribute(liar, task, WRONG_DIGEST)
    for number in honest:
        assert shop.view(task).status is TaskStatus.ACTIVE
        shop.contribute(number, task)
    for number in honest:
        shop.reveal(number, task)
    shop.send(shop.owner, "finalize", calls.finalize(task, RESULTS))

    gains = total(rewards(shop.chain.rpc, shop.chain.at.hub, deal.tasks, deal.block_number))
    assert gains[shop.worker(liar).wallet] == -30
    assert all(gains[shop.worker(number).wallet] > 24 for number in honest)
    assert sum(gains.values()) == 0
    assert all_unlocked(shop)


def test_votes_that_suffice_once_others_are_rejected_bring_no_consensus_until_one_more_comes(shop: Shop) -> None:
    """Four lies outweigh two votes at trust 3, and none of the liars reveals. Then 4 · 3 is above (1 + 4) · 2, and the
    contract does not look: the scheduler has to ask one more machine (`pipeline.domain.replicas`).
    """
    deal = shop.buy(trust=3)
    (task,) = deal.tasks
    shop.initialize(deal)
    lies = (0, 2, 4, 5)
    for number in range(6):
        assert shop.view(task).status is TaskStatus.ACTIVE
        shop.contribute(number, task, WRONG_DIGEST if number in lies else DIGEST)
    assert shop.view(task).consensus == result_hash(task, WRONG_DIGEST)
    shop.chain.rpc.call("evm_increaseTime", 21)
    shop.send(shop.owner, "reopen", calls.reopen(task))

    view = shop.view(task)
    left = [vote.result_hash for vote in view.contributions if vote.status is ContributionStatus.CONTRIBUTED]
    assert (view.status, left) == (TaskStatus.ACTIVE, [result_hash(task, DIGEST)] * 2)
    assert consensus_reached(3, group_weight([2] * len(left)), 0)
    shop.contribute(6, task)
    assert shop.view(task).consensus == result_hash(task, DIGEST)


def test_an_enclaves_vote_is_checked_and_accepted(shop: Shop) -> None:
    market, key = shop.chain.market, shop.owner.key
    plain = shop.offer()
    app = AppOrder(app=shop.app, volume=1, tag=TEE_TAG, salt=orders.salt()).signed(key, market.chain_id, market.hub)
    pool = WorkerpoolOrder(
        workerpool=shop.pool, volume=1, tag=TEE_TAG, category=TEST_10_CATEGORY, salt=orders.salt()
    ).signed(key, market.chain_id, market.hub)
    offer = Offer(app, pool, plain.dataset)
    request = RequestOrder(
        app=shop.app,
        dataset=shop.dataset,
        requester=shop.requester.wallet,
        volume=1,
        tag=TEE_TAG,
        category=TEST_10_CATEGORY,
        salt=orders.salt(),
    ).signed(shop.requester.key, market.chain_id, market.hub)
    (deal,) = match(shop.requester, market, [(offer, request)])
    (task,) = deal.tasks
    shop.initialize(deal)
    worker, enclave = shop.worker(0), shop.chain.sender(9).key

    data = calls.contribute(
        task,
        result_hash(task, DIGEST),
        result_seal(worker.wallet, task, DIGEST),
        sign_authorization(key, worker.wallet, task, enclave.wallet),
        Contract(enclave.wallet),
        sign_result(enclave, worker.wallet, task, DIGEST),
    )
    shop.send(worker, "contribute", data)

    assert shop.view(task).status is TaskStatus.REVEALING


def test_an_authorization_for_another_wallet_is_refused(shop: Shop) -> None:
    deal = shop.buy(trust=1)
    (task,) = deal.tasks
    shop.initialize(deal)
    authorization = sign_authorization(shop.owner.key, shop.worker(1).wallet, task)

    with pytest.raises(TransactionReverted):
        shop.send(
            shop.worker(0), "contributeAndFinalize", calls.contribute_and_finalize(task, DIGEST, RESULTS, authorization)
        )


def all_unlocked(shop: Shop) -> bool:
    """Whether no wallet has stake that is still locked."""
    wallets: list[Wallet] = [shop.chain.sender(index).wallet for index in (OWNER, REQUESTER, *WORKERS)]
    return all(account.locked == 0 for account in shop.chain.hub.accounts(wallets))


def assert_same(folded: ChainView, read: ChainView) -> None:
    """Logs and contract must tell the same story; only logs know blocks."""
    assert (folded.status, folded.results, folded.consensus) == (read.status, read.results, read.consensus)
    assert {(vote.worker, vote.result_hash, vote.status) for vote in folded.contributions} == {
        (vote.worker, vote.result_hash, vote.status) for vote in read.contributions
    }
    blocks = (folded.initialized_block, folded.consensus_block, folded.finalized_block)
    assert all(block is not None for block in blocks)
    assert sorted(blocks, key=lambda block: block or BlockNumber(0)) == list(blocks)
