"""Hashes, signatures and JSON of orders, against eth-account and the contracts."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadMessage, Refused
from protocol.ethereum.keccak import keccak
from protocol.poco.orders import NO_DATASET, UNSIGNED, AppOrder, DatasetOrder, Order, RequestOrder, WorkerpoolOrder
from protocol.types import Contract, Hash32, NRlc, Wallet
from tests.unit.protocol import vectors

HUB = Contract("0x" + "bb" * 20)
CHAIN_ID = 31337
APP, POOL, DATASET = (Contract("0x" + two * 20) for two in ("a1", "a2", "a3"))
SALT = Hash32("0x" + "5a" * 32)
REQUESTER = vectors.WORKER.wallet

#: IexecLibOrders_v5's constants.
TYPE_HASHES = [
    (AppOrder, "60815a0eeec47dddf1615fe53b31d016c31444e01b9d796db365443a6445d008"),
    (DatasetOrder, "6cfc932a5a3d22c4359295b9f433edff52b60703fa47690a04a83e40933dd47c"),
    (WorkerpoolOrder, "aa3429fb281b34691803133d3d978a75bb77c617ed6bc9aa162b9b30920022bb"),
    (RequestOrder, "f24e853034a3a450aba845a82914fbb564ad85accca6cf62be112a154520fae0"),
]
ORDERS: list[Order] = [
    AppOrder(app=APP, appprice=NRlc(10**18), volume=2**64, salt=SALT, workerpoolrestrict=POOL),
    DatasetOrder(dataset=DATASET, datasetprice=NRlc(1), volume=3, tag=SALT, salt=SALT, requesterrestrict=REQUESTER),
    NO_DATASET,
    WorkerpoolOrder(workerpool=POOL, workerpoolprice=NRlc(100), volume=7, category=4, trust=5, salt=SALT),
    RequestOrder(app=APP, requester=REQUESTER, volume=1, category=0, salt=SALT),
    RequestOrder(
        app=APP,
        appmaxprice=NRlc(3),
        dataset=DATASET,
        datasetmaxprice=NRlc(4),
        workerpool=POOL,
        workerpoolmaxprice=NRlc(5),
        requester=REQUESTER,
        volume=10,
        tag=SALT,
        category=1,
        trust=8,
        beneficiary=Wallet("0x" + "be" * 20),
        callback=Contract("0x" + "ca" * 20),
        params='{"iexec_args":"é \\" 日本"}',
        salt=SALT,
    ),
]


def as_typed_data(order: Order) -> dict[str, Any]:
    """The order as any wallet takes it."""
    domain_type = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    return {
        "types": {
            "EIP712Domain": [{"name": name, "type": kind} for name, kind in domain_type.items()],
            order.NAME: [{"name": name, "type": kind} for name, kind in order.MEMBERS.items()],
        },
        "primaryType": order.NAME,
        "domain": {"name": "iExecODB", "version": "5.0.0", "chainId": CHAIN_ID, "verifyingContract": HUB},
        "message": {name: getattr(order, name) for name in order.MEMBERS},
    }


@pytest.mark.parametrize(("kind", "type_hash"), TYPE_HASHES)
def test_the_type_hash_is_the_contracts(kind: type[Order], type_hash: str) -> None:
    members = ",".join(f"{abi} {name}" for name, abi in kind.MEMBERS.items())
    assert keccak(f"{kind.NAME}({members})".encode()).hex() == type_hash


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_is_hashed_and_signed_byte_for_byte_like_eth_account(order: Order) -> None:
    signed = Account.sign_message(encode_typed_data(full_message=as_typed_data(order)), b"\x11" * 32)
    assert order.order_hash(CHAIN_ID, HUB) == signed.message_hash.to_0x_hex()
    assert order.signed(vectors.WORKER, CHAIN_ID, HUB).sign == signed.signature.to_0x_hex()


@given(st.text(max_size=40), st.integers(0, 2**256 - 1), st.binary(min_size=32, max_size=32))
def test_any_request_is_hashed_like_eth_account(params: str, number: int, salt: bytes) -> None:
    order = RequestOrder(
        app=APP,
        requester=REQUESTER,
        volume=number,
        category=number,
        trust=number,
        params=params,
        salt=Hash32("0x" + salt.hex()),
    )
    signed = Account.sign_message(encode_typed_data(full_message=as_typed_data(order)), b"\x11" * 32)
    assert order.order_hash(CHAIN_ID, HUB) == signed.message_hash.to_0x_hex()


@pytest.mark.parametrize("order", ORDERS)
def test_a_signed_order_tells_its_signer(order: Order) -> None:
    signed = order.signed(vectors.POOL_OWNER, CHAIN_ID, HUB)
    assert signed.signer(CHAIN_ID, HUB) == vectors.POOL_OWNER_WALLET
    assert signed.signer(CHAIN_ID + 1, HUB) != vectors.POOL_OWNER_WALLET
    assert signed.signer(CHAIN_ID, POOL) != vectors.POOL_OWNER_WALLET


def test_an_unsigned_order_has_no_signer() -> None:
    with pytest.raises(Refused):
        NO_DATASET.signer(CHAIN_ID, HUB)


def test_signing_changes_neither_the_order_nor_its_hash() -> None:
    order = ORDERS[0]
    signed = order.signed(vectors.WORKER, CHAIN_ID, HUB)
    assert order.sign == UNSIGNED
    assert signed.order_hash(CHAIN_ID, HUB) == order.order_hash(CHAIN_ID, HUB)


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_survives_the_way_through_json(order: Order) -> None:
    signed = order.signed(vectors.WORKER, CHAIN_ID, HUB)
    assert type(order).from_json(signed.to_json()) == signed
    assert type(order).from_json(order.to_json()) == order


def test_the_sdks_json_is_understood() -> None:
    written = {
        "app": "0xA1A1a1A1A1a1A1A1a1A1a1A1A1a1a1a1A1a1A1A1",
        "appprice": "1000000000",
        "volume": "1000000",
        "tag": "0x" + "00" * 32,
        "datasetrestrict": "0x0000000000000000000000000000000000000000",
        "workerpoolrestrict": "0x0000000000000000000000000000000000000000",
        "requesterrestrict": "0x0000000000000000000000000000000000000000",
        "salt": "0x" + "5A" * 32,
        "sign": "0x" + "AB" * 65,
    }
    order = AppOrder.from_json(written)
    assert order == AppOrder(app=APP, appprice=NRlc(10**9), volume=1_000_000, salt=SALT, sign=order.sign)
    assert order.to_json() == {name: text.lower() for name, text in written.items()}


def test_numbers_are_read_as_numbers_too_and_a_missing_signature_as_unsigned() -> None:
    written: dict[str, object] = {**ORDERS[0].to_json(), "appprice": 5, "volume": 2}
    del written["sign"]
    order = AppOrder.from_json(written)
    assert (order.appprice, order.volume, order.sign) == (5, 2, UNSIGNED)


@pytest.mark.parametrize(
    "change",
    [
        {"app": "0x00"},
        {"app": 5},
        {"appprice": "-1"},
        {"appprice": -1},
        {"appprice": "1.5"},
        {"appprice": "٣"},
        {"appprice": True},
        {"appprice": None},
        {"tag": "0x0"},
        {"salt": "hello"},
        {"sign": "none"},
        {"price": "1"},
    ],
)
def test_json_that_is_no_order_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadMessage):
        AppOrder.from_json({**ORDERS[0].to_json(), **change})


def test_json_that_lacks_a_member_is_refused() -> None:
    written = ORDERS[0].to_json()
    del written["salt"]
    with pytest.raises(BadMessage, match="salt"):
        AppOrder.from_json(written)


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_is_encoded_as_the_contracts_tuple(order: Order) -> None:
    signed = order.signed(vectors.WORKER, CHAIN_ID, HUB)
    encoded = encode([signed.abi_type()], [signed.abi_tuple()])
    (decoded,) = decode([signed.abi_type()], encoded)
    shown = ["0x" + item.hex() if isinstance(item, bytes) else item for item in decoded]
    assert shown == [getattr(signed, name) for name in (*signed.MEMBERS, "sign")]
