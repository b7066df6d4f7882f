"""Signed orders as the demo, the benchmarks and the tests put them on the market.

Only defaults and salts are here: what an order is, and how it is hashed and signed, says `protocol.poco.orders`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key
from protocol.poco.orders import FREE, NO_DATASET, AppOrder, DatasetOrder, RequestOrder, WorkerpoolOrder
from protocol.types import ZERO_ADDRESS, ZERO_HASH, Contract, Hash32, NRlc

#: Tasks that one sell order is good for by default: more than any demo or benchmark buys.
PLENTY = 1_000_000
#: The most trust a pool's order grants, so that one order serves requests of every trust up to it.
#: Ten: four workers without any score have to agree (protocol.poco.weights).
TRUST_OFFERED = 10


@dataclass(frozen=True, slots=True)
class Market:
    """One hub on one chain: what every order's signature is bound to."""

    chain_id: int
    hub: Contract


@dataclass(frozen=True, slots=True)
class Offer:
    """The three sell orders that a request is matched with."""

    app: AppOrder
    workerpool: WorkerpoolOrder
    dataset: DatasetOrder = NO_DATASET


def offer_app(
    market: Market,
    owner: Key,
    app: Contract,
    *,
    price: NRlc = FREE,
    volume: int = PLENTY,
    tag: Hash32 = ZERO_HASH,
) -> AppOrder:
    """A sell order for the app without restrictions, at `price` nRLC a task. `tag`: what it needs of a machine; an app
    whose order names no enclave is sold for none.
    """
    order = AppOrder(app=app, appprice=price, volume=volume, tag=tag, salt=salt())
    return order.signed(owner, market.chain_id, market.hub)


def offer_dataset(
    market: Market,
    owner: Key,
    dataset: Contract,
    *,
    price: NRlc = FREE,
    volume: int = PLENTY,
    tag: Hash32 = ZERO_HASH,
) -> DatasetOrder:
    """A sell order for the dataset without restrictions, at `price` nRLC a task. `tag`: an enclave, for one that is
    encrypted.
    """
    order = DatasetOrder(dataset=dataset, datasetprice=price, volume=volume, tag=tag, salt=salt())
    return order.signed(owner, market.chain_id, market.hub)


def offer_work(
    market: Market,
    owner: Key,
    workerpool: Contract,
    *,
    category: int,
    price: NRlc = FREE,
    trust: int = TRUST_OFFERED,
    volume: int = PLENTY,
    tag: Hash32 = ZERO_HASH,
) -> WorkerpoolOrder:
    """A workerpool's sell order: work in that category, up to that trust, at `price` nRLC a task.

    `tag`: what its machines have that a deal may demand (protocol.poco.tags).
    """
    order = WorkerpoolOrder(
        workerpool=workerpool,
        workerpoolprice=price,
        volume=volume,
        tag=tag,
        category=category,
        trust=trust,
        salt=salt(),
    )
    return order.signed(owner, market.chain_id, market.hub)


def request(
    market: Market,
    requester: Key,
    offer: Offer,
    *,
    volume: int = 1,
    trust: int = 1,
    params: str = "",
    callback: Contract = ZERO_ADDRESS,
    tag: Hash32 = ZERO_HASH,
) -> RequestOrder:
    """A request for `volume` tasks at exactly the prices of `offer`, the requester being the beneficiary."""
    order = RequestOrder(
        app=offer.app.app,
        appmaxprice=offer.app.appprice,
        dataset=offer.dataset.dataset,
        datasetmaxprice=offer.dataset.datasetprice,
        workerpool=offer.workerpool.workerpool,
        workerpoolmaxprice=offer.workerpool.workerpoolprice,
        requester=requester.wallet,
        volume=volume,
        tag=tag,
        category=offer.workerpool.category,
        trust=trust,
        beneficiary=requester.wallet,
        callback=callback,
        params=params,
        salt=salt(),
    )
    return order.signed(requester, market.chain_id, market.hub)


def salt() -> Hash32:
    """32 random bytes that make each order unique."""
    return Hash32(to_hex(secrets.token_bytes(32)))
