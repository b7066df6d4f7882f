"""A support bundle of a running pool whose settings, shell, files, logs and database are full of secrets."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import stat
import zipfile
from pathlib import Path

from eth_account import Account

from bench.rig.bench_pool import BenchPool
from tests.integration import forged
from tests.integration.pool.environment import scheduler_environment


def test_a_support_bundle_tells_how_the_pool_is_and_no_byte_of_it_is_a_secret(
    shared_pool: BenchPool, tmp_path: Path
) -> None:
    env, home = scheduler_environment(shared_pool), tmp_path / "home"
    real, key = Path(env["SLUICE_HOME"]), Path(env.pop("SLUICE_KEY_FILE")).read_text().strip()
    home.mkdir()
    for name in ("admin.token", "token.secret"):
        shutil.copy(real / name, home / name)
    planted = {what: f"{what}-{secrets.token_hex(8)}" for what in _PLACES}
    keystore = Account.encrypt(bytes.fromhex(key), planted["keystore-password"], kdf="pbkdf2", iterations=10)
    (tmp_path / "wallet.json").write_text(json.dumps(keystore))
    (tmp_path / "wallet.password").write_text(planted["keystore-password"] + "\n")
    (tmp_path / "registries.json").write_text(json.dumps({"auths": {"r.example": {"auth": planted["registry"]}}}))
    basic = base64.b64encode(f"me:{planted['broker']}".encode()).decode()
    log = [
        {"event": f"refused amqp://me:{planted['broker']}@b.example", "level": "error"},
        {"event": f"GET https://node.example/v2/{planted['node']} 429", "level": "warning"},
        {"event": f"https://old.example/v2/{planted['former-node']}?k=1", "level": "info"},
        {"event": f"http://x:{planted['log-only']}@h.example/", "level": "info"},
        {"event": f"headers: authorization: Basic {basic}", "level": "debug"},
        {"event": f"key {key} or 0x{key.upper()} token {(home / 'admin.token').read_text().strip()}", "level": "info"},
    ]
    (home / "log").write_text("".join(json.dumps(line) + "\n" for line in log))
    other = tmp_path / "other.log"
    other.write_text(f"[error    ] SLUICE_INVITE={planted['invite']} MONGODB_PASSWORD={planted['shell']}\n")
    env |= {
        "SLUICE_HOME": str(home),
        "SLUICE_KEYSTORE": str(tmp_path / "wallet.json"),
        "SLUICE_KEYSTORE_PASSWORD_FILE": str(tmp_path / "wallet.password"),
        "SLUICE_REGISTRY_CREDENTIALS_FILE": str(tmp_path / "registries.json"),
        "SLUICE_WS_URL": f"wss://node.example/v2/{planted['node']}",
        "SLUICE_AMQP_URL": f"amqp://me:{planted['broker']}@broker.example",
        "SLUICE_INVITE": planted["invite"],
        "MONGODB_PASSWORD": planted["shell"],
    }
    assert forged.sluice("pool", "pause", "--why", f"see http://u:{planted['stored']}@h.example", env=env).code == 0
    bundle = tmp_path / "bundle.zip"
    try:
        words = ("support-bundle", str(bundle), "--log", str(other), "--log", "-", "--json")
        made = forged.sluice(*words, env=env, stdin=planted["shell"])
    finally:
        assert forged.sluice("pool", "resume", env=env).code == 0
    assert made.code == 0, made.err
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600

    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    everything = b"\n".join([bundle.read_bytes(), *files.values(), *(name.encode() for name in files)])
    hidden = {**planted, "key": key, "basic": basic, "ciphertext": keystore["crypto"]["ciphertext"]}
    hidden["KEY"] = key.upper()
    hidden["token"] = (home / "admin.token").read_text().strip()
    hidden["token key"] = json.loads((home / "token.secret").read_text())["keys"][0]["secret"]
    assert {what for what, secret in hidden.items() if secret.encode() in everything} == set()

    status = json.loads(files["status.json"])
    assert status["workerpool"] == env["SLUICE_WORKERPOOL"]
    assert json.loads(files["health.json"])["parts"]["mongodb"]["ok"]
    assert json.loads(files["versions.json"])["mongodb"]
    assert json.loads(files["queues.json"])
    assert json.loads(files["settings.json"])["SLUICE_WORKERPOOL"] == env["SLUICE_WORKERPOOL"]
    assert b"429" in files["logs/1-log.log"]
    trouble = files["last-errors.log"].decode().splitlines()
    assert len(trouble) == 3
    assert [name for name in files if name.startswith("logs/")] == [
        "logs/1-log.log",
        "logs/2-other.log.log",
        "logs/3--.log",
    ]


def test_what_does_not_answer_is_noted_and_the_rest_is_there(shared_pool: BenchPool, tmp_path: Path) -> None:
    env = scheduler_environment(shared_pool) | {
        "SLUICE_OPERATIONS_PORT": "1",
        "SLUICE_MONGODB_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300",
    }
    made = forged.sluice("support-bundle", str(tmp_path / "b.zip"), "--log", str(tmp_path / "nothing.log"), env=env)
    assert made.code == 0, made.err
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert "error" in json.loads(archive.read("status.json"))
        assert "error" in json.loads(archive.read("health.json"))
        assert "error" in json.loads(archive.read("versions.json"))["mongodb"]
        assert "anvil" in str(json.loads(archive.read("versions.json"))["nodes"])
        assert "cannot be read" in archive.read("logs/2-nothing.log.log").decode()
    again = forged.sluice("support-bundle", str(tmp_path / "b.zip"), env=env)
    assert (again.code, "not overwritten" in again.err) == (2, True)


#: Where a secret is planted.
_PLACES = (
    "keystore-password",
    "registry",
    "broker",
    "node",
    "former-node",
    "log-only",
    "invite",
    "shell",
    "stored",
)
