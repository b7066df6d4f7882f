"""Headers of an upload that goes on where it was cut: which bytes a request brings, of which zip.

Content-Range: bytes 1000-4999/5000     RFC 9110, 14.4 and 14.5: from `first` on, always to the end
Repr-Digest: sha-256=:…:                RFC 9530: of the whole zip, so that no two are ever mixed
Upload-Offset: 1000                     in an answer: bytes that are there, where the next request goes on
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from protocol.errors import BadMessage, TooLarge

RANGE_HEADER, DIGEST_HEADER, OFFSET_HEADER = "Content-Range", "Repr-Digest", "Upload-Offset"
#: Eighteen digits fit 63 bits.
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
#: One of the digests of a list: 32 bytes are 43 characters and a filler.
_DIGEST = re.compile(r"(?:^|,)[ \t]*sha-256=:([A-Za-z0-9+/]{43}=):[ \t]*(?=,|$)")


@dataclass(frozen=True, slots=True)
class Rest:
    """The part of a zip that one upload request brings: the bytes from `first` to the zip's end at `total`. `sha256`:
    of the whole zip, 64 lower-case hex digits.
    """

    first: int
    total: int
    sha256: str

    @property
    def length(self) -> int:
        """Bytes of the request's body."""
        return self.total - self.first

    def headers(self) -> dict[str, str]:
        """The headers Content-Range and Repr-Digest of the request, by name."""
        return {
            RANGE_HEADER: f"bytes {self.first}-{self.total - 1}/{self.total}",
            DIGEST_HEADER: digest_header(self.sha256),
        }

    @classmethod
    def of(cls, headers: Mapping[str, str], most: int) -> Self | None:
        """Read a request's Content-Range and Repr-Digest; None if it has no Content-Range, so it brings the whole zip.

        `headers`: looked up by name in any case; `most`: bytes that a zip may have. Raises BadMessage, TooLarge.
        """
        said = headers.get(RANGE_HEADER)
        if said is None:
            return None
        found = _RANGE.fullmatch(said)
        if found is None:
            raise BadMessage(why=f"{RANGE_HEADER} is not like `bytes 1000-4999/5000`")
        first, last, total = map(int, found.groups())
        if not first <= last == total - 1:
            raise BadMessage(why=f"{RANGE_HEADER} must go to the end of the zip: `bytes 1000-4999/5000`")
        if total > most:
            raise TooLarge(limit=most)
        rest = cls(first, total, read_digest(headers.get(DIGEST_HEADER, "")))
        if int(headers.get("Content-Length", rest.length)) != rest.length:
            raise BadMessage(why=f"the body has not the {rest.length} bytes that {RANGE_HEADER} says")
        return rest


def digest_header(sha256: str) -> str:
    """The header Repr-Digest of a whole zip. `sha256`: hex digits."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def read_digest(header: str) -> str:
    """The sha256 in a header Repr-Digest, 64 lower-case hex digits. Raises BadMessage."""
    found = _DIGEST.search(header)
    if found is None:
        raise BadMessage(why=f"{DIGEST_HEADER} is not like `sha-256=:<base64 of the whole zip's sha256>:`")
    return base64.b64decode(found.group(1)).hex()


def read_offset(header: str | None, total: int) -> int | None:
    """Where to go on with a zip of `total` bytes by the pool's Upload-Offset: at least one byte is left to send. None
    if the pool does not say.
    """
    if header is None or re.fullmatch(r"[0-9]{1,18}", header) is None:
        return None
    return min(int(header), total - 1)
