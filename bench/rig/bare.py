"""Bare rates: what this machine's engine, node and database do by themselves, without Sluice.

What Sluice costs beyond them shows only against these, measured in the same run: machines differ by far more than
releases of Sluice do.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
from pymongo import WriteConcern
from pymongo.database import Database

from chain.lane.model.nonce import Fees
from chain.lane.rules.encoding import Call
from chain.lane.signer import KeySigner, Unsigned
from chain.rpc.answers import decode_replies, values
from chain.rpc.client import Rpc
from chain.rpc.heads import heads
from ops.poco.sender import BASE_FEE_FACTOR, TIP
from protocol.ethereum.signing import Key
from protocol.types import Nonce, Wei

#: Containers of one measurement: some ten seconds on two cores.
CONTAINERS = 40
#: Transactions in one request to the node.
_SENT_AT_ONCE = 100
#: Bytes of a bare document, about those of a task's; documents in one insert; and seconds that are measured.
_DOCUMENT_BYTES, _INSERTED_AT_ONCE, _INSERT_SECONDS = 1_000, 100, 3.0
#: What the demo's app reads.
_ENVIRONMENT = {
    "IEXEC_IN": "/iexec_in",
    "IEXEC_OUT": "/iexec_out",
    "IEXEC_BOT_TASK_INDEX": "0",
    "IEXEC_BOT_SIZE": "1",
    "IEXEC_DATASET_FILENAME": "",
    "IEXEC_INPUT_FILES_NUMBER": "0",
}


def containers_per_minute(docker_host: str, image: str, *, at_once: int, count: int = CONTAINERS) -> float:
    """Create, start, await, read and remove `count` containers of `image` that do nothing, `at_once` at a time.

    Nothing of the sandbox: Docker's own network and no limits, only the two folders that every app has.
    """
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor(at_once) as threads:
        folders = [Path(home) / str(number) for number in range(count)]
        for folder in folders:
            (folder / "in").mkdir(parents=True)
            (folder / "out").mkdir()
        api = docker.APIClient(base_url=docker_host, version="auto", num_pools=at_once)
        try:
            started = time.monotonic()
            for exit_code in threads.map(lambda folder: _run(api, image, folder), folders):
                assert exit_code == 0, f"a bare container of {image} ended with {exit_code}"
            seconds = time.monotonic() - started
        finally:
            api.close()
    return 60 * count / seconds


def _run(api: docker.APIClient, image: str, folder: Path) -> int:
    """One container's life; its exit code."""
    binds = [f"{folder / 'in'}:/iexec_in:ro", f"{folder / 'out'}:/iexec_out:rw"]
    made = api.create_container(
        image,
        command=["noop"],
        environment=_ENVIRONMENT,
        host_config=api.create_host_config(binds=binds),
    )
    container = str(made["Id"])
    api.start(container)
    exit_code = int(api.wait(container)["StatusCode"])
    api.logs(container)
    api.remove_container(container, v=True)
    return exit_code


def transactions_per_second(rpc: Rpc, ws_url: str, key: Key, chain_id: int, calls: Sequence[Call]) -> float:
    """Sign `calls` for the wallet of `key`, give them to the node, and wait until a block has the last of them.

    The rate counts from the first one sent: signing is not in it. The wallet must be nobody else's meanwhile.
    """
    replies = rpc.batch(
        [("eth_getTransactionCount", (key.wallet, "latest")), ("eth_getBlockByNumber", ("latest", False))]
    )
    count, block = values(decode_replies(replies, lambda answer: answer), rpc.name)
    first = int(count, 16)
    fees = Fees(Wei(BASE_FEE_FACTOR * int(block["baseFeePerGas"], 16) + TIP), TIP)
    signed = KeySigner(key).sign(
        [
            Unsigned(chain_id, Nonce(nonce), call.to, call.data, call.gas, fees, call.value)
            for nonce, call in enumerate(calls, start=first)
        ]
    )
    started = time.monotonic()
    for place in range(0, len(signed), _SENT_AT_ONCE):
        sent = [("eth_sendRawTransaction", (attempt.raw,)) for attempt in signed[place : place + _SENT_AT_ONCE]]
        values(decode_replies(rpc.batch(sent), str), rpc.name)
    stop = threading.Event()
    for _ in heads(ws_url, rpc, 1.0, stop):
        if int(rpc.call("eth_getTransactionCount", key.wallet, "latest"), 16) >= first + len(calls):
            stop.set()
    return len(calls) / (time.monotonic() - started)


def inserts_per_second(database: Database[Any]) -> float:
    """Documents that the database stores durably a second, one client, many at a time; it is given and then dropped a
    collection of its own.
    """
    rows = database.get_collection("bare", write_concern=WriteConcern(w="majority", j=True))
    body, stored = "x" * _DOCUMENT_BYTES, 0
    started = time.monotonic()
    while (seconds := time.monotonic() - started) < _INSERT_SECONDS:
        rows.insert_many([{"body": body} for _ in range(_INSERTED_AT_ONCE)])
        stored += _INSERTED_AT_ONCE
    rows.drop()
    return stored / seconds
