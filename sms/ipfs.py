"""Small files from IPFS, through the gateway of this service's operator; what it sends is checked against the id."""

from __future__ import annotations

import time
from typing import Protocol

import httpx

from config.connections.http_client import http_client
from config.http_server.turns import Turns
from protocol.cid import file_cid
from protocol.errors import StorageUnavailable

#: Bytes of a file at most: the list of a bulk of 40,000 tasks.
MOST_BYTES = 2 * 2**20
#: Seconds for a file. A session needs two, and iExec's and our workers wait some 15 s for it; they ask again.
FETCH_SECONDS = 5.0
#: Files that are fetched at a time, others that wait, and seconds that they do. Each holds one of the service's 40
#: threads, and whoever has made a deal has named the file: others must not wait for a gateway that does not have it.
FETCHES_AT_ONCE, MOST_WAITING, TURN_SECONDS = 8, 8, 2.0


class IpfsFiles(Protocol):
    """Where files are fetched by their id."""

    def fetch(self, cid: str) -> bytes:
        """The content of a file, by its CIDv0. Raises StorageUnavailable for what cannot be had now."""

    def close(self) -> None:
        """Close the connections."""


class IpfsGateway:
    """The HTTP gateway of SLUICE_IPFS_GATEWAY. Its answers never prove that a file does not exist."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._http = http_client(
            url.rstrip("/"), timeout=FETCH_SECONDS, answer_seconds=lambda: FETCH_SECONDS, transport=transport
        )
        self._turns = Turns(FETCHES_AT_ONCE, waiting=MOST_WAITING)

    def fetch(self, cid: str) -> bytes:
        """The content of a file, by its CIDv0. Raises StorageUnavailable for what cannot be had now."""
        with self._turns.taken(TURN_SECONDS) as mine:
            if not mine:
                raise _unavailable("too many files are asked for at a time")
            return self._fetch(cid)

    def _fetch(self, cid: str) -> bytes:
        """The content of a file. Raises StorageUnavailable."""
        ends_at = time.monotonic() + FETCH_SECONDS
        content = bytearray()
        try:
            # Unpacked content could be larger than what is counted.
            with self._http.stream("GET", f"/ipfs/{cid}", headers={"accept-encoding": "identity"}) as response:
                if response.status_code != 200:
                    raise _unavailable(f"HTTP {response.status_code} for {cid}")
                for piece in response.iter_raw():
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise _unavailable(f"{cid} has more than {MOST_BYTES} bytes")
                    if time.monotonic() > ends_at:
                        raise _unavailable(f"{cid} takes more than {FETCH_SECONDS:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _unavailable(str(error) or type(error).__name__) from error
        found = bytes(content)
        if file_cid(found) != cid:
            raise _unavailable(f"what it sends is not {cid}")
        return found

    def close(self) -> None:
        """Close the connections to the gateway."""
        self._http.close()


def _unavailable(why: str) -> StorageUnavailable:
    """The error for a gateway that gives no answer."""
    # Clients read it: not where the gateway is.
    return StorageUnavailable(what="the IPFS gateway (SLUICE_IPFS_GATEWAY)", why=why)
