"""Whether a call would succeed behind the transactions that are pending at the node (SLUICE_STATE=pending).

    eth_call … "pending"                      of a node that builds a pending block: anvil, geth, Besu
    txpool_contentFrom, then eth_simulateV1   of a node whose "pending" is its newest block: Nethermind, Erigon. What is
                                              pooled of the wallets that the call relies on is run, and then the views.
                                              Also of geth, for what its pending block does not show: it keeps the first
                                              that anybody asks for after a new head for 2 s (1.17: miner/pending.go)
    neither                                   of many a hosted node: nothing goes out early

No transaction is waited for here: the lane asks when something else wakes it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import structlog

from chain.lane.model.intent import BEHIND, Intent
from chain.lane.rules.readiness import Judgement, Moment, Readiness, ReadinessVerdict
from chain.rpc.answers import Known, Reply, decode_reply
from chain.rpc.client import JsonRpc, Request
from protocol.errors import RpcError
from protocol.types import Contract

log = structlog.get_logger(__name__)

#: Seconds for which it is remembered whether the node builds a pending block, and between two warnings.
_GOOD_FOR = 300.0
#: How the version of a node begins that keeps its pending block, so that it lacks what came since.
_KEEPS_PENDING = "Geth/"


class Views(Readiness, Protocol):
    """`Readiness` by view functions of the hub.

    `check` calls them in the pending state; `views` and `judge_all` are for a caller that simulates them.
    """

    def views(self, intents: Sequence[Intent]) -> list[str]:
        """Calldata of the view calls whose answers `judge_all` needs for these intents."""

    def judge_all(self, intents: Sequence[Intent], answers: Sequence[Reply], at: Moment) -> list[ReadinessVerdict]:
        """A verdict for each intent, from the node's answers to the calls of `views`."""


class BehindPending:
    """`Readiness` in the state behind the node's pending transactions; WAIT where the node cannot tell that state."""

    def __init__(self, rpc: JsonRpc, hub: Contract, views: Views) -> None:
        self._rpc = rpc
        self._hub = hub
        self._views = views
        #: Whether the node builds its pending block anew for each question, and `time.monotonic` when that was asked.
        self._builds, self._asked = False, -math.inf
        self._warned = -math.inf

    def check(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        """A verdict for each intent, in order. Raises RpcUnavailable."""
        verdicts = self._views.check(intents, at)
        waiting = [
            intent
            for intent, verdict in zip(intents, verdicts, strict=True)
            if verdict.judgement is Judgement.WAIT and intent.args.get(BEHIND)
        ]
        if not waiting or self._builds_pending(at):
            return verdicts
        found = dict(zip((intent.key for intent in waiting), self._simulate(waiting, at), strict=True))
        return [found.get(intent.key, verdict) for intent, verdict in zip(intents, verdicts, strict=True)]

    def _builds_pending(self, at: Moment) -> bool:
        """Whether the node's pending block is above its newest one, and never an old one; asked rarely."""
        if time.monotonic() - self._asked >= _GOOD_FOR:
            block, version = self._rpc.batch([("eth_getBlockByNumber", ("pending", False)), ("web3_clientVersion", ())])
            number, name = decode_reply(block, lambda body: int(body["number"], 16)), decode_reply(version, str)
            kept = isinstance(name, Known) and name.value.startswith(_KEEPS_PENDING)
            self._builds = isinstance(number, Known) and number.value > at.block and not kept
            self._asked = time.monotonic()
        return self._builds

    def _simulate(self, intents: Sequence[Intent], at: Moment) -> list[ReadinessVerdict]:
        """Verdicts of a simulation: pooled transactions first, then the hub's views, in one block by eth_simulateV1.

        The pooled transactions are those of the wallets in the intents' argument BEHIND. All intents get WAIT if none
        is pooled or the node cannot simulate. Raises RpcUnavailable.
        """
        wallets = sorted({wallet for intent in intents for wallet in str(intent.args[BEHIND]).split(",")})
        pooled = self._rpc.batch([("txpool_contentFrom", (wallet,)) for wallet in wallets])
        first = [call for answer in pooled for call in self._calls_in(answer)]
        if not first:
            return self._waiting(intents, pooled)
        views = [{"to": self._hub, "data": data} for data in self._views.views(intents)]
        asked: Request = ("eth_simulateV1", ({"blockStateCalls": [{"calls": [*first, *views]}]}, "latest"))
        (answer,) = self._rpc.batch([asked])
        results = decode_reply(answer, lambda blocks: [call["returnData"] for call in blocks[0]["calls"]])
        if isinstance(results, Known) and len(results.value) == len(first) + len(views):
            return self._views.judge_all(intents, results.value[len(first) :], at)
        return self._waiting(intents, [answer])

    def _calls_in(self, answer: Reply) -> list[dict[str, str]]:
        """What a wallet has in the pool for the hub, by nonce, as calls to simulate; none if the node does not tell."""
        calls = decode_reply(answer, _read_calls)
        return [call for call in calls.value if call["to"].lower() == self._hub] if isinstance(calls, Known) else []

    def _waiting(self, intents: Sequence[Intent], answers: Sequence[Reply]) -> list[ReadinessVerdict]:
        """WAIT for each intent; an error among the node's `answers` is logged rarely."""
        error = next((answer for answer in answers if isinstance(answer, RpcError)), None)
        if error is not None and time.monotonic() - self._warned >= _GOOD_FOR:
            self._warned = time.monotonic()
            log.warning(
                "The node has no pending state and cannot simulate one: steps wait although SLUICE_STATE is pending.",
                action="lane_no_pending_state",
                why=str(error),
            )
        why = "nothing that it could go behind is at the node" if error is None else str(error)
        return [ReadinessVerdict(Judgement.WAIT, why)] * len(intents)


def _read_calls(content: Mapping[str, Any]) -> list[dict[str, str]]:
    """The calls of txpool_contentFrom that may be in the next block, by nonce. Raises what `decode_reply` catches."""
    transactions = [tx for _, tx in sorted(content["pending"].items(), key=lambda item: int(item[0]))]
    return [{"from": str(tx["from"]), "to": str(tx["to"]), "data": str(tx["input"])} for tx in transactions]
