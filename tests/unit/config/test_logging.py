from __future__ import annotations

from config.logging import redact


def test_passwords_in_urls_are_cut_out_of_log_lines() -> None:
    line = redact(None, "info", {"event": "Lost amqp://me:hush@host:1/core.", "url": "mongodb://u:p4ss@h/db", "n": 1})
    assert line == {"event": "Lost amqp://me:***@host:1/core.", "url": "mongodb://u:***@h/db", "n": 1}
