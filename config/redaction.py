"""Cuts secrets out of text with URLs in it: for log lines, and for what commands print. Pure; linear in the text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

_SCHEME_END = "://"
#: What ends the part of a URL that can hold a password. Every `://` holds one, so no character is looked at twice.
_AUTHORITY_END = re.compile(r"[/\\?#\s\"'<>]")
HIDDEN = "***"


def without_passwords(text: str) -> str:
    """`text` with `***` in place of every `user:password@`'s password, and of a `token@` without a colon."""
    if _SCHEME_END not in text:
        return text
    pieces = []
    done = 0
    at = text.find(_SCHEME_END)
    while at >= 0:
        start = at + len(_SCHEME_END)
        found = _AUTHORITY_END.search(text, start)
        end = found.start() if found else len(text)
        # The last one: a password may hold an `@` that nobody escaped.
        userinfo_end = text.rfind("@", start, end)
        if userinfo_end >= 0:
            colon = text.find(":", start, userinfo_end)
            pieces += [text[done:start] if colon < 0 else text[done : colon + 1], HIDDEN]
            done = userinfo_end
        # The colon of the next `://` does not end this part, so it is the last character of it.
        at = text.find(_SCHEME_END, max(start, end - 1))
    return "".join([*pieces, text[done:]])


def redacted(value: object) -> object:
    """`value` with passwords cut out of every text in it, however deep in lists and mappings."""
    match value:
        case str():
            return without_passwords(value)
        case Mapping():
            return {key: redacted(item) for key, item in value.items()}
        case list() | tuple():
            return [redacted(item) for item in value]
        case _:
            return value


def public_url(url: str) -> str:
    """A URL for people, with everything hidden that may be a key: password, path, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    if not parts.netloc:
        # Not an address of another machine: `unix:///run/docker.sock`.
        return url if parts.scheme == "unix" or _SCHEME_END not in url else HIDDEN
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.path in {"", "/"} else f"/{HIDDEN}"
    credentials = f"{HIDDEN}@" if "@" in parts.netloc else ""
    query, fragment = HIDDEN if parts.query else "", HIDDEN if parts.fragment else ""
    return urlunsplit((parts.scheme, f"{credentials}{host}", path, query, fragment))
