"""The gas market as this machine read it last, in a file that its processes and commands share.

It is noted by what asks the node anyway, at every check of the machine (`workers.fitness.checkup`), so that taking a
task asks nothing more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from chain.lane.rules.fees import FeeMarket
from chain.lane.rules.gas import allowance, surcharges
from chain.rpc.answers import Known
from chain.rpc.client import JsonRpc
from config.whole_files import write_whole
from protocol.types import Wallet, Wei
from workers.data.layout import Layout
from workers.task.votes import CONTRIBUTE, REVEAL, SOLO

#: Bytes of calldata of what a task sends; of SOLO with a result link and some callback data.
_BYTES = {CONTRIBUTE: 420, REVEAL: 68, SOLO: 900}


def surcharge(rpc: JsonRpc, wallet: Wallet) -> Mapping[str, int] | None:
    """Gas that this chain takes on top of a call's own, by lane method; None if the node does not tell.

    On Arbitrum, that is the posting of the transaction's bytes to Ethereum. Raises RpcUnavailable.
    """
    plain, *loaded = surcharges(rpc, wallet, ["0x", *(_bytes(number) for number in _BYTES.values())])
    if not isinstance(plain, Known):
        return None
    if not plain.value:
        return {}
    found = {name: answer for name, answer in zip(_BYTES, loaded, strict=True) if isinstance(answer, Known)}
    return {name: allowance(answer.value) for name, answer in found.items()} if len(found) == len(_BYTES) else None


def _bytes(number: int) -> str:
    """So many bytes, the same at each call, that no rollup can compress."""
    return "0x" + hashlib.shake_256(b"calldata").hexdigest(number)


def note(layout: Layout, market: FeeMarket, surcharge: Mapping[str, int] | None = None) -> None:
    """Write to disk what gas costs now, for the machine's other processes. `surcharge`: None keeps the last one."""
    kept = noted_surcharge(layout) if surcharge is None else surcharge
    known = {"base_fee": market.base_fee, "tip": market.tip, "surcharge": dict(kept)}
    write_whole(layout.market, json.dumps(known))


def noted_surcharge(layout: Layout) -> Mapping[str, int]:
    """The surcharge that `note` wrote last; empty if it wrote none."""
    try:
        return {str(name): int(gas) for name, gas in json.loads(layout.market.read_text())["surcharge"].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def noted(layout: Layout) -> FeeMarket | None:
    """The fee market that `note` wrote last; None if it wrote none."""
    try:
        known = json.loads(layout.market.read_text())
        base_fee = known["base_fee"]
        return FeeMarket(None if base_fee is None else Wei(int(base_fee)), Wei(int(known["tip"])))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
