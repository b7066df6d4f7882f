"""Fetches an image's manifest and blobs from its registry (OCI distribution API), by this machine's rules for URLs.

The worker fetches and not the engine: an engine sends its owner's credentials, looks names up again, follows a
registry's word into the local network, and unpacks whatever comes. Every request is checked and pinned as a download
is (`guard`), every blob has a size known beforehand and is checked against its digest.

Raises, besides what each function says: Refused and TooLarge (alike on every machine), RefusedHere (this one's),
StorageUnavailable (ask again; RateLimited: not so soon), TaskDeclined (the task's time is over).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import httpx
from pydantic_core import from_json

from config.connections.http_client import is_loopback
from config.connections.http_dates import read_retry_after
from protocol.errors import RateLimited, Refused, RefusedHere, StorageUnavailable, TooLarge, WrongPlatform
from workers.data.download import DownloadBudget, answered
from workers.data.image_name import ImageName
from workers.task.outcome import verdict
from workers.task.outcome.verdict import Verdict

#: Media types of a manifest for one platform, and of an index of such.
_MANIFESTS = frozenset(
    {"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"}
)
_INDEXES = frozenset(
    {"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.oci.image.index.v1+json"}
)
_ACCEPT = ", ".join(sorted(_MANIFESTS | _INDEXES))
#: Layers that can be unpacked with a bound: tar archives, plain or in gzip.
_LAYERS = re.compile(
    r"application/vnd\.(?:docker\.image\.rootfs\.diff\.tar(?:\.gzip)?|oci\.image\.layer\.v1\.tar(?:\+gzip)?)"
)
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
#: Bytes of a manifest, a configuration or a token's answer at most; registries take manifests of 4 MiB.
_DOCUMENT_BYTES = 4 * 2**20
#: Layers at most: overlay file systems take 128.
_MOST_LAYERS = 127
#: One parameter of a `WWW-Authenticate` header.
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class RegistryPolicy:
    """Which images this machine takes, and from where."""

    #: Bytes of an unpacked image that this machine takes, and that every machine takes at most.
    max_bytes: int
    pool_max_bytes: int
    #: Registries that images may come from; empty: every public one.
    registries: frozenset[str] = frozenset()
    #: Whether others than those listed may be at private addresses.
    allow_private: bool = False
    #: Base64 of `user:password` by registry, given to Sluice by the machine's owner.
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    def too_large(self, size: int) -> Refused | TooLarge | None:
        """The error for an image of `size` bytes; None if it may be as large."""
        if size > self.pool_max_bytes:
            return TooLarge(limit=self.pool_max_bytes)
        if size > self.max_bytes:
            return RefusedHere(why=f"the image has more than {self.max_bytes} bytes, the most that this machine takes")
        return None


@dataclass(frozen=True, slots=True)
class Blob:
    """Content at a registry. `size` in bytes as sent."""

    digest: str
    size: int
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image for one platform."""

    digest: str
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return self.config.size + sum(layer.size for layer in self.layers)


def read_credentials(content: str) -> dict[str, str]:
    """Base64 logins by registry from Docker's config.json. Raises ValueError if it is not of that form."""
    auths = json.loads(content).get("auths", {})
    found = {}
    for place, entry in auths.items():
        host = urlsplit(place).netloc if "://" in place else place.partition("/")[0]
        if entry.get("auth"):
            found["docker.io" if host in {"index.docker.io", "registry-1.docker.io"} else host] = str(entry["auth"])
    return found


class RegistryImage:
    """One image at its registry; keeps the token between requests. `platform`: system and processor by Go's names."""

    def __init__(
        self, name: ImageName, platform: tuple[str, str], policy: RegistryPolicy, budget: DownloadBudget
    ) -> None:
        if policy.registries and name.registry not in policy.registries:
            raise RefusedHere(why=f"this machine takes no images from {name.registry}")
        self._name, self._platform, self._policy, self._budget = name, platform, policy, budget
        # The owner has named it, wherever it is.
        self._named = name.registry in policy.registries
        scheme = "http" if self._private("") and is_loopback(urlsplit(f"//{name.api_host}").hostname or "") else "https"
        self._base = f"{scheme}://{name.api_host}/v2/{name.repository}"
        self._authorization: str | None = None
        self._logged_in = name.registry in policy.credentials

    def _private(self, url: str) -> bool:
        """Whether a hop may lead to a private address."""
        place = urlsplit(url).netloc if url else self._name.api_host
        return self._policy.allow_private or (self._named and place == self._name.api_host)

    def manifest(self, wanted: str) -> Manifest:
        """The manifest for this platform by tag or digest. Raises Refused if there is certainly none, WrongPlatform if
        it is for other platforms.
        """
        content, kind, digest = self._document(wanted)
        if kind in _INDEXES:
            content, kind, digest = self._document(_choose(content, self._platform))
        if kind not in _MANIFESTS:
            raise StorageUnavailable(what=self._base, why=f"a manifest of an unknown kind ({kind[:80]})")
        try:
            found = _read_manifest(content, digest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageUnavailable(what=self._base, why=f"the manifest cannot be read ({error})") from error
        refused = self._policy.too_large(found.size)
        if refused is not None:
            raise refused
        return found

    def config(self, manifest: Manifest) -> bytes:
        """The image's configuration, checked."""
        content = self._whole(f"/blobs/{manifest.config.digest}", {}, min(manifest.config.size, _DOCUMENT_BYTES))[0]
        _require_digest(self._base, manifest.config.digest, hashlib.sha256(content).hexdigest())
        return content

    def layer(self, blob: Blob, target: Path, room: Callable[[], None]) -> None:
        """Fetch a layer as it is sent, checked. `room` is called every few MiB."""
        digest, total, since = hashlib.sha256(), 0, 0

        def take(response: httpx.Response) -> None:
            """Write the layer's bytes as they come."""
            nonlocal total, since
            with target.open("wb") as file:
                for chunk in response.iter_raw():
                    total, since = total + len(chunk), since + len(chunk)
                    if total > blob.size:
                        raise StorageUnavailable(what=self._base, why="a layer is longer than its manifest says")
                    if since >= _ROOM_BYTES:
                        since = 0
                        room()
                    digest.update(chunk)
                    file.write(chunk)

        self._ask(f"/blobs/{blob.digest}", {}, take)
        _require_digest(self._base, blob.digest, digest.hexdigest())

    def _document(self, wanted: str) -> tuple[bytes, str, str]:
        """A manifest: its bytes, media type and digest. Raises StorageUnavailable, Refused."""
        content, kind = self._whole(f"/manifests/{quote(wanted, safe=':')}", {"accept": _ACCEPT}, _DOCUMENT_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        if ":" in wanted:
            _require_digest(self._base, wanted, digest)
        return content, _kind(content, kind), f"sha256:{digest}"

    def _whole(self, path: str, headers: Mapping[str, str], limit: int) -> tuple[bytes, str]:
        """Fetch a short answer: its bytes and content type. Raises StorageUnavailable, Refused."""
        content, kind = bytearray(), ""

        def take(response: httpx.Response) -> None:
            """Keep the answer's content type and body."""
            nonlocal kind
            kind = response.headers.get("content-type", "").partition(";")[0].strip()
            content.extend(_body(response, limit))

        self._ask(path, headers, take)
        return bytes(content), kind

    def _ask(self, path: str, headers: Mapping[str, str], take: Callable[[httpx.Response], None]) -> None:
        """Send a request and pass a good answer to `take`; gets a token first if the registry wants one."""
        url = self._base + path
        for attempt in range(2):
            sent = dict(headers) | ({"authorization": self._authorization} if self._authorization else {})
            with answered(url, self._private, self._budget, sent) as response:
                if response.status_code == httpx.codes.OK:
                    take(response)
                    return
                challenge = response.headers.get("www-authenticate", "")
                if response.status_code != httpx.codes.UNAUTHORIZED or attempt:
                    raise _bad_answer(url, response, challenge, logged_in=self._logged_in)
            self._authorization = self._authorize(url, challenge)

    def _authorize(self, url: str, challenge: str) -> str:
        """The `Authorization` that a registry's challenge asks for."""
        login = self._policy.credentials.get(self._name.registry)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and login is not None:
            return f"Basic {login}"
        asked = dict(_PARAMETER.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in asked:
            raise RefusedHere(why=f"{self._name.registry} wants a login, and this machine has none for it")
        query = {"service": asked.get("service", ""), "scope": f"repository:{self._name.repository}:pull"}
        realm = (
            asked["realm"] + ("&" if "?" in asked["realm"] else "?") + urlencode({k: v for k, v in query.items() if v})
        )
        headers = {"authorization": f"Basic {login}"} if login else {}
        if login and urlsplit(realm).scheme != "https" and not self._private(realm):
            raise RefusedHere(why=f"{self._name.registry} wants the login sent unencrypted")
        with answered(realm, self._private, self._budget, headers) as response:
            if response.status_code != httpx.codes.OK:
                raise _bad_answer(url, response, "", logged_in=self._logged_in)
            try:
                body = from_json(_body(response, _DOCUMENT_BYTES))
                token = str(body.get("token") or body["access_token"])
                token.encode("ascii")
            except (ValueError, KeyError, AttributeError) as error:
                raise StorageUnavailable(what=realm, why="its answer holds no token") from error
        return f"Bearer {token}"


#: Bytes between two checks of the free disk space.
_ROOM_BYTES = 16 * 2**20


def _body(response: httpx.Response, limit: int) -> bytes:
    """An answer's bytes. Raises StorageUnavailable beyond the limit."""
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > limit:
            raise StorageUnavailable(what=str(response.url), why=f"the answer has more than {limit} bytes")
    return bytes(content)


def _require_digest(place: str, wanted: str, found: str) -> None:
    """Raise StorageUnavailable unless the content has the wanted digest."""
    if wanted != f"sha256:{found}":
        raise StorageUnavailable(what=place, why=f"content of another digest than {wanted[:80]} came")


def _bad_answer(url: str, response: httpx.Response, challenge: str, *, logged_in: bool) -> Exception:
    """The error for an answer that is not a good one. `logged_in`: this machine has a login of its own there, so a
    denial may be due to that login, and says nothing about the image.
    """
    codes: frozenset[str] = frozenset()
    try:
        errors = from_json(_body(response, _DOCUMENT_BYTES))["errors"]
        codes = frozenset(str(error["code"]).upper() for error in errors)
    except (ValueError, KeyError, TypeError, StorageUnavailable):
        # No registry's answer: the status alone counts.
        pass
    if dict(_PARAMETER.findall(challenge)).get("error") == "insufficient_scope":
        codes |= {"DENIED"}
    if logged_in:
        codes -= {"DENIED"}
    why = f"{url} answers HTTP {response.status_code} {' '.join(sorted(codes))}".strip()[:300]
    match verdict.of_registry(response.status_code, codes):
        case Verdict.APP:
            return Refused(why=why)
        case Verdict.MACHINE:
            return RefusedHere(why=why)
        case Verdict.RETRY:
            wait = read_retry_after(response.headers.get("retry-after"), datetime.now(UTC))
            kind = RateLimited if verdict.is_rate_limit(response.status_code, codes) else StorageUnavailable
            return kind(what=url, why=why, retry_after=wait)


def _kind(content: bytes, header: str) -> str:
    """A manifest's media type: the one in it, else the header's."""
    try:
        return str(from_json(content).get("mediaType") or header)
    except (ValueError, AttributeError):
        return header


def _choose(content: bytes, platform: tuple[str, str]) -> str:
    """Digest of the manifest for this platform, else of the first that names none, whose configuration then does (the
    platform is optional in an OCI index). Raises WrongPlatform, StorageUnavailable.
    """
    try:
        offers = [(each.get("platform"), str(each["digest"])) for each in from_json(content)["manifests"]]
        made_for = [(str(x["os"]), str(x["architecture"]), digest) for x, digest in offers if x is not None]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageUnavailable(what="the image", why=f"its index cannot be read ({error})") from error
    fitting = [digest for system, processor, digest in made_for if (system, processor) == platform]
    unnamed = [digest for named, digest in offers if named is None]
    for digest in (*fitting, *unnamed):
        if _SHA256.fullmatch(digest):
            return digest
    found = ", ".join(sorted({f"{system}/{processor}" for system, processor, _ in made_for}))
    raise WrongPlatform(why=f"the image is for {found[:100]}, and this machine is {'/'.join(platform)}")


def _read_manifest(content: bytes, digest: str) -> Manifest:
    """The manifest in a registry's JSON. Raises KeyError, TypeError, ValueError, AttributeError if it is no manifest of
    layers; RefusedHere for a kind of layer that only another release may know.
    """
    read = from_json(content)
    layers = tuple(_blob(layer) for layer in read["layers"])
    for layer in read["layers"]:
        if _LAYERS.fullmatch(str(layer["mediaType"])) is None:
            raise RefusedHere(why=f"the image has a layer of the kind {str(layer['mediaType'])[:80]}")
    if len(layers) > _MOST_LAYERS:
        raise ValueError(f"more than {_MOST_LAYERS} layers")
    return Manifest(digest, _blob(read["config"]), layers)


def _blob(entry: Mapping[str, object]) -> Blob:
    """A layer or config that a manifest names. Raises ValueError."""
    digest, size = str(entry["digest"]), entry["size"]
    if _SHA256.fullmatch(digest) is None or type(size) is not int or not 0 <= size < 2**63:
        raise ValueError("a blob without digest or size")
    return Blob(digest, size, gzip=str(entry["mediaType"]).endswith("gzip"))
