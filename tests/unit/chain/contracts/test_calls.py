"""Calldata of each contract function: selectors, layout, gas limits, and answers that do not fit."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode

from chain.contracts import calls
from chain.contracts.abi import Function
from protocol.errors import BadMessage
from protocol.poco.orders import NO_DATASET, AppOrder, RequestOrder, WorkerpoolOrder
from protocol.types import Contract, DealId, Hash32, Signature, TaskId, Wallet

TASK = TaskId("0x" + "11" * 32)
HASH = Hash32("0x" + "22" * 32)
SEAL = Hash32("0x" + "33" * 32)
SIGNATURE = Signature("0x" + "44" * 65)
DEAL = DealId("0x" + "55" * 32)


@pytest.mark.parametrize(
    ("function", "selector"),
    [  # Selectors of the deployed facets (iexec-worker 9.2, and `cast sig`).
        (calls.CONTRIBUTE, "34623484"),
        (calls.REVEAL, "fc334e8c"),
        (calls.CONTRIBUTE_AND_FINALIZE, "5facd761"),
        (calls.FINALIZE, "8fc375e5"),
        (calls.INITIALIZE, "5b36c66b"),
        (calls.VIEW_TASK, "adccf0d5"),
        (calls.MATCH_ORDERS, "156194d4"),
        (calls.TRANSFER, "a9059cbb"),
        (calls.BALANCE_OF, "70a08231"),
    ],
)
def test_selectors_are_those_of_the_deployed_contracts(function: Function, selector: str) -> None:
    assert function.selector.hex() == selector


def test_a_vote_is_laid_out_word_by_word() -> None:
    data = calls.contribute(TASK, HASH, SEAL, SIGNATURE)

    words = [data[10 + 64 * index : 74 + 64 * index] for index in range((len(data) - 10) // 64)]
    assert data.startswith("0x34623484")
    assert words[:4] == [TASK[2:], HASH[2:], SEAL[2:], "0" * 64]
    # Offsets of the two byte strings, then their lengths: no enclave signature, 65 bytes of authorization.
    assert [int(word, 16) for word in words[4:8]] == [0xC0, 0xE0, 0, 65]
    assert "".join(words[8:]).startswith("44" * 65)


def test_many_tasks_go_into_one_initialize_array() -> None:
    data = calls.initialize_array([(DEAL, 3), (DEAL, 4)])

    assert len(data) == 2 + 2 * (4 + 32 * (2 + 1 + 2 + 1 + 2))
    assert data.endswith(f"{3:064x}{4:064x}")


def test_orders_are_encoded_as_the_tuples_of_the_protocol() -> None:
    address = Contract("0x" + "77" * 20)
    salt = Hash32("0x" + "88" * 32)
    app = AppOrder(app=address, volume=1, salt=salt)
    pool = WorkerpoolOrder(workerpool=address, volume=1, category=0, salt=salt)
    request = RequestOrder(
        app=address,
        workerpool=address,
        requester=Wallet(address),
        volume=1,
        category=0,
        trust=1,
        beneficiary=Wallet(address),
        params="{}",
        salt=salt,
    )

    data = calls.match_orders(app.abi_tuple(), NO_DATASET.abi_tuple(), pool.abi_tuple(), request.abi_tuple())

    assert data.startswith("0x156194d4")
    assert data.count("88" * 32) == 3


def test_an_answer_that_is_not_the_declared_types_is_bad() -> None:
    with pytest.raises(BadMessage, match="viewTask answered 3 bytes"):
        calls.VIEW_TASK.decode("0x123456")


def test_the_wrong_number_of_arguments_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        calls.INITIALIZE.encode(DEAL)


@pytest.mark.parametrize(
    ("calldata", "used"),
    [  # (calldata, gas measured on PoCo 6.1.0)
        (calls.initialize(DEAL, 1), 242_000),
        (calls.initialize_array([(DEAL, n) for n in range(50)]), 8_466_000),
        (calls.initialize_array([(DEAL, n) for n in range(75)]), 12_660_000),
        (calls.contribute(TASK, HASH, SEAL, SIGNATURE), 422_000),
        (calls.reveal(TASK, HASH), 93_000),
        (calls.finalize(TASK, "0x" + "00" * 1024), 971_000),
        (calls.contribute_and_finalize(TASK, HASH, "0x" + "00" * 87, SIGNATURE), 610_000),
        (calls.claim_array([TASK] * 50), 1_857_000),
    ],
)
def test_gas_limits_hold_what_was_measured_with_room_and_fit_a_block(calldata: str, used: int) -> None:
    method = next(
        function.name
        for function in vars(calls).values()
        if isinstance(function, Function) and calldata.startswith("0x" + function.selector.hex())
    )

    limit = calls.gas_limit(method, calldata)

    # 16,777,216 is the most gas one transaction may ask for (EIP-7825).
    assert used * 1.1 < limit < 16_777_216


@pytest.mark.parametrize(
    ("written", "read"),
    [  # As `new String(bytes, UTF_8)` of Java reads them: a replacement character per part that cannot go on.
        (b"plain", "plain"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"a\xc3(b", "a\ufffd(b"),
        (b"\xf0\x9f\x98", "\ufffd"),
        (b"\xe0\x80a", "\ufffd\ufffda"),
        # Halves of surrogate pairs, whole and cut short: measured on Java 17.
        (b"\xed\xa0\x80", "\ufffd"),
        (b"\xed\xa0\xbd\xed\xb8\x80", "\ufffd\ufffd"),
        (b"\xed\xa0a", "\ufffda"),
        (b"\xed\xa0", "\ufffd"),
        (b"\xed\xc3\xa9", "\ufffd\u00e9"),
        ("grüße \N{ROCKET}".encode(), "grüße \N{ROCKET}"),
    ],
)
def test_texts_that_are_no_utf_8_are_read_all_the_same(written: bytes, read: str) -> None:
    # Bytes and text are laid out alike.
    answer = encode(["(bytes,bytes,uint256)"], [(written, b"x", 7)])
    assert calls.VIEW_CATEGORY.decode("0x" + answer.hex()) == ((read, "x", 7),)
