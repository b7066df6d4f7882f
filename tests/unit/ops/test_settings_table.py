from __future__ import annotations

from pathlib import Path

from ops.settings_table import markdown


def test_the_settings_page_is_what_the_settings_class_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "settings.md"
    assert page.read_text() == markdown(), "run: sluice settings --markdown > docs/settings.md"


def test_no_secret_default_is_printed() -> None:
    assert "sluice:sluice" not in markdown()
