"""Passwords and tokens that are cut out of any text."""

from __future__ import annotations

from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from config.redaction import public_url, redacted, without_passwords

#: Letters that URLs give a meaning, and some that they do not.
TEXT = st.text("abc:/@?#. \"'<>\\\n_-%", max_size=40)
#: What stands for a secret: found again wherever it was left in.
SECRET = "s3cr3t"


@given(TEXT, st.sampled_from(["amqp", "mongodb+srv", "https"]), st.text(max_size=8), st.text(max_size=8), TEXT)
def test_a_password_is_cut_out_of_any_text_that_holds_its_url(
    before: str, scheme: str, user: str, more: str, after: str
) -> None:
    password = quote(SECRET + more, safe="")
    shown = without_passwords(f"{before}{scheme}://{quote(user, safe='')}:{password}@host/{after}")
    assert SECRET not in shown
    assert "@host/" in shown


@given(TEXT)
def test_text_without_credentials_stays_as_it_is(text: str) -> None:
    harmless = text.replace("@", "")
    assert without_passwords(harmless) == harmless


@given(TEXT)
def test_cutting_out_twice_changes_nothing_more(text: str) -> None:
    once = without_passwords(text)
    assert without_passwords(once) == once


def test_an_unescaped_at_sign_does_not_show_the_rest_of_a_password() -> None:
    assert without_passwords("mongodb://u:p@ss@h/db") == "mongodb://u:***@h/db"


def test_passwords_are_found_in_lists_and_mappings_too() -> None:
    assert redacted({"nodes": ["http://a:b@c", 1]}) == {"nodes": ["http://a:***@c", 1]}


def test_a_line_of_megabytes_is_no_more_work_than_its_length() -> None:
    # What took time with the square of the length would not come back from this before the test's time-out.
    for line in (
        "http://h/" + "a" * 2**21,
        "a" * 2**21 + "://",
        "://" * 2**20,
        "x://a:" * 2**19,
        "x://" + "@:" * 2**20,
    ):
        without_passwords(line)


@given(st.text("abck/?#=&@:", max_size=20))
def test_a_key_anywhere_in_a_nodes_address_is_not_shown(rest: str) -> None:
    for url in (f"https://node.example/v2/{SECRET}{rest}", f"https://{SECRET}@node.example/{rest}"):
        assert SECRET not in public_url(url)
        assert "node.example" in public_url(url)


def test_addresses_without_a_key_are_shown_whole() -> None:
    for url in ("http://127.0.0.1:8545", "unix:///var/run/docker.sock", "http://h:1/", "http://[::1]:5"):
        assert public_url(url) == url
