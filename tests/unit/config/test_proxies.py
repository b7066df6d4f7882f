from __future__ import annotations

import os
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import proxies
from protocol.errors import BadSetting

ENTRIES = st.sampled_from(
    [
        "10.0.0.0/8",
        "[::1]",
        "::1",
        "[fe80::1]:8080",
        ".corp",
        "*.corp",
        "*",
        "host:80",
        " a ",
        "",
        "http://x",
        "[",
        "]:",
        "%",
    ]
)
PROXIES = st.sampled_from(
    ["http://127.0.0.1:9", "127.0.0.1:9", "https://u:p@h:1", "socks5://h:1", "h:x", "ftp://h", "", "//"]
)
NAMES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "http_proxy", "https_proxy")


def clear(patched: pytest.MonkeyPatch) -> None:
    """Remove all proxy variables, and have whatever is set from now on taken back."""
    for name in (*NAMES, "NO_PROXY", "no_proxy"):
        patched.setenv(name, "")
        patched.delenv(name)


@given(
    st.dictionaries(st.sampled_from(NAMES), PROXIES),
    st.lists(ENTRIES | st.text(max_size=6)).map(",".join).filter(lambda text: "\0" not in text),
)
def test_whatever_proxy_variables_say_loopback_calls_go_direct_or_one_sentence_names_the_variable(
    given_proxies: dict[str, str], exceptions: str
) -> None:
    environ = {**given_proxies, "NO_PROXY": exceptions}
    with pytest.MonkeyPatch.context() as patched:
        clear(patched)
        with suppress(UnicodeEncodeError):  # no environment can hold it
            for name, value in environ.items():
                patched.setenv(name, value)
            try:
                proxies.settle(os.environ)
            except BadSetting as error:
                assert str(error.fields["name"]).upper() in {*NAMES, "NO_PROXY"}
                return
            with httpx.Client(verify=False) as client:
                for url in ("http://127.0.0.1:5", "http://localhost:5", "https://127.0.0.1", "http://[::1]:5"):
                    assert client._transport_for_url(httpx.URL(url)) is client._transport


def test_a_proxy_is_used_for_all_other_hosts() -> None:
    with pytest.MonkeyPatch.context() as patched:
        clear(patched)
        patched.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        proxies.settle(os.environ)
        with httpx.Client() as client:
            assert client._transport_for_url(httpx.URL("http://pool.example")) is not client._transport


def test_a_socks_proxy_is_refused_in_a_sentence_without_its_password() -> None:
    with pytest.raises(BadSetting, match="ALL_PROXY is wrong: Sluice cannot speak to a SOCKS proxy") as refused:
        proxies.settle({"all_proxy": "socks5://me:hush@h:1"})
    assert "hush" not in str(refused.value)


def test_without_proxy_variables_nothing_is_changed() -> None:
    environ = {"PATH": "/bin"}
    proxies.settle(environ)
    assert environ == {"PATH": "/bin"}
