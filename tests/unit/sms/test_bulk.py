"""Sessions of tasks whose datasets stand in a bulk, and how the bulk is fetched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from chain.contracts.hub import Dataset
from protocol.cid import file_cid
from protocol.enclave.secrets import dataset_key
from protocol.enclave.session import APP as APP_SERVICE
from protocol.enclave.session import PRE_COMPUTE, SessionError
from protocol.errors import NoSession, StorageUnavailable, Unavailable
from protocol.poco.orders import DatasetOrder
from protocol.types import Contract, Hash32
from sms.bulk import LEAST_VOLUME, MOST_DATASETS, read_orders
from sms.ipfs import FETCHES_AT_ONCE, IpfsGateway
from sms.session import Wanted
from tests.unit.sms.test_service import fetch, services
from tests.unit.sms.world import CHECKSUM, OWNER, TASK, World, execution, with_deal
from tests.waiting import ample

FIRST, SECOND = Contract("0x" + "d1" * 20), Contract("0x" + "d2" * 20)
#: The task's index in its deal.
INDEX = 3


def order(dataset: Contract, **fields: Any) -> DatasetOrder:
    return replace(DatasetOrder(dataset=dataset, volume=LEAST_VOLUME + 1, salt=Hash32("0x" + "5a" * 32)), **fields)


def slice_of(*orders: DatasetOrder) -> bytes:
    return json.dumps([each.to_json() for each in orders]).encode()


def deal(world: World, content: bytes, *, slices: int = INDEX + 1) -> None:
    """Give the task's deal a bulk, of which the task's slice has this content."""
    cids = [world.files.put(b"[%d]" % number) for number in range(slices)]
    if slices > INDEX:
        cids[INDEX] = world.files.put(content)
    name(world, world.files.put(json.dumps(cids).encode()))


def name(world: World, cid: str) -> None:
    found = with_deal(execution(bulk_cid=cid), dataset=None)
    world.chain.executions[TASK] = replace(found, dataset=None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World.of(tmp_path)
    for number, address in enumerate((FIRST, SECOND), start=1):
        made.chain.owners[address] = OWNER.wallet
        made.chain.datasets[address] = Dataset(address, OWNER.wallet, "data", f"/ipfs/Qm{number}", CHECKSUM)
        made.keep(OWNER, dataset_key(address), f"key-{number}".encode())
    return made


def test_a_session_names_the_datasets_of_the_tasks_slice_and_only_pre_compute_gets_their_keys(world: World) -> None:
    deal(world, slice_of(order(FIRST), order(SECOND, volume=LEAST_VOLUME)))
    request, signature = world.prepare()
    session = fetch(world, world.service.open_session(request, signature).session_id)
    found = services(session)
    pre, app = found[PRE_COMPUTE], found[APP_SERVICE]
    assert (pre["IS_DATASET_REQUIRED"], pre["IEXEC_BULK_SLICE_SIZE"], app["IEXEC_BULK_SLICE_SIZE"]) == (
        "false",
        "2",
        "2",
    )
    for number, address in enumerate((FIRST, SECOND), start=1):
        prefix = f"IEXEC_DATASET_{number}"
        assert pre[f"{prefix}_URL"] == f"/ipfs/Qm{number}"
        assert pre[f"{prefix}_CHECKSUM"] == CHECKSUM
        assert pre[f"{prefix}_KEY"] == f"key-{number}"
        assert pre[f"{prefix}_FILENAME"] == app[f"{prefix}_FILENAME"] == address
    assert {name for name, values in found.items() if "key-1" in values.values()} == {PRE_COMPUTE}
    assert "IEXEC_DATASET_1_URL" not in app


def test_a_deal_without_a_bulk_has_no_word_of_one_in_its_session(world: World) -> None:
    name(world, " ")
    request, signature = world.prepare()
    session = fetch(world, world.service.open_session(request, signature).session_id)
    assert not [key for values in services(session).values() for key in values if "BULK" in key]


def no_list(world: World) -> None:
    name(world, world.files.put(b'{"slices": []}'))


def bad_json(world: World) -> None:
    name(world, world.files.put(b'["Qm'))


def no_cid(world: World) -> None:
    name(world, "../secrets")


def no_cid_in_it(world: World) -> None:
    name(world, world.files.put(b'["Qm", "Qm", "Qm", "../etc"]'))


def too_few(world: World) -> None:
    deal(world, b"", slices=INDEX)


def too_many(world: World) -> None:
    deal(world, slice_of(*[order(FIRST)] * (MOST_DATASETS + 1)))


def nested(world: World) -> None:
    deal(world, b"[" * 100_000)


def no_order(world: World) -> None:
    deal(world, b'["0xd1"]')


def many_words(world: World) -> None:
    deal(world, json.dumps([{"x" * 10_000: 1}]).encode())


def missing_field(world: World) -> None:
    deal(world, json.dumps([{"dataset": FIRST}]).encode())


def costs(world: World) -> None:
    deal(world, slice_of(order(FIRST), order(SECOND, datasetprice=1)))


def for_few(world: World) -> None:
    deal(world, slice_of(order(FIRST, volume=LEAST_VOLUME - 1)))


def for_too_many(world: World) -> None:
    deal(world, slice_of(order(FIRST, volume=2**256)))


def endless_number(world: World) -> None:
    deal(world, json.dumps([order(FIRST).to_json() | {"volume": "9" * 5000}]).encode())


def against_it(world: World) -> None:
    deal(world, slice_of(order(FIRST), order(SECOND)))
    world.chain.objections[SECOND] = "App restriction not satisfied"


def no_key(world: World) -> None:
    deal(world, slice_of(order(FIRST), order(SECOND)))
    del world.store.rows[dataset_key(SECOND).key]


WRONG: list[Callable[[World], None]] = [
    no_list,
    bad_json,
    no_cid,
    no_cid_in_it,
    too_few,
    too_many,
    nested,
    no_order,
    many_words,
    missing_field,
    costs,
    for_few,
    for_too_many,
    endless_number,
    against_it,
    no_key,
]


@pytest.mark.parametrize("spoil", WRONG, ids=lambda given: given.__name__)
def test_a_slice_that_no_enclave_may_have_is_refused_by_the_name_for_a_dataset_without_key(
    world: World, spoil: Callable[[World], None]
) -> None:
    request, signature = world.prepare()
    spoil(world)
    with pytest.raises(NoSession) as refused:
        world.service.open_session(request, signature)
    assert refused.value.fields["error"] == SessionError.NO_DATASET_KEY
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("gone", ["list", "slice", "dataset"])
def test_what_gateway_or_node_do_not_have_now_is_not_refused(world: World, gone: str) -> None:
    request, signature = world.prepare()
    content = slice_of(order(FIRST))
    deal(world, content)
    listed = json.loads(world.chain.executions[TASK].deal.params)["bulk_cid"]
    if gone == "dataset":
        del world.chain.datasets[FIRST]
    else:
        del world.files.files[listed if gone == "list" else file_cid(content)]
    with pytest.raises(Unavailable):
        world.service.open_session(request, signature)


#: Made by tests/sdk/record_bulk.mjs: three datasets, two to a task.
RECORDED = json.loads((Path(__file__).parents[2] / "data" / "bulk.json").read_text(encoding="utf-8"))


def test_a_bulk_that_the_stock_sdk_9_made_is_read_as_the_orders_that_their_owner_signed() -> None:
    files = {cid: text.encode() for cid, text in RECORDED["files"].items()}
    assert {file_cid(content): content for content in files.values()} == files
    slices = [read_orders(files[cid]) for cid in json.loads(files[RECORDED["cid"]])]
    assert [len(found) for found in slices] == [2, 1]
    for found in slices:
        for each in found:
            assert each.signer(RECORDED["chain"], RECORDED["hub"]) == RECORDED["owner"].lower()
            assert each.dataset == each.dataset.lower()


CONTENT = b'["a file"]'
CID = file_cid(CONTENT)


def gateway(answer: Callable[[httpx.Request], httpx.Response]) -> IpfsGateway:
    return IpfsGateway("http://gateway.example/", httpx.MockTransport(answer))


def test_a_gateway_is_asked_for_the_file_by_its_id() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=iter([CONTENT[:3], CONTENT[3:]]))

    assert gateway(answer).fetch(CID) == CONTENT
    assert asked == [f"http://gateway.example/ipfs/{CID}"]


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(2**16)


def broken(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("gone", request=request)


SILENT: dict[str, Callable[[httpx.Request], httpx.Response]] = {
    "404": lambda _: httpx.Response(404, content=iter([b"no link"])),
    "a redirect": lambda _: httpx.Response(302, headers={"location": "/elsewhere"}),
    "504": lambda _: httpx.Response(504),
    "a connection": broken,
    "another file": lambda _: httpx.Response(200, content=iter([b"<html>"])),
    "nothing": lambda _: httpx.Response(200, content=iter([b""])),
    "no end": lambda _: httpx.Response(200, content=endless()),
}


@pytest.mark.parametrize("what", SILENT)
def test_a_gateway_that_does_not_send_the_file_is_unavailable_and_nothing_is_refused(what: str) -> None:
    with pytest.raises(StorageUnavailable):
        gateway(SILENT[what]).fetch(CID)


def test_a_gateway_that_drips_is_left_when_the_files_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter(range(0, 1000, 3))
    monkeypatch.setattr("sms.ipfs.time", SimpleNamespace(monotonic=lambda: float(next(hours))))
    with pytest.raises(StorageUnavailable, match="takes more than 5 s"):
        gateway(lambda _: httpx.Response(200, content=iter([b"["] * 100))).fetch(CID)


def test_files_that_a_gateway_does_not_have_take_few_of_the_services_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a deal names the file: others would wait for theirs, and all who want no file too."""
    monkeypatch.setattr("sms.ipfs.MOST_WAITING", 0)
    monkeypatch.setattr("sms.ipfs.TURN_SECONDS", ample(600.0))
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        # As if another thread asked while the gateway looks for this one.
        asked.append(request.url.path)
        files.fetch(CID)
        return httpx.Response(404)

    files = gateway(answer)
    with pytest.raises(StorageUnavailable, match="too many files are asked for at a time"):
        files.fetch(CID)
    assert len(asked) == FETCHES_AT_ONCE


def test_a_refusal_names_the_dataset_and_the_contracts_words_in_the_log_alone(world: World) -> None:
    request, signature = world.prepare()
    against_it(world)
    with pytest.raises(NoSession, match="App restriction") as refused:
        world.service.open_session(request, signature)
    assert "key-1" not in str(refused.value)


@pytest.mark.parametrize("text", ["https://files.example/\\ud800", "\\udc00"])
def test_params_that_no_environment_can_hold_are_refused_and_not_asked_for_again(world: World, text: str) -> None:
    found = execution()
    params = f'{{"iexec_input_files": ["{text}"]}}'
    with pytest.raises(NoSession, match="no character") as refused:
        Wanted.of(with_deal(found, params=params), OWNER.wallet)
    assert refused.value.fields["error"] == SessionError.FAILED
