"""The secrets of the iExec secret service: who has which, and what is signed to store one (iExec SMS 9.3, SDK 9.0.1).

    path                            whose           name      signed by                  can be changed
    secrets/web3?secretAddress      a dataset's     –         owner of the contract      no
    apps/{app}/secrets              an app's        1         owner of the contract      no
    requesters/{address}/secrets/…  a wallet's      its own   the wallet                 no
    secrets/web2?ownerAddress       a wallet's      its own   the wallet                 yes (PUT)

signed    keccak( keccak("IEXEC_SMS_DOMAIN") ‖ address ‖ keccak(name) ‖ keccak(value) ), with EIP-191; a dataset's
          secret has no name, so nothing stands for it
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from protocol.errors import BadMessage, TooLarge
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.types import Contract, Hash32, Wallet

#: UTF-8 bytes of a value at most.
MOST_VALUE_BYTES = 4096
#: Name of the one secret of an app.
APP_NAME = "1"
#: Names of secrets of wallets that sessions use: a beneficiary's public key, ...
RESULT_KEY_NAME = "iexec-result-encryption-public-key"
#: ... what lets a worker (or a requester) store results, where the workerpool's owner has them stored, ...
STORE_NAME, STORE_URL_NAME = "iexec-result-iexec-ipfs-token", "iexec-result-iexec-result-proxy-url"
#: ... and what lets a requester store them at Dropbox.
DROPBOX_NAME = "iexec-result-dropbox-token"
_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")
_DOMAIN = keccak(b"IEXEC_SMS_DOMAIN")


class Kind(StrEnum):
    """Whose secret it is, by the word in the path."""

    DATASET = "web3"
    APP = "apps"
    REQUESTER = "requesters"
    WALLET = "web2"

    @property
    def of_contract(self) -> bool:
        """Whether the secret belongs to a contract, whose owner on chain may store it; else it belongs to the address
        itself.
        """
        return self in (Kind.DATASET, Kind.APP)

    @property
    def changeable(self) -> bool:
        """Whether a later value may replace the first."""
        return self is Kind.WALLET


@dataclass(frozen=True, slots=True)
class SecretId:
    """Which secret. `owner`: lower case; `name`: empty for a dataset's."""

    kind: Kind
    owner: Wallet | Contract
    name: str

    @property
    def key(self) -> str:
        """The id as one text, different for different secrets: no part can hold a colon."""
        return f"{self.kind}:{self.owner}:{self.name}"

    @property
    def path(self) -> str:
        """Path and query at the service, as in the table above."""
        match self.kind:
            case Kind.DATASET:
                return f"/secrets/web3?secretAddress={self.owner}"
            case Kind.APP:
                return f"/apps/{self.owner}/secrets"
            case Kind.REQUESTER:
                return f"/requesters/{self.owner}/secrets/{self.name}"
            case Kind.WALLET:
                return f"/secrets/web2?ownerAddress={self.owner}&secretName={self.name}"


def dataset_key(dataset: str) -> SecretId:
    """The key that opens a dataset. Raises BadMessage for what is no address."""
    return SecretId(Kind.DATASET, Contract(_address(dataset)), "")


def app_secret(app: str) -> SecretId:
    """The secret of an app's developer. Raises BadMessage for what is no address."""
    return SecretId(Kind.APP, Contract(_address(app)), APP_NAME)


def requester_secret(requester: str, name: str) -> SecretId:
    """A requester's secret for apps. Raises BadMessage for what is no address or no name."""
    return SecretId(Kind.REQUESTER, Wallet(_address(requester)), _checked(name))


def wallet_secret(owner: str, name: str) -> SecretId:
    """A wallet's secret for the services, e.g. the key that its results are encrypted for. Raises BadMessage for what
    is no address or no name.
    """
    return SecretId(Kind.WALLET, Wallet(_address(owner)), _checked(name))


def require_value(value: bytes) -> None:
    """Raise BadMessage for a value that no environment variable can hold, TooLarge for one of too many bytes."""
    if len(value) > MOST_VALUE_BYTES:
        raise TooLarge(limit=MOST_VALUE_BYTES)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise BadMessage(why="a secret is UTF-8 text") from None
    if not text or "\0" in text:
        raise BadMessage(why="a secret is not empty and holds no zero byte")


def storing_hash(secret: SecretId, value: bytes) -> Hash32:
    """What is signed, with EIP-191, to store `value` (UTF-8) as this secret."""
    name = keccak(secret.name.encode()) if secret.name else b""
    return Hash32(to_hex(keccak(_DOMAIN + to_bytes(secret.owner, 20) + name + keccak(value))))


def _address(text: str) -> str:
    """An address in lower case. Raises BadMessage."""
    to_bytes(text, 20)
    return text.lower()


def _checked(name: str) -> str:
    """The name of a secret. Raises BadMessage if it has no such form."""
    if not _NAME.fullmatch(name):
        raise BadMessage(why="a secret's name has 1 to 64 characters of 0-9, A-Z, a-z, - and _")
    return name
