"""Fetching a result as any requester does: the link on chain, the zip from an IPFS gateway, the files in it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from config.connections.http_client import http_client
from protocol.enclave.cipher import decrypted
from protocol.enclave.result import CONTENT_FILE, KEY_FILE
from protocol.errors import BadMessage, StorageUnavailable
from protocol.ethereum.hexbytes import to_bytes

#: Seconds a gateway may take per read; a local one answers at once.
GATEWAY_SECONDS = 10.0
#: Seconds for a whole result: MAX_BYTES over a line of 1 Mbit/s.
RESULT_SECONDS = 600.0
#: The most bytes of one result held in memory: results of demo and benchmarks are tiny, a bomb stops here.
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished task left: `location` is an IPFS path, `files` names inside the zip with their content."""

    location: str
    files: Mapping[str, bytes]


def read_link(results: str) -> str:
    """The IPFS path in `results` (`0x` hex, as finalize stored it). Raises BadMessage if it is no such link."""
    try:
        link = json.loads(to_bytes(results))
        storage, location = str(link["storage"]), str(link["location"])
    except (ValueError, TypeError, KeyError) as error:
        raise BadMessage(why="the result on chain is no link to a file") from error
    if storage != "ipfs" or not location.startswith("/ipfs/"):
        raise BadMessage(why=f"the result is kept on {storage!r} at {location!r}, not on IPFS")
    return location


def fetch(gateway: str, results: str) -> Result:
    """The files of a finished task's result, fetched from IPFS through the HTTP gateway at that URL.

    `results`: `0x` hex, as finalize stored it. Raises BadMessage for a malformed link or zip, StorageUnavailable if the
    gateway does not have it now.
    """
    location = read_link(results)
    url = gateway.rstrip("/") + location
    try:
        with (
            http_client(gateway, timeout=GATEWAY_SECONDS, answer_seconds=lambda: RESULT_SECONDS) as client,
            client.stream("GET", url, headers={"Accept": "application/zip"}) as answer,
        ):
            answer.raise_for_status()
            packed = _read_at_most(answer, MAX_BYTES)
    except httpx.HTTPError as error:
        raise StorageUnavailable(what=f"the result at {url}", why=str(error) or type(error).__name__) from error
    return Result(location, unpack(packed))


def unpack(packed: bytes) -> dict[str, bytes]:
    """Names and contents of a zip's files. Raises BadMessage for no zip, or for one above MAX_BYTES unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise BadMessage(why=f"the result is larger than {MAX_BYTES} bytes unpacked")
            return {entry.filename: archive.read(entry) for entry in entries}
    except zipfile.BadZipFile as error:
        raise BadMessage(why="the result is no zip file") from error


def open_encrypted(files: Mapping[str, bytes], key: RSAPrivateKey) -> dict[str, bytes]:
    """The files of a result that was encrypted for the owner of `key`. `files`: those of the zip that was stored.

    Raises BadMessage for what does not open with this key.
    """
    try:
        content_key = key.decrypt(files[KEY_FILE], PKCS1v15())
        return unpack(b"".join(decrypted([files[CONTENT_FILE]], content_key)))
    except (KeyError, ValueError):
        raise BadMessage(why="the result is not encrypted for this key") from None


def _read_at_most(answer: httpx.Response, limit: int) -> bytes:
    """The response's body. Raises BadMessage as soon as it exceeds `limit` bytes."""
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > limit:
            raise BadMessage(why=f"the result is larger than {limit} bytes")
    return bytes(body)
