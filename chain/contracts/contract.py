"""PoCo's contracts as web3.py objects, for what is not called thousands of times (see `chain.contracts.calls`).

The ABIs are those of @iexec/poco 6.1.0, written compactly into `abis/` and pinned by hash; a test compares them with
the package.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eth_typing import ChecksumAddress
from eth_utils.address import to_checksum_address

from chain.rpc.client import JsonRpc
from chain.rpc.library import load_web3
from protocol.types import Contract, Wallet

if TYPE_CHECKING:
    from web3.contract import Contract as Web3Contract

_FOLDER = Path(__file__).parent / "abis"


class Abi(StrEnum):
    """A contract of PoCo: the name of its file in `abis/`."""

    HUB = "hub"  #: IexecInterfaceToken: every function and event of the diamond
    APP_REGISTRY = "app_registry"
    DATASET_REGISTRY = "dataset_registry"
    WORKERPOOL_REGISTRY = "workerpool_registry"
    WORKERPOOL = "workerpool"
    RLC = "rlc"  #: the token, as rlc-faucet-contract 1.0.10 has it


#: SHA-256 of each file.
SHA256 = {
    Abi.HUB: "90fb08369856f4e6209fe966ca1099a77fa6c510cc3c4a047698dc81cc4854de",
    Abi.APP_REGISTRY: "bcb933698c7949d751887f7c9aacd1c472682a7422985760529abb0c36941504",
    Abi.DATASET_REGISTRY: "7b12f6ffcce5f70ea4087571617d75507cd3619d26d5f83954b13b15bd679266",
    Abi.WORKERPOOL_REGISTRY: "86d68e8bbb4e199c338425a9e59f7206c5747bbb8f77bc3aef3904f821664ed1",
    Abi.WORKERPOOL: "db04638fb1af6f34c7cfea1641ff7fc42ec85943505ea05fe16bf828c12ba93b",
    Abi.RLC: "6fbb692649ec97ffaecb90dbf441e7b2bf34725c7e55753ff72f891b2603f390",
}


@cache
def read_abi(name: Abi) -> list[dict[str, Any]]:
    """The ABI of contract `name` as JSON. Raises AssertionError if its file is not the pinned one."""
    text = (_FOLDER / f"{name}.json").read_bytes()
    assert hashlib.sha256(text).hexdigest() == SHA256[name], f"abis/{name}.json is not the pinned file"
    abi: list[dict[str, Any]] = json.loads(text)
    return abi


def contract(rpc: JsonRpc, name: Abi, address: Contract, *parts: str) -> Web3Contract:
    """web3.py's object for the contract at `address`; its calls go through `rpc` and raise RpcError, RpcUnavailable.

    It has the functions and events that `parts` names and no others: web3.py makes several objects of each at once, and
    the hub has 123.
    """
    load_web3()
    from chain.rpc.provider import web3_over  # noqa: PLC0415 # it imports web3.py

    abi = [entry for entry in read_abi(name) if entry.get("name") in parts]
    return web3_over(rpc).eth.contract(checksummed(address), abi=abi)


def checksummed(address: Contract | Wallet) -> ChecksumAddress:
    """An address (lower case in Sluice) as web3.py takes it: with EIP-55's checksum."""
    return to_checksum_address(address)
