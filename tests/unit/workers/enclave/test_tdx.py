"""TDX without a TDX host: a guest that is played, and an agent that is a shell script."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.enclave.session import APP, Service, Session, SessionPlace
from protocol.errors import Unavailable
from protocol.poco.enclave import recover_enclave
from protocol.results.digest import file_digest
from protocol.types import Wallet
from tests.unit.sms.world import TASK, WORKER
from tests.unit.workers.enclave.machine import ANSWER_SHA256, Bench
from tests.unit.workers.enclave.service import Wire
from workers.enclave import tdx
from workers.enclave.tdx import AgentGuest, Tdx
from workers.task.replicate import ReplicateStage

PLACE = SessionPlace(session_id="abcdef00000x1b", secret_provisioning_url="https://attests.example:9000")
SESSION = Session(
    name=PLACE.session_id,
    services=(Service(name=APP, image_name="app:1", fingerprint="", environment={"SECRET": "planted-secret"}),),
)


class PlayedGuest:
    """A guest that any service trusts: it fetches sessions as a machine that simulates does."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.places = wire, list[SessionPlace]()

    def missing(self) -> list[str]:
        return []

    def session(self, place: SessionPlace) -> Session:
        self.places.append(place)
        if len(self.places) == 1:
            raise Unavailable(what="the agent for sessions", why="it ended with exit code 1")
        return self.wire.api.take_session(place)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, monkeypatch)
    yield made
    made.journal.close()


def test_a_task_is_done_with_the_session_that_the_guest_gets_and_an_agent_that_fails_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.enclave.ask.backoff", lambda _: 0.0)
    guest = PlayedGuest(bench.wire)
    bench.machine.framework = Tdx(bench.wire.api, guest)
    bench.wire.api.store_token()
    found = bench.replicate()
    assert found.stage is ReplicateStage.COMPUTED, found.cause
    assert found.digest == file_digest(ANSWER_SHA256)
    assert found.enclave_signature is not None
    signer = recover_enclave(found.enclave_signature, WORKER.wallet, TASK, found.digest)
    assert signer == Wallet(found.assignment.enclave_challenge)
    # Another session for another try.
    assert len({place.session_id for place in guest.places}) == 2


def agent(root: Path, script: str) -> AgentGuest:
    """A guest whose agent is this script."""
    for folder in ("usr/local/bin", "dev/shm"):
        (root / folder).mkdir(parents=True)
    program = root / "usr/local/bin/secret_provider_agent"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return AgentGuest(root)


def test_the_agent_is_asked_as_iexecs_worker_asks_it_and_nothing_of_its_session_stays(tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text(SESSION.model_dump_json())
    guest = agent(
        tmp_path, f'echo "$@" > {tmp_path}/asked; cp {tmp_path}/prepared "$6"; pwd > {tmp_path}/folder; cat "$6"'
    )
    assert guest.session(PLACE) == SESSION
    asked = f"-e {PLACE.secret_provisioning_url} -i {PLACE.session_id} -s session.json -v nullverifier"
    assert (tmp_path / "asked").read_text().strip() == asked
    assert (tmp_path / "folder").read_text().startswith(str(tmp_path / "dev/shm"))
    assert list((tmp_path / "dev/shm").iterdir()) == []


def test_a_session_of_a_worker_that_was_killed_goes_with_the_next_and_one_in_use_stays(tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text(SESSION.model_dump_json())
    guest = agent(tmp_path, f'ls {tmp_path}/dev/shm > {tmp_path}/seen; cp {tmp_path}/prepared "$6"')
    memory = tmp_path / "dev/shm"
    for name in ("sluice-session-killed", "sluice-session-used", "others"):
        (memory / name).mkdir()
        (memory / name / "session.json").write_text("secret")
    used = os.open(memory / "sluice-session-used", os.O_RDONLY)
    try:
        fcntl.flock(used, fcntl.LOCK_EX)
        assert guest.session(PLACE) == SESSION
    finally:
        os.close(used)
    assert {path.name for path in memory.iterdir()} == {"sluice-session-used", "others"}
    assert "sluice-session-killed" not in (tmp_path / "seen").read_text()


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 7", "ended with exit code 7"),
        ("true", "left no session"),
        ('echo "{\\"SECRET\\": \\"planted-secret\\"}" > "$6"', "left what is no session"),
        ("exec sleep 60", "took more than"),
    ],
    ids=["fails", "nothing", "no session", "hangs"],
)
def test_an_agent_that_gets_no_session_says_nothing_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    monkeypatch.setattr(tdx, "AGENT_SECONDS", 0.3 if "sleep" in script else 60.0)
    guest = agent(tmp_path, script)
    with pytest.raises(Unavailable, match=why) as refused:
        guest.session(PLACE)
    assert "planted-secret" not in str(refused.value)
    assert list((tmp_path / "dev/shm").iterdir()) == []
