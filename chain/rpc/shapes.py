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
    """Whether `result` has the shape of an answer to this call; True for methods that are not known here."""
    check = _CHECKS.get(method)
    if check is None:
        return True
    if result is None:
        return method in _NULLABLE
    if method == "eth_getBlockByNumber" and params and params[0] == "pending":
        # It has no hash yet.
        return isinstance(result, dict)
    return check(result)


def _is_quantity(value: Any) -> bool:
    """Whether the value is a JSON-RPC quantity such as "0x1a"."""
    return isinstance(value, str) and _QUANTITY.fullmatch(value) is not None


def _is_data(value: Any) -> bool:
    """Whether the value is `0x` hex of whole bytes."""
    return isinstance(value, str) and len(value) % 2 == 0 and _HEX.fullmatch(value) is not None


def _is_hash(value: Any) -> bool:
    """Whether the value is `0x` hex of 32 bytes."""
    return _is_data(value) and len(value) == _HASH


def _is_header(value: Any) -> bool:
    """Whether the value is a block header with the fields that Sluice reads."""
    return (
        isinstance(value, dict)
        and all(_is_quantity(value.get(name)) for name in ("number", "timestamp"))
        and all(_is_hash(value.get(name)) for name in ("hash", "parentHash"))
        and all(value.get(name) is None or _is_quantity(value[name]) for name in ("baseFeePerGas", "gasLimit"))
        and (not value.get("logsBloom") or _is_bloom(value["logsBloom"]))
    )


def _is_bloom(value: Any) -> bool:
    """Whether the value is a logs bloom filter, perhaps shortened."""
    # Chains without logs in it shorten it, down to "0x0".
    return isinstance(value, str) and len(value) <= _BLOOM and _HEX.fullmatch(value) is not None


def _is_receipt(value: Any) -> bool:
    """Whether the value is a receipt with the fields that Sluice reads."""
    if not isinstance(value, dict):
        return False
    if value.get("blockNumber") is None:
        # Some nodes show receipts of transactions that are in no block yet.
        return True
    return (
        all(_is_quantity(value.get(name)) for name in ("blockNumber", "gasUsed", "status"))
        and all(_is_hash(value.get(name)) for name in ("transactionHash", "blockHash"))
        and (value.get("effectiveGasPrice") is None or _is_quantity(value["effectiveGasPrice"]))
        and (value.get("logs") is None or _are_logs(value["logs"]))
    )


def _are_receipts(value: Any) -> bool:
    """Whether the value is a block's list of receipts, each with bloom filter and logs."""
    return isinstance(value, list) and all(
        isinstance(receipt, dict) and _is_bloom(receipt.get("logsBloom")) and _are_logs(receipt.get("logs"))
        for receipt in value
    )


def _are_logs(value: Any) -> bool:
    """Whether the value is a list of logs."""
    return isinstance(value, list) and all(map(_is_log, value))


def _is_log(value: Any) -> bool:
    """Whether the value is a log with the fields that Sluice reads."""
    return (
        isinstance(value, dict)
        and _is_data(value.get("address"))
        and len(value["address"]) == _ADDRESS
        and isinstance(value.get("topics"), list)
        and all(map(_is_hash, value["topics"]))
        and _is_data(value.get("data"))
        and all(_is_hash(value.get(name)) for name in ("blockHash", "transactionHash"))
        and all(_is_quantity(value.get(name)) for name in ("blockNumber", "logIndex"))
    )


def _is_fee_history(value: Any) -> bool:
    """Whether the value is an answer of eth_feeHistory."""
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
        _is_quantity,
    ),
    "eth_call": _is_data,
    "eth_getCode": _is_data,
    "eth_getBlockByNumber": _is_header,
    "eth_getBlockByHash": _is_header,
    "eth_getTransactionReceipt": _is_receipt,
    "eth_getTransactionByHash": lambda value: isinstance(value, dict),
    "eth_getBlockReceipts": _are_receipts,
    "eth_getLogs": _are_logs,
    "eth_feeHistory": _is_fee_history,
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
