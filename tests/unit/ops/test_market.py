"""Orders, result links and zips as the demo and the benchmarks make and read them."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from ops.market import orders, results, rewards
from ops.market.orders import Market, Offer
from protocol.enclave.result import write_encrypted
from protocol.errors import BadMessage
from protocol.ethereum.hexbytes import to_hex
from protocol.ethereum.signing import Key
from protocol.poco.orders import NO_DATASET
from protocol.types import Contract, NRlc, TaskId, Wallet

MARKET = Market(31337, Contract("0x" + "aa" * 20))
SELLER, REQUESTER = Key(b"\x01" * 32), Key(b"\x02" * 32)
APP, POOL = Contract("0x" + "01" * 20), Contract("0x" + "02" * 20)


def offer(price: int = 0) -> Offer:
    return Offer(
        orders.offer_app(MARKET, SELLER, APP),
        orders.offer_work(MARKET, SELLER, POOL, category=3, price=NRlc(price)),
    )


def test_a_request_pays_exactly_what_is_asked_and_is_signed_by_the_requester() -> None:
    request = orders.request(MARKET, REQUESTER, offer(price=7), trust=5, volume=2)

    assert (request.workerpoolmaxprice, request.appmaxprice, request.category) == (7, 0, 3)
    assert (request.app, request.workerpool, request.beneficiary) == (APP, POOL, REQUESTER.wallet)
    assert request.dataset == NO_DATASET.dataset
    assert request.signer(MARKET.chain_id, MARKET.hub) == REQUESTER.wallet


def test_two_equal_requests_are_two_orders() -> None:
    sold = offer()

    assert orders.request(MARKET, REQUESTER, sold) != orders.request(MARKET, REQUESTER, sold)


def test_offers_printed_for_the_sdk_are_free_and_last_for_a_thousand_tasks() -> None:
    sold = offer()

    for order, price in ((sold.app, "appprice"), (sold.workerpool, "workerpoolprice")):
        printed = json.loads(json.dumps(order.to_json()))
        assert printed[price] == "0"
        assert int(printed["volume"]) >= 1000
        assert len(printed["sign"]) == 2 + 2 * 65


@pytest.mark.parametrize(
    "link",
    [
        b"",
        b"not json",
        b"[]",
        b'{"storage":"ipfs"}',
        b'{"storage":"dropbox","location":"/results/1.zip"}',
        b'{"storage":"ipfs","location":"http://elsewhere/1.zip"}',
    ],
)
def test_a_link_that_leads_nowhere_is_refused(link: bytes) -> None:
    with pytest.raises(BadMessage):
        results.read_link(to_hex(link))


def test_the_link_on_chain_names_the_ipfs_path() -> None:
    assert results.read_link(to_hex(b'{"storage":"ipfs","location":"/ipfs/Qm1"}')) == "/ipfs/Qm1"


def test_files_of_a_result_keep_their_folders() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("result.txt", b"1")
        archive.mkdir("sub")
        archive.writestr("sub/deep.txt", b"2")

    assert results.unpack(packed.getvalue()) == {"result.txt": b"1", "sub/deep.txt": b"2"}


def test_something_else_than_a_zip_is_refused() -> None:
    with pytest.raises(BadMessage):
        results.unpack(b"<html>not found</html>")


def test_an_encrypted_result_opens_with_its_beneficiarys_key_and_with_nothing_else() -> None:
    content, stored = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("result.txt", b"42")
    mine, anothers = generate_private_key(65537, 2048), generate_private_key(65537, 2048)
    write_encrypted(stored, [content.getvalue()], mine.public_key(), b"\x05" * 32, b"\x06" * 16)
    files = results.unpack(stored.getvalue())

    assert results.open_encrypted(files, mine) == {"result.txt": b"42"}
    for given, key in ((files, anothers), ({"result.txt": b"42"}, mine)):
        with pytest.raises(BadMessage):
            results.open_encrypted(given, key)


def test_a_zip_that_would_unpack_beyond_the_limit_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_BYTES", 1000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * 1001)

    with pytest.raises(BadMessage, match="larger"):
        results.unpack(packed.getvalue())


def test_gains_of_several_tasks_add_up_per_wallet() -> None:
    one, other = Wallet("0x" + "01" * 20), Wallet("0x" + "02" * 20)
    first, second = TaskId("0x" + "0a" * 32), TaskId("0x" + "0b" * 32)

    sums = rewards.total({first: {one: NRlc(5), other: NRlc(-5)}, second: {one: NRlc(-30)}})

    assert sums == {one: -25, other: -5}
