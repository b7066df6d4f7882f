"""The secret service: who stores which secret, who gets a challenge or a session, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from config.key_ring import KeyFile, RingKey
from config.values.sms_settings import read_sms_settings
from protocol.enclave.secrets import (
    STORE_NAME,
    app_secret,
    dataset_key,
    requester_secret,
    wallet_secret,
)
from protocol.enclave.session import APP as APP_SERVICE
from protocol.enclave.session import POST_COMPUTE, PRE_COMPUTE, Session, SessionError, fetching_hash
from protocol.errors import (
    BadSetting,
    NoSession,
    NotFound,
    NotPossible,
    NotSignedIn,
    RpcUnavailable,
    TooLarge,
    Unavailable,
    WrongChain,
)
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key
from protocol.poco.enclave import challenge_request
from protocol.poco.view import TaskStatus
from protocol.types import Contract, Hash32, Timestamp
from sms.chain import Execution
from sms.challenges import KEPT_SECONDS, challenge_place
from sms.serve import require_own_chain, require_own_keys
from sms.service import SESSION_SECONDS
from sms.vault import Vault
from tests.unit.sms.world import (
    APP,
    DATASET,
    NOW,
    OWNER,
    REQUESTER,
    RESULT_KEY,
    STRANGER,
    TASK,
    WORKER,
    World,
    ask,
    execution,
    sign_secret,
    with_deal,
    with_place,
)

REQUESTERS = requester_secret(REQUESTER.wallet, "mine")
SECRETS = {"dataset": dataset_key(DATASET), "app": app_secret(APP), "requester": REQUESTERS, "wallet": RESULT_KEY}
OWNERS = {"dataset": OWNER, "app": OWNER, "requester": REQUESTER, "wallet": REQUESTER}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.of(tmp_path)


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_stored_by_its_owner_and_by_nobody_else(world: World, kind: str) -> None:
    secret = SECRETS[kind]
    for other in {STRANGER, WORKER} | ({REQUESTER} if OWNERS[kind] is OWNER else {OWNER}):
        with pytest.raises(NotSignedIn):
            world.service.add(secret, b"v", sign_secret(other, secret, b"v"))
    with pytest.raises(NotSignedIn):
        world.service.add(secret, b"another value", sign_secret(OWNERS[kind], secret, b"v"))
    with pytest.raises(NotSignedIn):
        world.service.add(secret, b"v", "0x1234")
    assert not world.service.has(secret)
    world.keep(OWNERS[kind], secret, b"v")
    assert world.service.has(secret)


@pytest.mark.parametrize("kind", SECRETS)
def test_what_is_stored_is_never_stored_again(world: World, kind: str) -> None:
    world.keep(OWNERS[kind], SECRETS[kind], b"first")
    with pytest.raises(NotPossible):
        world.keep(OWNERS[kind], SECRETS[kind], b"second")


def test_only_a_wallets_secret_for_the_services_can_be_changed_and_only_if_it_is_there(world: World) -> None:
    for kind, secret in SECRETS.items():
        signature = sign_secret(OWNERS[kind], secret, b"new")
        with pytest.raises(NotFound if kind == "wallet" else NotPossible):
            world.service.change(secret, b"new", signature)
    world.keep(REQUESTER, RESULT_KEY, b"old")
    with pytest.raises(NotSignedIn):
        world.service.change(RESULT_KEY, b"new", sign_secret(STRANGER, RESULT_KEY, b"new"))
    world.service.change(RESULT_KEY, b"new", sign_secret(REQUESTER, RESULT_KEY, b"new"))
    row = world.store.rows[RESULT_KEY.key]
    assert world.service.vault.open(row.sealed, row.place) == b"new"


def test_an_owner_that_no_node_tells_is_not_taken_for_another(world: World) -> None:
    unknown = dataset_key(Contract("0x" + "00" * 20))
    with pytest.raises(RpcUnavailable):
        world.keep(OWNER, unknown, b"v")


def test_a_secret_too_large_is_refused_before_the_chain_is_asked(world: World) -> None:
    with pytest.raises(TooLarge):
        world.service.add(dataset_key(Contract("0x" + "00" * 20)), b"v" * 5000, "0x")


def test_a_task_has_one_challenge_which_is_forgotten_after_its_deadline(world: World) -> None:
    first = world.challenge()
    assert world.challenge() == first
    row = world.store.rows[challenge_place(TASK)]
    assert row.ends_at == NOW + 100 + KEPT_SECONDS
    assert Key(world.service.vault.open(row.sealed, row.place)).wallet == first


@pytest.mark.parametrize("who", [STRANGER, WORKER, OWNER], ids=["stranger", "worker", "owner"])
def test_a_challenge_is_for_the_owner_of_the_tasks_workerpool(world: World, who: Key) -> None:
    with pytest.raises(NoSession):
        world.service.challenge(TASK, who.sign_message(to_bytes(challenge_request(TASK))))
    assert not world.store.rows


CLOSED: dict[str, tuple[Callable[[Execution], Execution], SessionError]] = {
    "completed": (lambda found: with_place(found, status=TaskStatus.COMPLETED), SessionError.TASK_NOT_ACTIVE),
    "failed": (lambda found: with_place(found, status=TaskStatus.FAILED), SessionError.TASK_NOT_ACTIVE),
    "too late": (
        lambda found: with_place(found, contribution_deadline=Timestamp(int(NOW))),
        SessionError.TASK_NOT_ACTIVE,
    ),
    "standard": (lambda found: with_deal(found, tag=Hash32("0x" + "0" * 64)), SessionError.NOT_A_TEE_TASK),
    "of SCONE": (lambda found: with_deal(found, tag=Hash32("0x" + "0" * 63 + "3")), SessionError.NOT_A_TEE_TASK),
    "of no kind": (lambda found: with_deal(found, tag=Hash32("0x" + "0" * 63 + "1")), SessionError.NOT_A_TEE_TASK),
    "another pool": (lambda found: with_deal(found, workerpool_owner=STRANGER.wallet), SessionError.INVALID_SIGNATURE),
}


@pytest.mark.parametrize("what", CLOSED)
def test_no_session_is_made_of_a_task_that_is(world: World, what: str) -> None:
    request, signature = world.prepare()
    world.keep(OWNER, dataset_key(DATASET), b"key")
    change, error = CLOSED[what]
    world.chain.executions[TASK] = change(execution())
    assert refusal(world, request, signature) == error


def test_a_worker_gets_a_session_by_its_own_signature_and_its_pools_only(world: World) -> None:
    world.prepare()
    challenge = world.challenge()
    other = Key(b"\x09" * 32).wallet
    assert refusal(world, *ask(challenge, signer=STRANGER)) == SessionError.INVALID_AUTHORIZATION
    assert refusal(world, *ask(challenge, pool=STRANGER)) == SessionError.INVALID_SIGNATURE
    assert refusal(world, *ask(other)) == SessionError.NO_CHALLENGE
    del world.store.rows[challenge_place(TASK)]
    assert refusal(world, *ask(challenge)) == SessionError.NO_CHALLENGE


def test_a_task_that_no_node_tells_is_neither_over_nor_open(world: World) -> None:
    request, signature = world.prepare()
    del world.chain.executions[TASK]
    with pytest.raises(RpcUnavailable):
        world.service.open_session(request, signature)


def test_a_session_holds_each_secret_where_it_is_used_and_nowhere_else(world: World) -> None:
    world.chain.executions[TASK] = execution(
        iexec_secrets={"2": "mine", "3": "not stored", "x": "no number"},
        iexec_result_encryption=True,
        iexec_input_files=["https://a.example/1"],
    )
    request, signature = world.prepare()
    world.keep(OWNER, dataset_key(DATASET), b"dataset-key")
    world.keep(OWNER, app_secret(APP), b"developers")
    world.keep(REQUESTER, REQUESTERS, b"requesters")
    world.keep(REQUESTER, RESULT_KEY, b"result-key")
    session = fetch(world, world.service.open_session(request, signature).session_id)
    pre, app, post = (services(session)[name] for name in (PRE_COMPUTE, APP_SERVICE, POST_COMPUTE))
    key = world.service.vault.open(world.store.rows[challenge_place(TASK)].sealed, challenge_place(TASK))
    assert pre["IEXEC_DATASET_KEY"] == "dataset-key"
    assert (pre["IEXEC_DATASET_URL"], pre["IEXEC_INPUT_FILE_URL_1"]) == ("/ipfs/Qm", "https://a.example/1")
    assert (app["IEXEC_APP_DEVELOPER_SECRET"], app["IEXEC_APP_DEVELOPER_SECRET_1"]) == ("developers", "developers")
    assert app["IEXEC_REQUESTER_SECRET_2"] == "requesters"
    assert (app["IEXEC_TASK_ID"], app["IEXEC_BOT_SIZE"], app["IEXEC_DATASET_FILENAME"]) == (TASK, "1", DATASET)
    assert (post["RESULT_ENCRYPTION"], post["RESULT_ENCRYPTION_PUBLIC_KEY"]) == ("true", "result-key")
    assert (post["RESULT_STORAGE_PROVIDER"], post["RESULT_STORAGE_TOKEN"]) == ("ipfs", "worker-token")
    assert pre["SIGN_TEE_CHALLENGE_PRIVATE_KEY"] == post["SIGN_TEE_CHALLENGE_PRIVATE_KEY"] == "0x" + key.hex()
    assert pre["SIGN_WORKER_ADDRESS"] == WORKER.wallet
    everywhere = [{*pre.values()}, {*app.values()}, {*post.values()}]
    for value, places in {
        "dataset-key": [True, False, False],
        "developers": [False, True, False],
        "requesters": [False, True, False],
        "result-key": [False, False, True],
        "worker-token": [False, False, True],
        "0x" + key.hex(): [True, False, True],
    }.items():
        assert [value in values for values in everywhere] == places, value
    assert "dataset-key" not in repr(session)


def test_a_task_without_dataset_and_input_files_has_no_pre_compute(world: World) -> None:
    world.chain.executions[TASK] = replace(with_deal(execution(), dataset=None), dataset=None)
    request, signature = world.prepare()
    session = fetch(world, world.service.open_session(request, signature).session_id)
    assert list(services(session)) == [APP_SERVICE, POST_COMPUTE]


def test_what_is_missing_is_said_in_iexecs_words(world: World) -> None:
    request, signature = world.prepare()
    assert refusal(world, request, signature) == SessionError.NO_DATASET_KEY
    world.keep(OWNER, dataset_key(DATASET), b"key")
    world.chain.executions[TASK] = execution(iexec_result_encryption=True)
    assert refusal(world, request, signature) == SessionError.NO_RESULT_KEY
    world.chain.executions[TASK] = execution()
    del world.store.rows[wallet_secret(WORKER.wallet, STORE_NAME).key]
    assert refusal(world, request, signature) == SessionError.NO_STORAGE_TOKEN


def test_a_simulated_session_is_fetched_once_by_its_worker_while_it_is_fresh(world: World) -> None:
    request, signature = world.prepare()
    world.keep(OWNER, dataset_key(DATASET), b"key")
    session_id = world.service.open_session(request, signature).session_id
    fetch(world, session_id)
    with pytest.raises(NotFound):
        fetch(world, session_id)
    session_id = world.service.open_session(request, signature).session_id
    world.clock.now += SESSION_SECONDS
    with pytest.raises(NotFound):
        fetch(world, session_id)


def test_neither_a_stranger_nor_a_chain_that_does_not_answer_uses_a_session_up(world: World) -> None:
    request, signature = world.prepare()
    world.keep(OWNER, dataset_key(DATASET), b"key")
    session_id = world.service.open_session(request, signature).session_id
    with pytest.raises(NotSignedIn):
        fetch(world, session_id, STRANGER)
    task = world.chain.executions.pop(TASK)
    with pytest.raises(Unavailable):
        fetch(world, session_id)
    world.chain.executions[TASK] = task
    assert fetch(world, session_id).name == session_id


def test_a_database_serves_the_chain_that_it_was_first_used_for_and_no_other(world: World) -> None:
    require_own_chain(world.store, 134, read_sms_settings())
    require_own_chain(world.store, 134, read_sms_settings())
    with pytest.raises(WrongChain, match="sluice_sms holds secrets of chain 134"):
        require_own_chain(world.store, 31337, read_sms_settings())


def test_a_key_file_that_opens_nothing_of_the_database_is_refused_before_anything_is_stored_with_it(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    new = Vault(KeyFile(tmp_path / "new" / "keys", RingKey, setting="SLUICE_SMS_KEY_FILE", fix="-"))
    require_own_keys(world.store, new, read_sms_settings())
    world.keep(REQUESTER, REQUESTERS, b"value")
    with pytest.raises(BadSetting, match=r"SLUICE_SMS_KEY_FILE.*opens nothing"):
        require_own_keys(world.store, new, read_sms_settings())
    require_own_keys(world.store, world.service.vault, read_sms_settings())
    world.service.vault.keys.add(NOW, keep=list)
    require_own_keys(world.store, world.service.vault, read_sms_settings())


def test_no_log_line_and_no_error_holds_a_value(world: World) -> None:
    secret, value = REQUESTERS, b"never in a log"
    with structlog.testing.capture_logs() as lines:
        world.keep(REQUESTER, secret, value)
        request, signature = world.prepare()
        with pytest.raises(NoSession) as refused:
            world.service.open_session(request, signature)
        with pytest.raises(NotPossible) as twice:
            world.keep(REQUESTER, secret, value)
    said = f"{lines} {refused.value!r} {twice.value!r} {world.store.rows!r}"
    assert "secret_stored" in said
    assert "never in a log" not in said
    assert "worker-token" not in said


def refusal(world: World, *request: object) -> object:
    with pytest.raises(NoSession) as refused:
        world.service.open_session(*request)  # type: ignore[arg-type]
    return refused.value.fields["error"]


def fetch(world: World, session_id: str, worker: Key = WORKER) -> Session:
    return world.service.take_session(session_id, worker.sign_message(to_bytes(fetching_hash(session_id))))


def services(session: Session) -> dict[str, dict[str, str]]:
    return {service.name: service.environment for service in session.services}
