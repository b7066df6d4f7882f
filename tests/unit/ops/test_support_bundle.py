"""The logs of a support bundle: those in SLUICE_HOME, a worker machine's too, without secrets."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from config.settings import read_settings
from ops.support import bundle

WALLET = "0x" + "ab" * 20
TOKEN, PASSWORD = "t0ken-of-the-machine-1", "p4ssword-of-the-machine"


def session() -> str:
    """What the machine keeps of its sign-in."""
    queues = {"exchange": f"w.{WALLET}", "compute_queue": f"w.{WALLET}", "tx_queue": f"w.{WALLET}.tx"}
    access = {"host": "broker.example", "port": 5671, "tls": True, "vhost": "pool", "username": f"w.{WALLET}"}
    return json.dumps({"token": TOKEN, "expires_at": 1, "broker": access | queues | {"password": PASSWORD}})


def test_a_worker_machines_logs_are_in_it_the_oldest_first_and_its_session_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No servers: what they answer is of another test.
    for name in ("_versions", "_health", "_operator"):
        monkeypatch.setattr(bundle, name, lambda *_: {})
    folder = tmp_path / "worker" / WALLET
    (folder / "log").mkdir(parents=True)
    (folder / "session.json").write_text(session())
    for name, event in {"worker.log.1": "before", "worker.log": f"{TOKEN} and {PASSWORD} of {WALLET}"}.items():
        (folder / "log" / name).write_text(json.dumps({"event": event, "level": "error"}) + "\n")
    (tmp_path / "sluice.log").write_text("of the scheduler\n")
    names = bundle.make(read_settings(home=tmp_path), tmp_path / "bundle.zip", [])
    assert [name for name in names if name.startswith("logs/")] == [
        "logs/1-sluice.log.log",
        "logs/2-worker.log.1.log",
        "logs/3-worker.log.log",
    ]
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        trouble = [json.loads(line)["event"] for line in archive.read("last-errors.log").decode().splitlines()]
        everything = b"".join(archive.read(name) for name in archive.namelist()).decode()
    assert trouble[0] == "before"
    assert trouble[1].endswith(f" of {WALLET}")
    assert (TOKEN in everything, PASSWORD in everything) == (False, False)
