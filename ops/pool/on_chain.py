"""What a pool needs on a development chain before its first process starts: wallets, contracts, stakes, offers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from chain.rpc.client import Rpc
from ops.market import contracts, orders
from ops.market.contracts import NewApp, NewDataset, NewWorkerpool
from ops.market.orders import Market, Offer
from ops.poco.accounts import ETHER, dev_key, give_ether
from ops.poco.deploy import PocoAddresses
from ops.poco.receipts import await_mined
from ops.poco.sender import WAIT_SECONDS, DirectSender, TxRequest
from protocol.errors import RpcError
from protocol.ethereum.signing import Key
from protocol.poco.orders import FREE, NO_DATASET, AppOrder, DatasetOrder
from protocol.poco.tags import TDX_BITS, make_tag
from protocol.types import ZERO_HASH, Contract, Hash32, NRlc, Wallet, Wei

#: Accounts of the development key phrase: the requester, and the owner of app and dataset, who pays the stakes.
REQUESTER, PROVIDER = 1, 2
#: The one that pays gas money where a node sets no balances: it has deployed the contracts, and has nothing else to do.
PAYER = 0
#: Gas of a payment.
_PAYMENT_GAS = 21_000
#: JSON-RPC's code for a method that the node does not have.
_METHOD_NOT_FOUND = -32601
#: nRLC on each account in the hub: stakes and prices of thousands of tasks.
DEPOSIT = NRlc(1_000_000_000)
#: Wei for gas per wallet.
GAS_MONEY = Wei(100 * ETHER)
#: Price of a task in nRLC in the paid offer: a worker's stake is then 30, the scheduler's too.
PRICE = NRlc(100)
#: Category XS and its seconds.
XS, XS_SECONDS = 0, 300


@dataclass(frozen=True, slots=True)
class NewWallet:
    """A wallet made for this pool, and its private key in hex for the key file of its process."""

    secret: str = field(repr=False, default_factory=lambda: secrets.token_hex(32))

    @property
    def key(self) -> Key:
        """The wallet's private key, to sign with."""
        return Key.from_hex(self.secret)


@dataclass(frozen=True, slots=True)
class PoolOnChain:
    """What a prepared pool has on chain: wallets, contracts and the orders that offer its work."""

    at: PocoAddresses
    market: Market
    scheduler: NewWallet
    workers: tuple[NewWallet, ...]
    requester: Key
    app: Contract
    app_image: str
    datasets: tuple[Contract, ...]
    workerpool: Contract
    app_order: AppOrder

    def offer(
        self,
        *,
        price: NRlc = FREE,
        category: int = XS,
        dataset: Contract | None = None,
        trust: int = orders.TRUST_OFFERED,
    ) -> Offer:
        """The three sell orders for one kind of deal, up to that trust; the workerpool order is new each time."""
        work = orders.offer_work(
            self.market, self.scheduler.key, self.workerpool, category=category, price=price, trust=trust
        )
        return Offer(self.app_order, work, self._offer_dataset(dataset))

    def enclave_offer(self, *, price: NRlc = FREE, dataset: Contract | None = None) -> Offer:
        """The same app's orders for a deal in TDX enclaves, at trust 1; app and workerpool orders are new each time."""
        tag = make_tag(*TDX_BITS)
        app = orders.offer_app(self.market, dev_key(PROVIDER), self.app, tag=tag)
        work = orders.offer_work(
            self.market, self.scheduler.key, self.workerpool, category=XS, price=price, trust=1, tag=tag
        )
        return Offer(app, work, self._offer_dataset(dataset, tag))

    def _offer_dataset(self, dataset: Contract | None, tag: Hash32 = ZERO_HASH) -> DatasetOrder:
        """An order for a dataset by its owner; the empty order for none."""
        return orders.offer_dataset(self.market, dev_key(PROVIDER), dataset, tag=tag) if dataset else NO_DATASET


def prepare(
    rpc: Rpc, at: PocoAddresses, *, chain_id: int, workers: int, image: str, datasets: Sequence[NewDataset] = ()
) -> PoolOnChain:
    """Create what a pool needs on chain: wallets, an app of `image`, the workerpool, and everybody's deposits."""
    scheduler = NewWallet()
    machines = tuple(NewWallet() for _ in range(workers))
    boss = DirectSender(scheduler.key, rpc, chain_id)
    requester, provider = dev_key(REQUESTER), dev_key(PROVIDER)
    members = tuple(wallet.key.wallet for wallet in (scheduler, *machines))
    _give_gas_money(rpc, chain_id, members)
    seller = DirectSender(provider, rpc, chain_id)
    wanted: Sequence[NewApp | NewDataset] = [
        NewApp("sluice-demo", image, orders.salt()),
        *datasets,
    ]
    # The pool belongs to the scheduler's wallet, whose lane must not have started yet.
    (pool,) = contracts.prepare(boss, at, [NewWorkerpool("sluice")])
    pending = boss.send(pool.calls)
    deposits = dict.fromkeys((*members, requester.wallet), DEPOSIT)
    app, *data = contracts.open_market(seller, seller, at, wanted, deposits)
    await_mined(rpc, pending, seconds=WAIT_SECONDS)
    market = Market(chain_id, at.hub)
    return PoolOnChain(
        at=at,
        market=market,
        scheduler=scheduler,
        workers=machines,
        requester=requester,
        app=app,
        app_image=image,
        datasets=tuple(data),
        workerpool=pool.address,
        app_order=orders.offer_app(market, provider, app),
    )


def _give_gas_money(rpc: Rpc, chain_id: int, wallets: Sequence[Wallet]) -> None:
    """Give each wallet GAS_MONEY: anvil writes it at once, any other node has account 0 pay it, which takes a block."""
    try:
        give_ether(rpc, tuple(wallets), GAS_MONEY)
    except RpcError as refused:
        if refused.code != _METHOD_NOT_FOUND:
            raise
        payments = [TxRequest(wallet, "0x", _PAYMENT_GAS, GAS_MONEY) for wallet in wallets]
        DirectSender(dev_key(PAYER), rpc, chain_id).run(payments)
