"""The four orders that make a deal: as values, as EIP-712 hash, as the SDK's JSON and as an ABI tuple.

    AppOrder, DatasetOrder, WorkerpoolOrder   signed by the owner of that contract
    RequestOrder                              signed by the requester; its hash begins the deal id (`protocol.poco.ids`)

Source: IexecLibOrders_v5 of @iexec/poco 6.1.0; EIP-712 domain {iExecODB, 5.0.0, chain id, hub}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.signing import Key, recover_wallet
from protocol.ethereum.typed_data import Member, typed_data_digest
from protocol.types import ZERO_ADDRESS, ZERO_HASH, Contract, Hash32, NRlc, Signature, Wallet

_DOMAIN: list[Member] = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]
#: What stands in an order's `sign` before it is signed.
UNSIGNED = Signature("0x")
FREE = NRlc(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the four have in common. Field names are the contract's; every price is in nRLC for one task."""

    #: Struct name of EIP-712.
    NAME: ClassVar[str] = "Order"
    #: ABI type of each hashed field, in the contract's order; `sign` (bytes) follows them in the ABI tuple.
    MEMBERS: ClassVar[Mapping[str, str]] = {}

    #: How many tasks the order is good for.
    volume: int
    tag: Hash32 = ZERO_HASH
    #: 32 random bytes that keep two otherwise equal orders apart.
    salt: Hash32
    #: EIP-712 signature of the owner, or `0x`.
    sign: Signature = UNSIGNED

    def order_hash(self, chain_id: int, hub: Contract) -> Hash32:
        """The order's EIP-712 digest: what its owner signs, and what the hub identifies it by."""
        return Hash32(to_hex(self._typed_data_digest(chain_id, hub)))

    def signed(self, key: Key, chain_id: int, hub: Contract) -> Self:
        """The same order with `key`'s signature."""
        return replace(self, sign=Signature(to_hex(key.sign_digest(self._typed_data_digest(chain_id, hub)))))

    def signer(self, chain_id: int, hub: Contract) -> Wallet:
        """The wallet that signed the order. Raises Refused if `sign` is no signature."""
        return recover_wallet(self._typed_data_digest(chain_id, hub), self.sign)

    def to_json(self) -> dict[str, str]:
        """The order as the iExec SDK writes it: numbers as decimal text."""
        return {name: str(getattr(self, name)) for name in (*self.MEMBERS, "sign")}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Self:
        """The order in the iExec SDK's JSON (numbers also as numbers, addresses in any case). Raises BadMessage."""
        unknown = set(data) - set(cls.MEMBERS) - {"sign"}
        missing = set(cls.MEMBERS) - set(data)
        if unknown or missing:
            raise BadMessage(why=f"{cls.NAME}: missing {sorted(missing)}, unknown {sorted(unknown)}")
        values = {name: _read_member(kind, name, data[name]) for name, kind in cls.MEMBERS.items()}
        sign = _read_member("bytes", "sign", data.get("sign", UNSIGNED))
        return cls(**values, sign=sign)  # type: ignore[arg-type]  # every member's type was checked just above

    @classmethod
    def abi_type(cls) -> str:
        """ABI type of the tuple that `matchOrders` takes."""
        return f"({','.join(cls.MEMBERS.values())},bytes)"

    def abi_tuple(self) -> tuple[object, ...]:
        """The order as `eth_abi` encodes it under `abi_type`."""
        kinds = {**self.MEMBERS, "sign": "bytes"}
        return tuple(_abi_value(kind, getattr(self, name)) for name, kind in kinds.items())

    def _typed_data_digest(self, chain_id: int, hub: Contract) -> bytes:
        """The order's EIP-712 digest as 32 bytes, for the hub on this chain."""
        members = [Member(name=name, type=kind) for name, kind in self.MEMBERS.items()]
        domain = {"name": "iExecODB", "version": "5.0.0", "chainId": chain_id, "verifyingContract": hub}
        return typed_data_digest(
            {
                "types": {"EIP712Domain": _DOMAIN, self.NAME: members},
                "primaryType": self.NAME,
                "domain": domain,
                "message": {name: getattr(self, name) for name in self.MEMBERS},
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOrder(Order):
    """An app's owner lets it run at a price; `…restrict` other than zero names the only one allowed."""

    NAME: ClassVar[str] = "AppOrder"
    MEMBERS: ClassVar[Mapping[str, str]] = {
        "app": "address",
        "appprice": "uint256",
        "volume": "uint256",
        "tag": "bytes32",
        "datasetrestrict": "address",
        "workerpoolrestrict": "address",
        "requesterrestrict": "address",
        "salt": "bytes32",
    }

    app: Contract
    appprice: NRlc = FREE
    datasetrestrict: Contract = ZERO_ADDRESS
    workerpoolrestrict: Contract = ZERO_ADDRESS
    requesterrestrict: Contract | Wallet = ZERO_ADDRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOrder(Order):
    """A dataset's owner lets it be used at a price. `NO_DATASET` stands for a deal without one."""

    NAME: ClassVar[str] = "DatasetOrder"
    MEMBERS: ClassVar[Mapping[str, str]] = {
        "dataset": "address",
        "datasetprice": "uint256",
        "volume": "uint256",
        "tag": "bytes32",
        "apprestrict": "address",
        "workerpoolrestrict": "address",
        "requesterrestrict": "address",
        "salt": "bytes32",
    }

    dataset: Contract
    datasetprice: NRlc = FREE
    apprestrict: Contract = ZERO_ADDRESS
    workerpoolrestrict: Contract = ZERO_ADDRESS
    requesterrestrict: Contract | Wallet = ZERO_ADDRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerpoolOrder(Order):
    """A pool's owner offers work: `category` sets the time limit, `trust` the least confidence offered."""

    NAME: ClassVar[str] = "WorkerpoolOrder"
    MEMBERS: ClassVar[Mapping[str, str]] = {
        "workerpool": "address",
        "workerpoolprice": "uint256",
        "volume": "uint256",
        "tag": "bytes32",
        "category": "uint256",
        "trust": "uint256",
        "apprestrict": "address",
        "datasetrestrict": "address",
        "requesterrestrict": "address",
        "salt": "bytes32",
    }

    workerpool: Contract
    workerpoolprice: NRlc = FREE
    category: int
    trust: int = 0
    apprestrict: Contract = ZERO_ADDRESS
    datasetrestrict: Contract = ZERO_ADDRESS
    requesterrestrict: Contract | Wallet = ZERO_ADDRESS


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOrder(Order):
    """A requester asks for `volume` tasks; a zero dataset or workerpool means none, or any."""

    NAME: ClassVar[str] = "RequestOrder"
    MEMBERS: ClassVar[Mapping[str, str]] = {
        "app": "address",
        "appmaxprice": "uint256",
        "dataset": "address",
        "datasetmaxprice": "uint256",
        "workerpool": "address",
        "workerpoolmaxprice": "uint256",
        "requester": "address",
        "volume": "uint256",
        "tag": "bytes32",
        "category": "uint256",
        "trust": "uint256",
        "beneficiary": "address",
        "callback": "address",
        "params": "string",
        "salt": "bytes32",
    }

    app: Contract
    appmaxprice: NRlc = FREE
    dataset: Contract = ZERO_ADDRESS
    datasetmaxprice: NRlc = FREE
    workerpool: Contract = ZERO_ADDRESS
    workerpoolmaxprice: NRlc = FREE
    requester: Wallet
    category: int
    trust: int = 0
    beneficiary: Contract | Wallet = ZERO_ADDRESS
    callback: Contract = ZERO_ADDRESS
    #: Deal params, see `protocol.results.params`.
    params: str = ""


#: What `matchOrders` takes as dataset order of a deal without dataset; it needs no signature.
NO_DATASET = DatasetOrder(dataset=ZERO_ADDRESS, volume=0, salt=ZERO_HASH)


def _read_member(kind: str, name: str, value: object) -> str | int:
    """The value of one member of an order's JSON, checked against its Solidity type. Raises BadMessage."""
    match kind, value:
        case "string", str():
            return value
        case "address", str():
            return to_hex(to_bytes(value, 20))
        case "bytes32", str():
            return to_hex(to_bytes(value, 32))
        case "bytes", str():
            return to_hex(to_bytes(value))
        case "uint256", int() if value >= 0 and not isinstance(value, bool):
            return value
        case "uint256", str() if value.isascii() and value.isdecimal():
            return int(value)
    raise BadMessage(why=f"{name} of an order must be a {kind}")


def _abi_value(kind: str, value: str | int) -> str | int | bytes:
    """The value as eth_abi takes it: addresses and strings as text, but bytes as bytes."""
    return to_bytes(value) if isinstance(value, str) and kind.startswith("bytes") else value
