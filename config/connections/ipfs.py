"""Puts a result into IPFS through kubo's RPC API, streamed and pinned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import httpx

from config.connections.http_client import http_client
from protocol.errors import StorageUnavailable

#: Seconds without progress while adding; kubo hashes and writes some 100 MB a second.
ADD_SECONDS = 60.0
CONNECT_SECONDS = 5.0
#: Seconds to pin what the node has; it would search the network without end for what it lacks.
PIN_SECONDS = 20.0
#: Characters of an answer that an error repeats.
ANSWER_CHARACTERS = 200
#: kubo's error for unpinning what is not pinned.
_NOT_PINNED = "not pinned"
#: CIDv0: the form of iExec Worker's links, known to every gateway.
_CID = re.compile(r"^Qm[1-9A-HJ-NP-Za-km-z]{44}$")


class Ipfs:
    """A kubo node. Raises StorageUnavailable."""

    def __init__(self, api_url: str) -> None:
        self._url = api_url.rstrip("/")
        self._http = http_client(self._url, timeout=httpx.Timeout(ADD_SECONDS, connect=CONNECT_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def add(self, path: Path, name: str, *, pin: bool = True) -> str:
        """Store a file under `name`; returns its CID. The same bytes give the same CID any number of times.

        `pin`: keep it; else the node may drop it at its next garbage collection.
        """
        try:
            with path.open("rb") as file:
                response = self._http.post(
                    f"{self._url}/api/v0/add",
                    params={"cid-version": "0", "pin": "true" if pin else "false", "quieter": "true"},
                    files={"file": (name, file, "application/zip")},
                )
            response.raise_for_status()
            cid = str(response.json()["Hash"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise StorageUnavailable(what=f"IPFS at {self._url}", why=str(error) or type(error).__name__) from error
        if not _CID.match(cid):
            raise StorageUnavailable(what=f"IPFS at {self._url}", why="it answered something that is no CIDv0")
        return cid

    def pin(self, cid: str, name: str | None = None) -> None:
        """Pin what the node has. Pinning again changes nothing but the pin's name, if one is given."""
        self._ask("pin/add", cid, **({} if name is None else {"name": name}))

    def pins(self, named: str) -> Mapping[str, str]:
        """Names of the node's pins by CID, of those whose names hold `named`."""
        found = self._post("pin/ls", type="recursive", name=named)
        try:
            return {str(cid): str(row["Name"]) for cid, row in found.json()["Keys"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageUnavailable(what=f"IPFS at {self._url}", why="it answered no list of pins") from error

    def pinned(self, cid: str) -> bool:
        """Whether the node has pinned it itself, and not as a part of something else."""
        try:
            self._ask("pin/ls", cid, type="recursive")
        except StorageUnavailable as error:
            if _NOT_PINNED not in str(error):
                raise
            return False
        return True

    def unpin(self, cid: str) -> None:
        """Unpin a CID, so that the node drops it at its next garbage collection. Not pinned: nothing happens."""
        try:
            self._ask("pin/rm", cid)
        except StorageUnavailable as error:
            if _NOT_PINNED not in str(error):
                raise

    def _ask(self, what: str, cid: str, **options: str) -> None:
        """Call a method of Kubo's RPC API about a CID; its answer is not read. Raises StorageUnavailable."""
        self._post(what, arg=cid, **options)

    def _post(self, what: str, **asked: str) -> httpx.Response:
        """The answer of a method of Kubo's RPC API. Raises StorageUnavailable."""
        try:
            response = self._http.post(f"{self._url}/api/v0/{what}", params=asked, timeout=PIN_SECONDS)
        except httpx.HTTPError as error:
            raise StorageUnavailable(what=f"IPFS at {self._url}", why=str(error) or type(error).__name__) from error
        if not response.is_success:
            raise StorageUnavailable(what=f"IPFS at {self._url}", why=response.text[:ANSWER_CHARACTERS])
        return response
