"""A secret service in memory, and one open TDX task on a scripted chain."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chain.contracts.hub import App, Dataset, Deal, TaskPlace
from config.http_server.rates import RateLimits
from config.key_ring import KeyFile, RingKey
from config.settings import read_settings
from config.values.sms_settings import read_sms_settings
from protocol.enclave.secrets import RESULT_KEY_NAME, STORE_NAME, SecretId, storing_hash, wallet_secret
from protocol.enclave.session import SessionRequest, SignatureValue
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.authorization import authorization_hash, sign_authorization
from protocol.poco.enclave import challenge_request
from protocol.poco.ids import task_id
from protocol.poco.view import TaskStatus
from protocol.types import Contract, DealId, Hash32, NRlc, Signature, Timestamp, Wallet
from sms.chain import Execution
from sms.properties import read_properties
from sms.provision import Simulated
from sms.serve import rates_of
from sms.service import SecretService
from sms.testing import MemoryFiles, MemorySecretStore, ScriptedChain
from sms.vault import Vault

OWNER, STRANGER, REQUESTER, WORKER, POOL = (Key(bytes([number]) * 32) for number in range(1, 6))
DATASET, APP = Contract("0x" + "da" * 20), Contract("0x" + "a1" * 20)
DEAL = DealId("0x" + "de" * 32)
TASK = task_id(DEAL, 3)
TDX_TAG = Hash32("0x" + "0" * 63 + "9")
NOW = 1_700_000_000.0
CHECKSUM = Hash32("0x" + "cc" * 32)


class Clock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def execution(**params: Any) -> Execution:
    """The open task, with these deal params."""
    deal = Deal(
        deal_id=DEAL,
        app=APP,
        app_owner=OWNER.wallet,
        app_price=NRlc(0),
        dataset=DATASET,
        dataset_owner=OWNER.wallet,
        dataset_price=NRlc(0),
        workerpool=Contract("0x" + "b0" * 20),
        workerpool_owner=POOL.wallet,
        workerpool_price=NRlc(0),
        trust=1,
        category=0,
        tag=TDX_TAG,
        requester=REQUESTER.wallet,
        beneficiary=REQUESTER.wallet,
        callback=None,
        params=json.dumps({"iexec_result_storage_provider": "ipfs", **params}),
        start_time=Timestamp(int(NOW) - 10),
        bot_first=3,
        bot_size=1,
        worker_stake=NRlc(0),
        scheduler_reward_ratio=1,
        sponsor=REQUESTER.wallet,
    )
    place = TaskPlace(DEAL, 3, TaskStatus.ACTIVE, Timestamp(int(NOW) + 70), Timestamp(int(NOW) + 100))
    app = App(APP, OWNER.wallet, "app", "DOCKER", "registry.example/app:1", CHECKSUM, b"")
    dataset = Dataset(DATASET, OWNER.wallet, "data", "/ipfs/Qm", CHECKSUM)
    return Execution(TASK, place, deal, app, dataset)


def with_deal(found: Execution, **fields: Any) -> Execution:
    return replace(found, deal=replace(found.deal, **fields))


def with_place(found: Execution, **fields: Any) -> Execution:
    return replace(found, place=replace(found.place, **fields))


@dataclass(frozen=True)
class World:
    """The service and its parts."""

    service: SecretService
    store: MemorySecretStore
    chain: ScriptedChain
    files: MemoryFiles
    clock: Clock
    rates: RateLimits

    @classmethod
    def of(cls, folder: Path, **more: object) -> World:
        """`more`: settings of the service."""
        sms = read_sms_settings(simulation=True, rate_secrets="1000/minute", **more)
        settings = read_settings(home=folder)
        store, clock = MemorySecretStore(), Clock()
        chain = ScriptedChain({DATASET: OWNER.wallet, APP: OWNER.wallet}, {TASK: execution()})
        keys = KeyFile(folder / "sms.keys", RingKey, setting="SLUICE_SMS_KEY_FILE", fix="-")
        files, vault = MemoryFiles(), Vault(keys)
        service = SecretService(store, vault, chain, Simulated(store, "http://sms"), read_properties(sms), files, clock)
        return cls(service, store, chain, files, clock, rates_of(settings, sms))

    def keep(self, key: Key, secret: SecretId, value: bytes) -> None:
        """Store a secret as its owner."""
        self.service.add(secret, value, sign_secret(key, secret, value))

    def challenge(self) -> Wallet:
        """The task's challenge, asked for by the pool."""
        return self.service.challenge(TASK, POOL.sign_message(to_bytes(challenge_request(TASK))))

    def prepare(self) -> tuple[SessionRequest, Signature]:
        """A worker's good request, of a worker that has stored its token."""
        self.keep(WORKER, wallet_secret(WORKER.wallet, STORE_NAME), b"worker-token")
        return ask(self.challenge())


def ask(
    challenge: Wallet, *, pool: Key = POOL, worker: Key = WORKER, signer: Key | None = None
) -> tuple[SessionRequest, Signature]:
    """A request for a session, and its header. `signer`: who signs in place of the worker."""
    request = SessionRequest(
        chain_task_id=TASK,
        worker_wallet=worker.wallet,
        enclave_challenge=challenge,
        signature=SignatureValue(value=sign_authorization(pool, worker.wallet, TASK, challenge)),
    )
    return request, (signer or worker).sign_message(to_bytes(authorization_hash(*request.subject)))


def sign_secret(key: Key, secret: SecretId, value: bytes) -> Signature:
    return key.sign_message(to_bytes(storing_hash(secret, value)))


RESULT_KEY = wallet_secret(REQUESTER.wallet, RESULT_KEY_NAME)
