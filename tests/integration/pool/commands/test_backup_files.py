"""What a backup holds, and where it may be put back: of the shared pool, which goes on meanwhile."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bench.rig.bench_pool import BenchPool
from tests.integration.pool.environment import scheduler_command, scheduler_environment


def test_a_backup_goes_only_where_it_belongs(shared_pool: BenchPool, tmp_path: Path) -> None:
    backup, other = tmp_path / "pool.backup", "0x" + "12" * 20
    looked = scheduler_command(shared_pool, "backup", str(backup), "--dry-run", "--json")
    assert (looked.code, looked.json["dry_run"], backup.exists()) == (0, True, False)
    assert looked.json["documents"] > 0
    assert scheduler_command(shared_pool, "backup", str(backup)).code == 0
    again = scheduler_command(shared_pool, "backup", str(backup))
    assert (again.code, again.err.strip()) == (
        2,
        f"sluice: {backup} exists, and is not overwritten: name another file.",
    )
    env = scheduler_environment(shared_pool)

    for words, more, why in (
        ((), {}, "is not empty: add --replace"),
        (("--replace",), {}, "A scheduler works on this database: stop it first"),
        ((), {"SLUICE_WORKERPOOL": other}, f"it is of workerpool {env['SLUICE_WORKERPOOL'].lower()}, and the settings"),
        ((), {"SLUICE_CHAIN_ID": "1"}, "it is of chain 31337, and the settings name 1"),
        (("--keys",), {}, "it holds no keys"),
        ((), {"SLUICE_MONGODB_URI": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500"}, "MongoDB does not answer"),
    ):
        refused = scheduler_command(shared_pool, "restore", str(backup), *words, **more)
        assert refused.code == (1 if "answer" in why else 2)
        assert why in refused.err
        assert refused.err.count("\n") == 1


def test_a_backup_holds_no_secret_unless_asked_for(shared_pool: BenchPool, tmp_path: Path) -> None:
    home = shared_pool.pool.home / "scheduler"
    secrets = {
        "password of RabbitMQ": "s3cret-of-the-broker",
        "key of a node": "s3cret-of-the-node",
        "wallet": (home / "key").read_text().strip(),
        "token": (home / "admin.token").read_text().strip(),
    }
    env = {"SLUICE_PUBLIC_RPC_URL": f"https://node.example/v2/{secrets['key of a node']}"}
    env["SLUICE_AMQP_URL"] = f"amqp://me:{secrets['password of RabbitMQ']}@broker.example"

    assert scheduler_command(shared_pool, "backup", str(tmp_path / "plain"), **env).code == 0
    plain = unpacked(tmp_path / "plain")
    assert {what for what, secret in secrets.items() if secret.encode() in plain} == set()
    assert b"# SLUICE_AMQP_URL holds a secret and is left out." in plain

    assert scheduler_command(shared_pool, "backup", str(tmp_path / "full"), "--keys", "--secrets", **env).code == 0
    full = unpacked(tmp_path / "full")
    assert {what for what, secret in secrets.items() if secret.encode() in full} == set(secrets) - {"wallet"}


def unpacked(path: Path) -> bytes:
    """Every byte in an archive, and of its raw form."""
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) + name.encode() for name in archive.namelist()) + path.read_bytes()
