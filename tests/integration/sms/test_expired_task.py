"""A task whose real deadline passes on a real chain, while its machine has a session: the secret service and the
contract refuse what they took before.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from chain.contracts import calls
from ops.market import contracts, orders
from ops.market.match import match
from ops.market.orders import Offer
from ops.poco.deploy import CATEGORIES
from ops.poco.sender import TxRequest
from protocol.enclave.secrets import STORE_NAME, wallet_secret
from protocol.errors import TransactionReverted
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.authorization import sign_authorization
from protocol.poco.enclave import challenge_request, sign_result
from protocol.results.digest import file_digest
from protocol.types import Contract, Wallet
from tests.integration.conftest import Chain
from tests.integration.sms.service import serving
from tests.integration.sms.stock_sdks import TDX_TAG, fetch_session, session_request
from tests.waiting import until

#: Seconds of the category: votes last seven times as long.
SECONDS = 3
OWNER, REQUESTER, WORKER = 1, 2, 3
DIGEST = file_digest(b"\x07" * 32)


def test_once_a_tasks_deadline_has_passed_it_has_no_session_no_challenge_and_no_vote(
    chain: Chain, tmp_path: Path
) -> None:
    owner, requester, worker = (chain.sender(number) for number in (OWNER, REQUESTER, WORKER))
    category = calls.create_category("SHORT", "", SECONDS)
    chain.sender(0).run([TxRequest(chain.at.hub, category, 500_000)])
    hello = contracts.NewApp("hello", "docker.io/library/hello:1", orders.salt())
    app, workerpool = contracts.create(owner, chain.at, [hello, contracts.NewWorkerpool("test pool")])
    offer = Offer(
        orders.offer_app(chain.market, owner.key, app, tag=TDX_TAG),
        orders.offer_work(chain.market, owner.key, workerpool, category=len(CATEGORIES), trust=1, tag=TDX_TAG),
    )
    request = orders.request(chain.market, requester.key, offer, tag=TDX_TAG)
    with serving(chain, None, tmp_path / "sms") as sms:
        sms.keep(worker.key, wallet_secret(worker.wallet, STORE_NAME), b"a token")
        deal = match(requester, chain.market, [(offer, request)])[0]
        begin = calls.initialize_array([(deal.deal_id, 0)])
        owner.run([TxRequest(chain.at.hub, begin, calls.gas_limit("initializeArray", begin))])
        (task,) = deal.tasks
        ask = owner.key.sign_message(to_bytes(challenge_request(task)))
        challenge = Wallet(sms.post(f"/tee/challenges/{task}", ask).raise_for_status().text.lower())
        permission = sign_authorization(owner.key, worker.wallet, task, challenge)
        services = fetch_session(sms, worker.key, task, challenge, permission)
        enclave = Key.from_hex(services["post-compute"]["SIGN_TEE_CHALLENGE_PRIVATE_KEY"])
        data = calls.contribute_and_finalize(
            task,
            DIGEST,
            "0x",
            permission,
            enclave_challenge=Contract(challenge),
            enclave_signature=sign_result(enclave, worker.wallet, task, DIGEST),
        )
        # In time, the contract takes it.
        chain.rpc.call("eth_call", {"from": worker.wallet, "to": chain.at.hub, "data": data}, "latest")
        deadline = chain.hub.task_place(task).contribution_deadline

        def over() -> bool:
            newest = chain.rpc.call("eth_getBlockByNumber", "latest", False)
            return min(int(newest["timestamp"], 16), time.time()) > deadline

        until("the task's deadline", over, 10.0 * SECONDS)
        again = session_request(task, worker.key, challenge, permission)
        refused = sms.post("/tee/sessions", again.pop("signed"), json=again)
        assert (refused.status_code, refused.json()["error"]) == (401, "EXECUTION_NOT_AUTHORIZED_TASK_NOT_ACTIVE")
        untold = sms.post(f"/tee/challenges/{task}", ask)
        assert untold.status_code == 401
        assert challenge not in untold.text.lower()
    with pytest.raises(TransactionReverted):
        worker.run([TxRequest(chain.at.hub, data, calls.gas_limit("contributeAndFinalize", data))])
