"""Troubles that an operator meets once a year: the right cause, in words, and the alert that begins.

A small pool has each in turn; one that it does not get over comes last.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from eth_abi.abi import encode

from ops.market import orders
from ops.market.match import match
from ops.poco.sender import DirectSender, TxRequest
from ops.poco.state import PocoState
from ops.stack.stack import Stack
from pipeline.flow.orders.keep import keep_orders
from protocol.ethereum.signing import Key
from protocol.types import Contract
from tests.faulty import Answer, answers
from tests.faulty.market import market_api
from tests.integration.conftest import _database
from tests.integration.pipeline.conftest import OWNER, PRICE, REQUESTER, WORKERS
from tests.integration.pipeline.trouble.operated_pool import CATEGORY, XS, OperatedPool, open_operated_pool
from tests.integration.pipeline.trouble.shell import Shell
from tests.waiting import ample

#: Steps for longer than a part may be away without a hold; seconds of each.
AWAY_STEPS, AWAY_SECONDS = 8, 8.0
#: `safeTransferFrom` would ask the new owner; a workerpool is an ERC-721 token.
TRANSFER = "0x23b872dd"
POLICY = """
market = "{url}"
steady_seconds = 1
[[offer]]
category = {category}
price = "{price} nRLC"
"""


@pytest.fixture(scope="module")
def operated(poco_state: PocoState, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatedPool]:
    home = tmp_path_factory.mktemp("operated")
    with (
        _database(stack) as (database, _),
        open_operated_pool(poco_state, stack, database, home, machines=3, tasks=8) as opened,
    ):
        yield opened


def test_the_market_refuses_the_pools_orders(operated: OperatedPool, shell: Shell, tmp_path: Path) -> None:
    pool, file = operated.pool, tmp_path / "orders.toml"
    # More than the tasks that wait.
    for _ in range(4):
        operated.wallets.append(Key(secrets.token_bytes(32)).wallet)
        operated.sign_in(len(operated.wallets) - 1)
    operated.step(2)
    with market_api(pool.chain.rpc, pool.chain.at.hub, pool.settings.chain_id) as market:
        file.write_text(POLICY.format(url=market.url, category=XS, price=PRICE))
        scheduler = replace(pool.scheduler, settings=pool.settings.model_copy(update={"orders_file": file}))
        market.down = Answer(403, b'{"ok":false,"error":"the workerpool is not allowed here"}')
        with operated.restarted_with(orders_file=file):
            shell.says("orders publish", "The offers are looked at now.")
            keep_orders(scheduler)
            shell.says("orders ls", "not allowed here")
        file.write_text(f'market = "{market.url}"\nprice = 1\n')
        with operated.restarted_with(orders_file=file):
            shell.says("orders plan", "The policy cannot be read", code=1)
            shell.says("orders publish", "The policy cannot be read")
    shell.says("orders publish", "No market is set in SLUICE_ORDERS_FILE")


def test_the_workerpool_has_a_new_owner(operated: OperatedPool, shell: Shell) -> None:
    """Before the pool's clock is a minute ahead: by the machine's own, such a deal is read again after that time."""
    pool = operated.pool
    workerpool, old, new = (
        Contract(str(pool.settings.workerpool)),
        pool.chain.sender(OWNER),
        pool.chain.sender(WORKERS[0]),
    )

    def give(giver: DirectSender, taker: DirectSender) -> None:
        moved = encode(["address", "address", "uint256"], [giver.wallet, taker.wallet, int(workerpool, 16)])
        giver.send([TxRequest(pool.chain.at.workerpool_registry, TRANSFER + moved.hex(), 200_000)])
        pool.now = max(pool.now, operated.head_time())

    give(old, new)
    market = pool.chain.market
    offer = orders.Offer(
        orders.offer_app(market, old.key, pool.app),
        orders.offer_work(market, new.key, workerpool, category=XS, price=PRICE),
    )
    requester = pool.chain.sender(REQUESTER)
    (deal,) = match(requester, market, [(offer, orders.request(market, requester.key, offer, trust=1, volume=1))])
    pool.now = max(pool.now, operated.head_time())
    operated.step(6, AWAY_SECONDS)
    shell.says("status", "ownership: the wallet", f"its owner is {new.wallet}", "SLUICE_KEYSTORE", code=1)
    shell.says("status", "quarantine: 1 row", code=1)
    shell.says(
        f"explain {deal.deal_id}", "It cannot be served", f"{new.wallet} owned the workerpool when it was matched"
    )
    shell.says("scheduler doctor", "bad ownership", code=1)
    shell.alarms("SluicePartNotWell", "SluiceRowsQuarantined")
    give(new, old)
    pool.store._db["quarantine"].delete_many({})
    pool.store._db["deals"].delete_one({"_id": deal.deal_id})
    operated.step(6, AWAY_SECONDS)


def test_no_gas_and_no_ipfs_at_once(operated: OperatedPool, shell: Shell) -> None:
    chain, wallet = operated.pool.chain, operated.pool.scheduler.key.wallet
    held = chain.rpc.call("eth_getBalance", wallet, "latest")
    chain.rpc.call("anvil_setBalance", wallet, hex(1000))
    operated.pool.ipfs.away = True
    deal = operated.pool.buy(CATEGORY)
    operated.step(AWAY_STEPS, AWAY_SECONDS)
    shell.says("status", "ipfs: IPFS at http", "HTTP status 500. Start it", "gas: the wallet holds 1000 wei", code=1)
    assert shell.health() == {"ipfs", "gas", "lane"}
    shell.says("pool status", "Holding since", "ipfs: IPFS", code=1)
    shell.says(f"explain {deal.tasks[0]}", "The pool holds and begins nothing new: ipfs")
    shell.says("tx ls", "fund the wallet")
    shell.alarms("SluicePartNotWell", "SluiceHolding", "SluiceGasOut", "SluiceGasLow")
    operated.pool.ipfs.away = False
    operated.step(2)
    # What is left of the two.
    shell.says(f"explain {deal.tasks[0]}", "not enough money to send: fund the wallet")
    chain.rpc.call("anvil_setBalance", wallet, held)
    operated.step(3)


def test_the_schedulers_clock_is_off(operated: OperatedPool, shell: Shell) -> None:
    operated.pool.ahead = 100.0
    operated.step(AWAY_STEPS, AWAY_SECONDS)
    why = "this machine's clock is 100 s ahead of the chain's and that of MongoDB and RabbitMQ"
    shell.says("status", f"clock: {why}. Set the clock", f"begins nothing new: clock: {why}", code=1)
    shell.says("pool status", "Holding since", why, code=1)
    shell.says(f"explain {operated.bulk.tasks[-1]}", f"The pool holds and begins nothing new: clock: {why}")
    shell.says("chain status", "or this machine's clock is ahead", code=1)
    operated.pool.ahead = 0.0
    operated.step(3)


def test_rabbitmqs_user_has_no_rights(operated: OperatedPool, shell: Shell) -> None:
    settings = operated.pool.settings
    amqp, user = urlsplit(settings.amqp_url.get_secret_value()), f"poor-{secrets.token_hex(4)}"
    there, auth = f"{settings.rabbitmq_api}/api/users/{user}", (str(amqp.username), str(amqp.password))
    given = {"password": secrets.token_hex(8), "tags": "management"}
    httpx.put(there, auth=auth, json=given, timeout=ample(5.0)).raise_for_status()
    url = f"amqp://{user}:{given['password']}@{amqp.hostname}:{amqp.port}"
    try:
        # No scheduler runs where this one looks for it.
        with shell.told(SLUICE_AMQP_URL=url, SLUICE_OPERATIONS_PORT="1"):
            shell.says("scheduler doctor", "bad rabbitmq", "not tagged administrator", "set_user_tags", code=1)
    finally:
        httpx.delete(there, auth=auth, timeout=ample(5.0)).raise_for_status()


def test_words_that_name_nothing(shell: Shell) -> None:
    shell.says("explain nonsense", "id is wrong: it is 0x and hex digits", code=2)
    shell.says("explain 0x1234", "No such task or deal that begins with 0x1234", code=2)
    shell.says("task ls --stage NONSENSE", "stage is wrong: Input should be 'RECEIVED'", code=2)


def test_half_of_the_machines_are_gone_while_the_pool_is_paused(operated: OperatedPool, shell: Shell) -> None:
    for wallet in operated.wallets[:-1]:
        operated.pool.store.workers.set_banned(wallet, banned=True)
    shell.says("pool pause", "paused")
    deal = operated.pool.buy(CATEGORY)
    operated.step(2)
    shell.says("status", "pause: the pool was paused", f"{len(operated.wallets) - 1} banned", code=1)
    shell.says("pool status", "Paused since", code=1)
    shell.says("task ls --stage RECEIVED", deal.tasks[0])
    shell.says(f"explain {deal.tasks[0]}", "paused", "sluice pool resume")
    shell.alarms("SluicePaused", "SluiceMachinesLost")
    shell.says("pool resume", "takes work")
    for number, wallet in enumerate(operated.wallets):
        operated.pool.store.workers.set_banned(wallet, banned=False)
        operated.sign_in(number)
    operated.step(2)


def test_the_node_answers_nothing_but_that_it_is_busy(operated: OperatedPool, shell: Shell) -> None:
    operated.pool.node.fault = answers.status(503)
    operated.step(AWAY_STEPS, AWAY_SECONDS)
    shell.says("status", "chain: ", "SLUICE_RPC_URL", code=1)
    shell.says("chain status", "503", code=1)
    shell.alarms("SluiceNodeFails")
    operated.pool.node.fault = answers.honest
    operated.step(3)


def test_the_database_is_of_another_chain(operated: OperatedPool, shell: Shell) -> None:
    database = operated.pool.store._db
    database["blocks"].update_many({}, {"$set": {"hash": f"0x{'cd' * 32}"}})
    database["cursors"].update_one({"_id": "watch"}, {"$set": {"hash": f"0x{'ab' * 32}"}})
    operated.step()
    shell.says("chain status", "If this stays, the database is of another chain: see `sluice chain audit`.", code=1)
    shell.says("chain audit", "The chain is not the one the settings describe", "SLUICE_MONGODB_DATABASE", code=1)
