"""A long chain in seconds: anvil's saved state, with empty blocks written into it.

anvil itself takes longer for each block the longer its chain is: a quarter of an hour for 50,000. An empty block is a
header, and a header can be computed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.ethereum.rlp import encode_bytes, encode_int, encode_list

#: Fields of a header in the order in which they are hashed; the first are in every one (yellow paper 4.3, EIPs 1559,
#: 4895, 4844, 4788, 7685), the later ones from their fork on.
_FIELDS = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty"),
    *("number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas"),
    *("withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash"),
)
_NUMBERS = frozenset(
    ("difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas")
)
#: Root of an empty trie: no transactions, no receipts.
_NOTHING = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"


def lengthen(state: Path, blocks: int) -> None:
    """Add so many empty blocks, a second apart, on top of the chain saved in `state`."""
    saved = json.loads(state.read_text())
    header = max((block["header"] for block in saved["blocks"]), key=lambda each: int(each["number"], 16))
    for _ in range(blocks):
        header = _next_header(header)
        saved["blocks"].append({"header": header, "transactions": [], "ommers": [], "withdrawals": []})
    saved["best_block_number"] = int(header["number"], 16)
    saved["block"] |= {"number": header["number"], "timestamp": header["timestamp"]}
    state.write_text(json.dumps(saved, separators=(",", ":")))


def block_hash(header: Mapping[str, Any]) -> str:
    """A header's hash as `0x` hex: keccak of its RLP."""
    return to_hex(keccak(encode_list(*(_encode_field(name, header[name]) for name in _FIELDS if name in header))))


def _next_header(header: Mapping[str, Any]) -> dict[str, Any]:
    """The header of an empty block one second after this one."""
    return {
        **header,
        "parentHash": block_hash(header),
        "number": hex(int(header["number"], 16) + 1),
        "timestamp": hex(int(header["timestamp"], 16) + 1),
        "gasUsed": "0x0",
        "transactionsRoot": _NOTHING,
        "receiptsRoot": _NOTHING,
        "logsBloom": to_hex(bytes(256)),
    }


def _encode_field(name: str, value: str) -> bytes:
    """RLP of one header field."""
    return encode_int(int(value, 16)) if name in _NUMBERS else encode_bytes(to_bytes(value))
