"""Storing secrets for enclaves as their owners do: the secret service's HTTP API (docs/secret-service.md)."""

from __future__ import annotations

import httpx

from config.connections.http_client import http_client
from protocol.enclave.secrets import SecretId, storing_hash
from protocol.errors import Refused, Unavailable
from protocol.ethereum.hexbytes import to_bytes
from protocol.ethereum.signing import Key

#: Seconds for one request: the service asks the chain who owns an app or a dataset.
REQUEST_SECONDS = 10.0


def store_secret(service: str, owner: Key, secret: SecretId, value: bytes) -> None:
    """Store `value` (UTF-8) at the secret service at that URL. `owner`: who may, by the table in
    `protocol.enclave.secrets`.

    Raises Unavailable while the service cannot be asked, Refused if it will not, also for what is stored already.
    """
    signature = owner.sign_message(to_bytes(storing_hash(secret, value)))
    headers = {"authorization": signature, "content-type": "text/plain"}
    try:
        with http_client(service, timeout=REQUEST_SECONDS) as client:
            answer = client.post(secret.path, content=value, headers=headers)
    except httpx.HTTPError as error:
        raise Unavailable(what=f"the secret service at {service}", why=str(error) or type(error).__name__) from error
    if answer.is_server_error:
        raise Unavailable(what=f"the secret service at {service}", why=f"it answers HTTP {answer.status_code}")
    if not answer.is_success:
        raise Refused(why=f"the secret service answers HTTP {answer.status_code} for {secret.key}")
