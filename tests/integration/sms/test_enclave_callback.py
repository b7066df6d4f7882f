"""A confidential task whose result a contract gets: by a machine with simulated enclaves, the real secret service and
engine, our images, and the contracts.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from protocol.ethereum.hexbytes import to_bytes
from protocol.poco.orders import NO_DATASET
from protocol.poco.seal import result_hash
from protocol.poco.view import TaskStatus
from protocol.results.digest import callback_digest
from protocol.types import Contract, Wallet
from tests.integration.sms.test_enclave_machine import SECRETS, Scene, confidential, said, scene
from tests.integration.workers.conftest import engine_host

__all__ = ["engine_host", "scene"]

#: A contract that keeps what `receiveResult(bytes32 id, bytes result)` is called with: the id at 0, the result's first
#: 32 bytes at 1.
RECEIVER, PROGRAM = Contract("0x" + "ca" * 20), "0x60043560005560643560015500"
#: Proves that it had the secrets without saying them.
APP = (
    'echo {\\"callback-data\\": \\"0x$(printf %s $IEXEC_APP_DEVELOPER_SECRET $IEXEC_REQUESTER_SECRET_1 | sha256sum'
    ' | head -c 64)\\"} > /iexec_out/computed.json'
)


def test_a_contract_gets_the_result_that_an_enclave_signed(scene: Scene) -> None:
    rpc = scene.shop.chain.rpc
    rpc.call("anvil_setCode", RECEIVER, PROGRAM)
    params = {"iexec_args": f"sh -c '{APP}'", "iexec_secrets": {"1": "mine"}}
    deal = confidential(scene.shop, json.dumps(params), NO_DATASET, volume=1, callback=RECEIVER)
    scene.shop.initialize(deal)
    given = replace(scene, deal=deal, params=json.dumps(params), dataset=None, callback=RECEIVER).orders(0)
    given.begin()
    assert scene.run(given) == 0, said(scene)

    answer = "0x" + hashlib.sha256(SECRETS[1] + SECRETS[2]).hexdigest()
    (task,) = deal.tasks
    view = scene.shop.view(task)
    assert view.status is TaskStatus.COMPLETED
    assert view.consensus == result_hash(task, callback_digest(answer))
    assert [rpc.call("eth_getStorageAt", RECEIVER, slot, "latest") for slot in ("0x0", "0x1")] == [task, answer]
    attested, stored = scene.pool.stored[-1]
    assert attested.digest == callback_digest(answer)
    attested.require_by(Wallet(given.assignment.enclave_challenge), scene.shop.worker(0).wallet, task)
    assert stored
    assert len(to_bytes(answer)) == 32
    scene.no_trace(*SECRETS)
    scene.no_container()
