"""What a result of each JSON-RPC method that Sluice calls looks like, so that no caller meets anything else. Pure.

A node that is starting, overloaded or broken answers with whatever its balancer or cache made of it. What does not have
the shape of its method is no answer: `chain.rpc.client` turns it into an error of the node, and the question is asked
again elsewhere or later. `null` passes where the method has it for "none"; what that means is for the caller to say
(`chain.rpc.answers`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

#: A number of at most 32 bytes, and bytes.
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_HEX = re.compile(r"0x[0-9a-fA-F]*")
#: Lengths of a hash and an address as `0x` hex.
_HASH, _ADDRESS = 66, 42
#: Bytes of a block's log filter.
_BLOOM = 2 + 2 * 256


def fits(method: str, params: Sequence[object], result: object) -> bool:
    """Whether `result` may be the answer to this call; True for methods that are not known here."""
    check = _CHECKS.get(method)
    if check is None:
        return True
    if result is None:
        return method in _NULLABLE
    if method == "eth_getBlockByNumber" and params and params[0] == "pending":
        # It has no hash yet.
        return isinstance(result, dict)
    return check(result)


def _quantity(value: Any) -> bool:
    return isinstance(value, str) and _QUANTITY.fullmatch(value) is not None


def _data(value: Any) -> bool:
    return isinstance(value, str) and len(value) % 2 == 0 and _HEX.fullmatch(value) is not None


def _hash(value: Any) -> bool:
    return _data(value) and len(value) == _HASH


def _header(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(_quantity(value.get(name)) for name in ("number", "timestamp"))
        and all(_hash(value.get(name)) for name in ("hash", "parentHash"))
        and all(value.get(name) is None or _quantity(value[name]) for name in ("baseFeePerGas",))
        and (not value.get("logsBloom") or _bloom(value["logsBloom"]))
    )


def _bloom(value: Any) -> bool:
    # Chains without logs in it shorten it, down to "0x0".
    return isinstance(value, str) and len(value) <= _BLOOM and _HEX.fullmatch(value) is not None


def _receipt(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("blockNumber") is None:
        # Some nodes show receipts of transactions that are in no block yet.
        return True
    return (
        all(_quantity(value.get(name)) for name in ("blockNumber", "gasUsed", "status"))
        and all(_hash(value.get(name)) for name in ("transactionHash", "blockHash"))
        and (value.get("effectiveGasPrice") is None or _quantity(value["effectiveGasPrice"]))
        and (value.get("logs") is None or _logs(value["logs"]))
    )


def _receipts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(receipt, dict) and _bloom(receipt.get("logsBloom")) and _logs(receipt.get("logs"))
        for receipt in value
    )


def _logs(value: Any) -> bool:
    return isinstance(value, list) and all(map(_log, value))


def _log(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _data(value.get("address"))
        and len(value["address"]) == _ADDRESS
        and isinstance(value.get("topics"), list)
        and all(map(_hash, value["topics"]))
        and _data(value.get("data"))
        and all(_hash(value.get(name)) for name in ("blockHash", "transactionHash"))
        and all(_quantity(value.get(name)) for name in ("blockNumber", "logIndex"))
    )


def _fee_history(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("reward") or [], list)


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        (
            "eth_chainId",
            "eth_blockNumber",
            "eth_gasPrice",
            "eth_maxPriorityFeePerGas",
            "eth_getBalance",
            "eth_getTransactionCount",
            "eth_estimateGas",
        ),
        _quantity,
    ),
    "eth_call": _data,
    "eth_getCode": _data,
    "eth_getBlockByNumber": _header,
    "eth_getBlockByHash": _header,
    "eth_getTransactionReceipt": _receipt,
    "eth_getTransactionByHash": lambda value: isinstance(value, dict),
    "eth_getBlockReceipts": _receipts,
    "eth_getLogs": _logs,
    "eth_feeHistory": _fee_history,
}
#: Methods whose `null` means "none, as far as this node knows".
_NULLABLE = frozenset(
    {
        "eth_getBlockByNumber",
        "eth_getBlockByHash",
        "eth_getTransactionReceipt",
        "eth_getTransactionByHash",
        "eth_getBlockReceipts",
        "eth_getLogs",
    }
)
