"""The files of a new pool: what is in them, and writing them. None is ever overwritten.

with docker-compose.yml in the folder            without it: `sluice scheduler run` on servers that are there
.env                                             .env                       mode 600, the settings
docker/secrets/keystore.json, keystore-password  wallet.json, wallet.password, or where the options say
docker/secrets/cert.pem, key.pem, ca.pem, ca-key.pem, and a password each of MongoDB, RabbitMQ and Grafana
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from config.whole_files import new_file
from ops import wallet_files
from ops.stack import certificates
from protocol.errors import BadInput, BadKeystore, BadSetting
from protocol.types import Wallet

ENV, COMPOSE, SECRETS = ".env", "docker-compose.yml", Path("docker/secrets")
#: The development chain (`ops.new_pool.development`), which its container loads and keeps.
CHAIN = Path("docker/dev/chain.json")
#: Random bytes of a server's password.
_PASSWORD_BYTES = 32
#: Files with a new password.
PASSWORDS = ("mongodb-password", "rabbitmq-password", "grafana-password")


@dataclass(frozen=True, slots=True)
class Readers:
    """Who may read a file: a user of docker-compose.yml's containers, and the group of another one."""

    user: int
    group: int | None = None

    @property
    def mode(self) -> int:
        """The file's mode: readable by its user, and by the group if it has one."""
        return 0o400 if self.group is None else 0o440

    @property
    def words(self) -> str:
        """User and group in the form that `chown` takes."""
        return str(self.user) if self.group is None else f"{self.user}:{self.group}"


_SCHEDULER, _SERVERS, _GRAFANA, _CHAIN = 10001, 999, 472, 1000
#: The files that only some of the containers' users may read.
OWNERS = {
    "keystore.json": Readers(_SCHEDULER),
    "keystore-password": Readers(_SCHEDULER),
    "key.pem": Readers(_SERVERS),
    "mongodb-password": Readers(_SERVERS, _SCHEDULER),
    "rabbitmq-password": Readers(_SERVERS, _SCHEDULER),
    "grafana-password": Readers(_GRAFANA),
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the files of a new pool are."""

    folder: Path
    compose: bool

    @classmethod
    def of(cls, folder: Path) -> Places:
        """The places below this folder. Raises BadInput if it has a .env already."""
        places = cls(folder, (folder / COMPOSE).is_file())
        if places.env.exists():
            raise BadInput(what=f"{places.env} exists, and is not overwritten: edit it, or move it away first.")
        return places

    @property
    def env(self) -> Path:
        """Path of the env file with the settings."""
        return self.folder / ENV

    @property
    def secrets(self) -> Path:
        """Folder from which docker-compose.yml mounts files with secrets."""
        return self.folder / SECRETS

    @property
    def keystore(self) -> Path:
        """Path of the wallet's new keystore; unused if an existing keystore is used in its place."""
        return self.secrets / "keystore.json" if self.compose else self.folder / wallet_files.KEYSTORE

    @property
    def password_file(self) -> Path:
        """Path of the file with the keystore's password."""
        return self.secrets / "keystore-password" if self.compose else self.folder / wallet_files.PASSWORD_FILE


def env_text(values: Mapping[str, str]) -> str:
    """The env file: read by docker compose, by systemd, and by a shell (`set -a; . ./.env`). Raises BadSetting for a
    value that these read in different ways.
    """
    head = "# Made by `sluice init`. Every SLUICE_… setting of docs/settings.md may stand here.\n"
    for name, value in values.items():
        if "'" in value or not value.isprintable():
            why, fix = "an env file cannot hold a quote or a line break", "In an address write %27 for the quote."
            raise BadSetting(name=name, why=why, fix=fix)
    return head + "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())


def copy_wallet(places: Places, keystore: Path, password: str) -> None:
    """Copy a keystore to where docker compose mounts it from, with its password beside it. Raises BadKeystore."""
    for path, content in ((places.keystore, keystore.read_text()), (places.password_file, f"{password}\n")):
        if path.exists() and path.read_text() == content:
            continue
        if path.exists():
            raise BadKeystore(path=path, why="another one is there, and none is overwritten", fix="Move it away first.")
        wallet_files.write_new(path, content)


def keep_password(path: Path, password: str) -> bool:
    """Make sure that the file holds this password; returns whether it was written now. Raises BadKeystore."""
    if not path.exists():
        wallet_files.write_new(path, f"{password}\n")
        return True
    if wallet_files.password_in(path) != password:
        raise BadKeystore(
            path=path, why="another password is there, and none is overwritten", fix="Move it away first."
        )
    return False


def make_wallet(places: Places) -> Wallet:
    """A new wallet at its place. Raises BadKeystore where there is one."""
    return wallet_files.make_wallet(places.keystore, places.password_file)


def write_compose_secrets(places: Places, host: str) -> list[Path]:
    """What docker-compose.yml mounts beside the wallet: a certificate for proxy and RabbitMQ, signed by a CA of one's
    own, unless one is there, and the servers' passwords. Returns the files made, whose owners are those of `OWNERS` if
    this is root.
    """
    made = []
    if not (places.secrets / "cert.pem").exists():
        files = certificates.ensure(places.secrets, [host])
        made += [files.certificate, files.key, files.ca, files.ca_key]
    for path in (places.secrets / name for name in PASSWORDS):
        if not path.exists():
            wallet_files.write_new(path, f"{secrets.token_hex(_PASSWORD_BYTES)}\n")
            made.append(path)
    return made


def give_to_containers(places: Places) -> list[str]:
    """Give each secret to the user of its container, who alone may read it, and the development chain, if there is one,
    to its; returns the commands that do so where this user may not.
    """
    commands = []
    for name, readers in OWNERS.items():
        path = places.secrets / name
        with suppress(PermissionError):
            os.chown(path, readers.user, -1 if readers.group is None else readers.group)
            path.chmod(readers.mode)
            continue
        quoted = shlex.quote(str(path))
        commands.append(f"sudo chown {readers.words} {quoted} && sudo chmod {readers.mode:o} {quoted}")
    chain = places.folder / CHAIN
    if chain.exists():
        try:
            for path in (chain.parent, chain):
                os.chown(path, _CHAIN, -1)
        except PermissionError:
            commands.append(f"sudo chown --recursive {_CHAIN} {shlex.quote(str(chain.parent))}")
    return commands


def write_env(places: Places, values: Mapping[str, str]) -> None:
    """Write the settings, last of all: without them nothing starts. Raises BadInput."""
    try:
        with new_file(places.env) as file:
            file.write(env_text(values).encode())
    except OSError as error:
        raise BadInput(what=f"{places.env} cannot be written: {error.strerror or error}.") from error


def _quoted(value: str) -> str:
    """A value as docker compose, systemd and a shell all read it: bare, or in single quotes."""
    return value if value and all(character.isalnum() or character in _PLAIN for character in value) else f"'{value}'"


_PLAIN = "_-.,:/@%+="
