"""Which texts are secrets here, and cutting them out of whatever is given away.

    known here     settings, this shell's variables, key files, tokens: as they are, and in URLs, JSON, Base64
    by their form  the part before `@` of a URL; path and query of a URL elsewhere; tokens of machines; `Bearer …`;
                   64 hex digits: without `0x`, or if they are this wallet's private key (hashes have `0x`)

The first finds a secret wherever it stands. The second finds those of others, or of before: an address with a key that
the settings do not name any more.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import SecretStr

from chain.keystore import load_key
from config.connections import broker_nodes
from config.connections.http_client import is_loopback
from config.operator_token import token_file
from config.redaction import HIDDEN, public_url, without_passwords
from config.settings import Settings
from config.values.sms_settings import read_sms_settings, sms_key_file
from ops.preflight import LOCAL_PASSWORDS
from pipeline.api.auth.secret import token_secret_file
from protocol.errors import BadInput, SluiceError
from protocol.ethereum.signing import Key
from protocol.types import Wallet

#: Fewer characters are no secret, and would be cut out of words.
_SHORTEST = 6
#: Characters of a text in a file of secrets that is no word or name.
_LONG = 12
#: Variables of any program that hold a secret, by their name.
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|PRIVATE_KEY|CREDENTIAL|API_?KEY|INVITE|KEYSTORE", re.IGNORECASE)
#: Names of what is secret in a JSON file, whatever it looks like (Docker's config.json, `token.secret`).
_SECRET_FIELDS = frozenset({"auth", "password", "secret", "token", "identitytoken", "registrytoken"})
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>\\,]+")
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+|(?i:bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}")
_HEX = re.compile(r"(?<![0-9A-Fa-fx])(?:0x)?[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
#: A path's part that may be a provider's key, and is no word such as `mainnet` or `v2`.
_KEY_LIKE = re.compile(r"[A-Za-z0-9_-]{8,}")


@dataclass(frozen=True, slots=True)
class Scrubber:
    """Cuts secrets out of text."""

    _known: re.Pattern[str] | None
    #: The wallet whose private key is cut out if it occurs anywhere.
    _wallet: Wallet | None = None

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str]) -> Scrubber:
        """With the secrets of these settings, of the files that they name, and of a shell's variables."""
        wallet = None
        with suppress(SluiceError):
            wallet = load_key(settings).wallet
        secrets = [*_of_settings(settings), *_of_files(settings), *_of_environment(environment)]
        return cls.knowing(secrets, wallet)

    @classmethod
    def knowing(cls, secrets: Iterable[str], wallet: Wallet | None = None) -> Scrubber:
        """A scrubber for these secrets, in each encoding of `_forms`."""
        forms = {form for secret in secrets for form in _forms(secret.strip()) if len(form) >= _SHORTEST}
        # The longest first: one may be a part of another.
        ordered = sorted(forms - LOCAL_PASSWORDS, key=lambda form: (-len(form), form))
        return cls(re.compile("|".join(map(re.escape, ordered))) if ordered else None, wallet)

    def text(self, text: str) -> str:
        """`text` with all secrets cut out."""
        known = text if self._known is None else self._known.sub(HIDDEN, text)
        shown = _TOKEN.sub(HIDDEN, _URL.sub(lambda found: _public(found[0]), known))
        return without_passwords(_HEX.sub(lambda found: HIDDEN if self._is_key(found[0]) else found[0], shown))

    def value(self, value: object) -> object:
        """JSON with the secrets removed from each text in it."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.text(str(name)): self.value(item) for name, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
            case _:
                return value

    def _is_key(self, digits: str) -> bool:
        """Whether 64 hex digits are to be removed: without 0x always, else if they are the key of our wallet."""
        return not digits.startswith("0x") or (self._wallet is not None and _wallet_of(digits) == self._wallet)


@cache
def _wallet_of(digits: str) -> Wallet | None:
    """The wallet of these 64 hex digits, taken as a private key; None if they are none."""
    try:
        return Key.from_hex(digits).wallet
    except BadInput:
        return None


def _public(url: str) -> str:
    """A URL of this machine as it is, without a password; of another, scheme and host."""
    try:
        here = is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return HIDDEN
    return without_passwords(url) if here else public_url(url)


def _forms(secret: str) -> Iterator[str]:
    """A secret as it is, and as URLs, JSON, shells and HTTP's Basic write it."""
    if not secret:
        return
    yield from (secret, unquote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1])
    encoded = base64.b64encode(secret.encode()).decode()
    yield from (encoded, encoded.rstrip("="))
    if secret.startswith("0x"):
        yield secret[2:]


def _of_settings(settings: Settings) -> Iterator[str]:
    """Secrets in the settings: secret ones whole, and passwords and keys in URLs."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            # Nodes of RabbitMQ are separated by `;`, which may also be part of a password.
            for piece in {text, *text.split(broker_nodes.SEPARATOR)}:
                yield from _of_url(piece.strip()) if "://" in piece else (piece,)
        elif isinstance(value, str) and "://" in value:
            for url in value.split(","):
                yield from _of_url(url.strip())


def _of_url(url: str) -> Iterator[str]:
    """What in a URL may be a secret: password, user with password, key-like parts of path, query and fragment."""
    try:
        parts = urlsplit(url)
        userinfo, password = parts.netloc.rpartition("@")[0], parts.password
    except ValueError:
        yield url
        return
    if userinfo:
        yield url
        yield unquote(userinfo) if password else userinfo
        yield unquote(password or userinfo)
    if not is_loopback(parts.hostname or ""):
        yield from (part for part in (*parts.path.split("/"), parts.fragment) if _KEY_LIKE.fullmatch(part))
        yield from (value for _, value in parse_qsl(parts.query) if _KEY_LIKE.fullmatch(value) and value != "admin")


def _of_files(settings: Settings) -> Iterator[str]:
    """Secrets in the files that settings name."""
    for path in (
        settings.key_file,
        settings.keystore_password_file,
        settings.registry_credentials_file,
        token_file(settings),
        token_secret_file(settings),
        sms_key_file(settings.home, read_sms_settings()),
    ):
        yield from _of_file(path)
    for path in settings.home.glob("worker/*/session.json"):
        yield from _of_session(path)
    # A keystore's ciphertext can be tried offline; its address is no secret.
    for line in _of_file(settings.keystore):
        yield from re.findall(r"\"(?:ciphertext|mac|salt|iv)\":\s*\"([0-9a-fA-F]{16,})\"", line)


def _of_session(path: Path) -> Iterator[str]:
    """Token and RabbitMQ password of a worker machine of this host; nothing if they cannot be read."""
    with suppress(OSError, ValueError, AttributeError):
        session = json.loads(path.read_bytes())
        # By their names alone: what else is long there (the wallet in names of queues) is no secret.
        for part in (session, session.get("broker", {})):
            yield from (part[name] for name in _SECRET_FIELDS & part.keys() if isinstance(part[name], str))


def _of_file(path: Path | None) -> Iterator[str]:
    """A file's whole content, and every secret in it if it is JSON; nothing if it cannot be read."""
    try:
        text = "" if path is None else path.read_bytes().decode("utf-8", "replace").strip()
    except OSError:
        return
    yield text
    try:
        yield from _strings(json.loads(text))
    except ValueError:
        return


def _strings(value: object) -> Iterator[str]:
    """Texts in JSON that are secrets by their name, or that are long enough and no words."""
    match value:
        case str():
            if len(value) >= _LONG and _KEY_LIKE.fullmatch(value.rstrip("=")):
                yield value
        case dict():
            for name, item in value.items():
                if isinstance(item, str) and name.lower() in _SECRET_FIELDS:
                    yield from _login(item) if name.lower() == "auth" else (item,)
                else:
                    yield from _strings(item)
        case list():
            for item in value:
                yield from _strings(item)


def _login(encoded: str) -> Iterator[str]:
    """A registry's login as Docker's config.json has it, Base64 of `user:password`, and the password."""
    yield encoded
    with suppress(ValueError):
        login = base64.b64decode(encoded).decode()
        yield login
        yield login.partition(":")[2]


def _of_environment(environment: Mapping[str, str]) -> Iterator[str]:
    """Secrets in environment variables: by the variable's name, and in URLs."""
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and not _is_place(value):
            yield value
        if "://" in value:
            yield from _of_url(value)


def _is_place(value: str) -> bool:
    """Whether a value is the path of an existing file, and so no secret; False also if the system refuses it."""
    try:
        return Path(value).exists()
    except (OSError, ValueError):
        return False
