"""Turning orders into deals: any number of matchOrders at once, and what the hub made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chain.contracts import calls
from chain.contracts.contract import Abi, contract
from chain.contracts.hub import Deal, Hub
from chain.rpc.answers import Answer, Broken, Known
from ops.market.orders import Market, Offer
from ops.poco.receipts import Receipt
from ops.poco.sender import WAIT_SECONDS, DirectSender, TxRequest
from protocol.errors import NotFound
from protocol.ethereum.hexbytes import to_hex
from protocol.poco.ids import task_id
from protocol.poco.orders import RequestOrder
from protocol.types import BlockNumber, DealId, TaskId

if TYPE_CHECKING:
    from web3.contract import Contract as Web3Contract


@dataclass(frozen=True, slots=True)
class Matched:
    """A deal as the requester knows it."""

    deal_id: DealId
    #: In the order of their indexes.
    tasks: tuple[TaskId, ...]
    trust: int
    block_number: BlockNumber


def match(
    sender: DirectSender,
    market: Market,
    purchases: Sequence[tuple[Offer, RequestOrder]],
    *,
    seconds: float = WAIT_SECONDS,
) -> list[Matched]:
    """Match each request with its offer, all sent at once; deals in their order.

    `sender` pays the gas, the requester the price. Raises TransactionReverted with the hub's code (`matchOrders-0x..`).
    """
    receipts = sender.run([match_call(market, offer, request) for offer, request in purchases], seconds=seconds)
    notices = contract(sender.rpc, Abi.HUB, market.hub, "SchedulerNotice")
    ids = [_deal_id_of(notices, receipt) for receipt in receipts]
    deals = Hub(sender.rpc, market.hub).deals(ids)
    return [_read_matched(deal_id, deal, receipt) for deal_id, deal, receipt in zip(ids, deals, receipts, strict=True)]


def match_call(market: Market, offer: Offer, request: RequestOrder) -> TxRequest:
    """The transaction that makes a deal of these four orders."""
    orders = (offer.app, offer.dataset, offer.workerpool, request)
    data = calls.match_orders(*(order.abi_tuple() for order in orders))
    return TxRequest(market.hub, data, calls.gas_limit("matchOrders", data))


def _deal_id_of(hub: Web3Contract, receipt: Receipt) -> DealId:
    """Id of the deal that a matchOrders transaction made, from its SchedulerNotice. Raises NotFound."""
    from web3.logs import DISCARD  # noqa: PLC0415 # loaded by `contract`

    for notice in hub.events.SchedulerNotice().process_receipt({"logs": receipt.logs}, errors=DISCARD):
        return DealId(to_hex(notice["args"]["dealid"]))
    raise NotFound(what="deal in transaction", id=receipt.tx_hash)


def _read_matched(deal_id: DealId, answer: Answer[Deal] | Broken, receipt: Receipt) -> Matched:
    """The deal as `Matched`, from viewDeal's answer. Raises NotFound."""
    if not isinstance(answer, Known):
        raise NotFound(what=f"deal {deal_id}: {answer.why}")
    deal = answer.value
    indexes = range(deal.bot_first, deal.bot_first + deal.bot_size)
    return Matched(
        deal_id=deal_id,
        tasks=tuple(task_id(deal_id, index) for index in indexes),
        trust=deal.trust,
        block_number=receipt.block_number,
    )
