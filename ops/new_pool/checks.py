"""Reads from the node what a new pool needs: chain and block time, hub, workerpool and owner, gas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chain.contracts.ens_names import with_addresses
from chain.contracts.hub import Hub
from chain.rpc.client import JsonRpc, Rpc
from config.settings import Settings, read_settings
from config.values.endpoints import rpc_urls
from pipeline.domain.condition.health import TASK_GAS
from protocol.errors import BadInput, RpcError, RpcUnavailable
from protocol.types import Contract, Wallet, Wei

#: PoCo hubs by chain id: Bellecour, Arbitrum One and Arbitrum Sepolia (iExec SDK 8, its chain table).
HUBS = {
    134: "0x3eca1B216A7DF1C7689aEb259fFB83ADFB894E7f",
    42161: "0x098bFCb1E50ebcA0BaA92C12eA0c3F045A1aD9f0",
    421614: "0xB2157BF2fAb286b2A4170E3491Ac39770111Da3E",
}
#: Newest blocks over which the time between two is measured; fewer, if the chain stood still among them.
_PACE_BLOCKS = (1000, 100, 10, 1)
#: Seconds between two blocks of a chain that does not stand still: no chain is that slow.
_STANDS_STILL = 60.0
#: Tasks for which a new pool's wallet should have gas.
TASKS_OF_GAS = 20


@dataclass(frozen=True, slots=True)
class ChainFound:
    """A node's chain. `block_time`: seconds between its last blocks."""

    rpc_url: str
    chain_id: int
    head: int
    block_time: float


@dataclass(frozen=True, slots=True)
class PoolFound:
    """A workerpool on chain. `hub`, `address`: without names."""

    hub: Contract
    address: Contract
    owner: Wallet
    description: str


@dataclass(frozen=True, slots=True)
class WalletFound:
    """A wallet's gas, and what TASKS_OF_GAS tasks need at the present price. In wei."""

    balance: Wei
    wanted: Wei


def look_at_chain(rpc_url: str) -> ChainFound:
    """The chain behind the address. Raises BadSetting, RpcUnavailable."""
    with _node(read_settings(rpc_url=rpc_url, ws_url=None)) as rpc:
        chain_id, head = _number(rpc, "eth_chainId"), _number(rpc, "eth_blockNumber")
        now, firsts = _timestamp(rpc, head), [max(0, head - blocks) for blocks in _PACE_BLOCKS]
        paces = [(now - _timestamp(rpc, first)) / max(1, head - first) for first in firsts]
    return ChainFound(rpc_url, chain_id, head, _rounded(next((pace for pace in paces if pace < _STANDS_STILL), 1.0)))


def look_at_pool(chain: ChainFound, hub: str, workerpool: str) -> PoolFound:
    """The workerpool as the hub has it. Raises BadSetting, WrongChain, RpcUnavailable."""
    settings = with_addresses(
        read_settings(rpc_url=chain.rpc_url, ws_url=None, chain_id=chain.chain_id, hub=hub, workerpool=workerpool)
    )
    with _node(settings) as rpc:
        reader = Hub(rpc, Contract(str(settings.hub).lower()))
        reader.check_chain(settings)
        found = reader.workerpool(Contract(str(settings.workerpool).lower()))
    return PoolFound(reader.address, found.address, Wallet(found.owner.lower()), found.description)


def look_at_wallet(chain: ChainFound, hub: Contract, wallet: Wallet) -> WalletFound:
    """The wallet's gas. Raises RpcUnavailable."""
    with _node(read_settings(rpc_url=chain.rpc_url, ws_url=None, chain_id=chain.chain_id)) as rpc:
        reader = Hub(rpc, hub)
        (balance,) = reader.balances([wallet])
        return WalletFound(Wei(balance), Wei(TASKS_OF_GAS * TASK_GAS * reader.gas_price()))


@contextmanager
def _node(settings: Settings) -> Iterator[JsonRpc]:
    """The first node of the settings. Raises BadSetting."""
    with Rpc(rpc_urls(settings)[0], settings.rpc_timeout) as rpc:
        try:
            yield rpc
        except RpcError as error:
            raise RpcUnavailable(what=rpc.name, why=str(error)) from error


def _number(rpc: JsonRpc, method: str) -> int:
    """The whole number that the node answers to a method. Raises BadInput, RpcUnavailable."""
    answer = rpc.call(method)
    try:
        return int(str(answer), 16)
    except ValueError as error:
        raise BadInput(what=f"{rpc.name} is no Ethereum node: it answered {json.dumps(answer)[:60]}.") from error


def _timestamp(rpc: JsonRpc, number: int) -> int:
    """A block's time, Unix seconds. Raises RpcUnavailable."""
    block = rpc.call("eth_getBlockByNumber", hex(number), False)
    if not isinstance(block, dict):
        raise RpcUnavailable(what=rpc.name, why=f"it does not show block {number}")
    return int(block["timestamp"], 16)


def _rounded(seconds: float) -> float:
    """Seconds between blocks, rounded; never 0, as on a development chain that mines on demand."""
    return max(0.1, round(seconds, 1 if seconds >= 1 else 2))
