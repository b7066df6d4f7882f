"""Log lines: secrets that are cut out, and what writes no line."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from config.logging import configure, redact
from config.settings import read_settings


@pytest.fixture
def loggers() -> Iterator[None]:
    """Puts back what `configure` changes."""
    root, server = logging.getLogger(), logging.getLogger("uvicorn")
    before = (root.handlers[:], root.level, server.level)
    yield
    root.handlers[:], level, server_level = before
    root.setLevel(level)
    server.setLevel(server_level)


def test_passwords_in_urls_are_cut_out_of_log_lines() -> None:
    line = redact(None, "info", {"event": "Lost amqp://me:hush@host:1/core.", "url": "mongodb://u:p4ss@h/db", "n": 1})
    assert line == {"event": "Lost amqp://me:***@host:1/core.", "url": "mongodb://u:***@h/db", "n": 1}


@pytest.mark.usefixtures("loggers")
def test_no_line_is_written_of_what_a_stranger_sends_that_is_no_http(capsys: pytest.CaptureFixture[str]) -> None:
    configure(read_settings(), process="api")
    # What uvicorn says of each such request, and of each that asks for another protocol.
    for words in ("Invalid HTTP request received.", "Unsupported upgrade request."):
        logging.getLogger("uvicorn.error").warning(words)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "Exception in ASGI application" in said[0]
