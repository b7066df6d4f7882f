"""Blocks that are written into a saved chain must be such as a node would have made: linked by their real hashes."""

from __future__ import annotations

import json
from pathlib import Path

from bench.rig.long_chain import block_hash, lengthen

EMPTY_ROOT = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421"
#: Ethereum's first block.
GENESIS = {
    "parentHash": "0x" + "0" * 64,
    "sha3Uncles": "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
    "miner": "0x" + "0" * 40,
    "stateRoot": "0xd7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544",
    "transactionsRoot": EMPTY_ROOT,
    "receiptsRoot": EMPTY_ROOT,
    "logsBloom": "0x" + "0" * 512,
    "difficulty": "0x400000000",
    "number": "0x0",
    "gasLimit": "0x1388",
    "gasUsed": "0x0",
    "timestamp": "0x0",
    "extraData": "0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa",
    "mixHash": "0x" + "0" * 64,
    "nonce": "0x0000000000000042",
}
GENESIS_HASH = "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3"


def test_the_hash_of_a_known_block_is_the_known_one() -> None:
    assert block_hash(GENESIS) == GENESIS_HASH


def test_blocks_are_added_on_top_of_the_highest_and_linked(tmp_path: Path) -> None:
    saved = tmp_path / "state.json"
    block = {"header": GENESIS, "transactions": [], "ommers": [], "withdrawals": []}
    saved.write_text(json.dumps({"blocks": [block], "best_block_number": 0, "block": {"number": "0x0"}}))

    lengthen(saved, 3)

    state = json.loads(saved.read_text())
    headers = [each["header"] for each in state["blocks"]]
    assert [int(header["number"], 16) for header in headers] == [0, 1, 2, 3]
    assert [header["parentHash"] for header in headers[1:]] == [block_hash(header) for header in headers[:-1]]
    assert (state["best_block_number"], state["block"]["number"], state["block"]["timestamp"]) == (3, "0x3", "0x3")
