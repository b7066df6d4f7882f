"""Which pool and release a backup is of: facts in its manifest, by which `restore` refuses one that does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain.contracts.ens_names import with_addresses
from config.operator_token import token_file
from config.settings import Settings
from ops.archive import Archive
from pipeline.api.auth.secret import token_secret_file
from pipeline.store.documents import SCHEMA
from protocol.errors import BadBackup, BadSetting

KIND = "sluice backup"
#: Version of the archive's own form.
FORMAT = 1
#: Folders in the archive.
DATABASE, KEYS = "database/", "keys/"
SETTINGS = "settings.env"


@dataclass(frozen=True, slots=True)
class Pool:
    """Which pool: what is the same for all of its backups."""

    chain_id: int
    hub: str
    workerpool: str

    @classmethod
    def of(cls, settings: Settings) -> Pool:
        """The pool of the settings. Raises BadSetting if they name none, RpcUnavailable for an ENS name."""
        for name in ("hub", "workerpool"):
            if getattr(settings, name) is None:
                raise BadSetting(name=f"SLUICE_{name.upper()}", why="it is not set", fix="Give the contract's address.")
        found = with_addresses(settings)
        return cls(found.chain_id, str(found.hub).lower(), str(found.workerpool).lower())


def key_files(settings: Settings) -> dict[str, Path]:
    """Name in the archive and place of each file with a secret that a scheduler of these settings keeps."""
    files = {
        "token.secret": token_secret_file(settings),
        "admin.token": token_file(settings),
    }
    if settings.keystore is not None:
        files["keystore.json"] = settings.keystore
    return files


def require_usable(archive: Archive, pool: Pool) -> None:
    """Raise BadBackup for an archive that is no backup, of another pool, or of a newer release."""
    about: Any = archive.about
    try:
        kind, form, schema = about["kind"], int(about["format"]), int(about["schema"])
        of = Pool(**about["pool"])
    except (KeyError, TypeError, ValueError) as error:
        fix = "Name the file that `sluice backup` wrote."
        raise BadBackup(path=archive.path, why="it is no backup of Sluice", fix=fix) from error
    if kind != KIND:
        raise BadBackup(path=archive.path, why=f"it is a {kind}", fix="Name the file that `sluice backup` wrote.")
    if form > FORMAT or schema > SCHEMA:
        why = f"Sluice {about['sluice']} made it, which is newer than this one (schema {schema}, here {SCHEMA})"
        raise BadBackup(path=archive.path, why=why, fix="Install that release first.")
    for what, theirs, ours in (
        ("chain", of.chain_id, pool.chain_id),
        ("hub", of.hub, pool.hub),
        ("workerpool", of.workerpool, pool.workerpool),
    ):
        if theirs != ours:
            why = f"it is of {what} {theirs}, and the settings name {ours}"
            raise BadBackup(path=archive.path, why=why, fix="Name this pool's backup, or set that pool's settings.")
