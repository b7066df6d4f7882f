"""The deals of the demo: what is bought, and what each is meant to show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ops.demo.confidential import SECRET_NAME, Confidential
from ops.market import orders
from ops.market.match import Matched, match
from ops.poco.sender import DirectSender
from ops.pool.on_chain import PRICE, PoolOnChain
from protocol.types import Contract


@dataclass(frozen=True, slots=True)
class Purchase:
    """One deal to be bought."""

    name: str
    about: str
    trust: int
    volume: int = 1
    args: str = "noop"
    dataset: Contract | None = None
    inputs: tuple[str, ...] = ()
    confidential: Confidential | None = None

    @property
    def params(self) -> str:
        """`deal.params` as the iExec SDK writes them."""
        words: dict[str, object] = {"iexec_args": self.args, "iexec_result_storage_provider": "ipfs"}
        if self.inputs:
            words["iexec_input_files"] = list(self.inputs)
        if self.confidential:
            words |= {"iexec_secrets": {"1": SECRET_NAME}, "iexec_result_encryption": True}
        return json.dumps(words, separators=(",", ":"))


def sealed_purchase(dataset: Contract, confidential: Confidential) -> Purchase:
    """The confidential deal of a demo with enclaves. `dataset`: the encrypted one."""
    return Purchase(
        "confidential",
        "dataset, secrets and result encrypted (simulated)",
        trust=1,
        args="hello from an enclave",
        dataset=dataset,
        confidential=confidential,
    )


def purchases(input_url: str, dataset: Contract) -> tuple[list[Purchase], Purchase]:
    """The demo's deals: those matched at once, and the one that a lying worker joins.

    `input_url`, `dataset`: a file and a dataset for the bag's tasks.
    """
    return [
        Purchase("trust-1", "one worker, no vote, no stake", trust=1, args="hello from a trust-1 deal"),
        Purchase("trust-5", "three workers must agree", trust=5, args="hello from a trust-5 deal"),
        Purchase(
            "bag-of-10",
            "ten tasks with a dataset, an input file and arguments",
            trust=1,
            volume=10,
            args='--name "bag of tasks"',
            dataset=dataset,
            inputs=(input_url,),
        ),
    ], Purchase(
        # Two tasks at once keep the machines that have votes to their name too busy to do without the newcomer.
        "one-liar",
        "two tasks of trust 5, and one of the machines lies",
        trust=5,
        volume=2,
        args="the truth",
    )


def buy(requester: DirectSender, on_chain: PoolOnChain, wanted: Sequence[Purchase]) -> list[Matched]:
    """Match all of `wanted` in one block."""
    deals = []
    for item in wanted:
        sold = on_chain.enclave_offer if item.confidential else on_chain.offer
        offer = sold(price=PRICE, dataset=item.dataset)
        request = orders.request(
            on_chain.market,
            on_chain.requester,
            offer,
            volume=item.volume,
            trust=item.trust,
            params=item.params,
            tag=offer.app.tag,
        )
        deals.append((offer, request))
    return match(requester, on_chain.market, deals)
