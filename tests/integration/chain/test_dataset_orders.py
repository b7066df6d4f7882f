"""Whether the contract lets a deal use datasets of a bulk, as `Hub.objections` reads it from the real contract."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chain.contracts.abi import Function
from chain.contracts.hub import Hub
from chain.rpc.answers import Known, Unknown
from ops.market import orders
from ops.market.match import match
from ops.market.orders import Offer
from ops.poco.sender import TxRequest
from protocol.poco.orders import DatasetOrder
from protocol.types import Contract, DealId, Hash32
from tests.integration.chain.test_poco_life import PRICE, TEE_TAG, Shop, open_shop
from tests.integration.conftest import Chain

CLOSE = Function(f"manageDatasetOrder(({DatasetOrder.abi_type()},uint8,bytes))")
NOBODY = Contract("0x" + "99" * 20)


@pytest.fixture
def shop(still_chain: Chain) -> Shop:
    return open_shop(still_chain)


def bought(shop: Shop, *, dataset: bool = False) -> DealId:
    """A deal with or without a dataset."""
    market, key = shop.chain.market, shop.owner.key
    offer = Offer(
        orders.offer_app(market, key, shop.app), orders.offer_work(market, key, shop.pool, category=0, price=PRICE)
    )
    offer = replace(offer, dataset=orders.offer_dataset(market, key, shop.dataset)) if dataset else offer
    return match(shop.requester, market, [(offer, orders.request(market, shop.requester.key, offer))])[0].deal_id


def test_the_contract_allows_a_dataset_by_its_owners_order_and_says_what_is_against_others(shop: Shop) -> None:
    market, owner, hub = shop.chain.market, shop.owner, shop.chain.hub
    deal = bought(shop)
    free = DatasetOrder(dataset=shop.dataset, volume=2**53 - 1, salt=orders.salt())

    def signed(**fields: object) -> DatasetOrder:
        return replace(free, salt=orders.salt(), **fields).signed(owner.key, market.chain_id, market.hub)  # type: ignore[arg-type]

    revoked = signed()
    data = CLOSE.encode((revoked.abi_tuple(), 1, b""))
    owner.run([TxRequest(shop.chain.at.hub, data, 150_000)])
    expected = {
        signed(): None,
        signed(apprestrict=shop.app, workerpoolrestrict=shop.pool, requesterrestrict=shop.requester.wallet): None,
        revoked: "Dataset order is revoked or fully consumed",
        free: "invalid-signature-format",
        free.signed(shop.requester.key, market.chain_id, market.hub): "Invalid dataset order signature",
        replace(signed(), salt=orders.salt()): "Invalid dataset order signature",
        signed(apprestrict=NOBODY): "App restriction not satisfied",
        signed(workerpoolrestrict=NOBODY): "Workerpool restriction not satisfied",
        signed(requesterrestrict=NOBODY): "Requester restriction not satisfied",
        signed(tag=TEE_TAG): "Tag compatibility not satisfied",
    }
    found = hub.objections(deal, [*expected])
    assert found == [Known(words) for words in expected.values()]
    of_one = hub.objections(bought(shop, dataset=True), [signed()])
    assert of_one == [Known("Deal already has a dataset")]


def test_what_the_node_may_not_have_yet_is_neither_allowed_nor_refused(shop: Shop) -> None:
    market = shop.chain.market
    order = DatasetOrder(dataset=shop.dataset, volume=2**53 - 1, salt=orders.salt())
    order = order.signed(shop.owner.key, market.chain_id, market.hub)
    assert isinstance(shop.chain.hub.objections(DealId(Hash32("0x" + "de" * 32)), [order])[0], Unknown)
    nowhere = replace(order, dataset=NOBODY)
    deal = bought(shop)
    assert isinstance(shop.chain.hub.objections(deal, [nowhere])[0], Unknown)
    # An address without a contract answers with nothing, as the contract does if all is well.
    assert isinstance(Hub(shop.chain.rpc, NOBODY).objections(deal, [order])[0], Unknown)
