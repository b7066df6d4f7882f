"""Reading image names."""

from __future__ import annotations

import pytest

from workers.image import split_reference


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("docker.io/iexechub/app:1.0", ("docker.io/iexechub/app", "1.0")),
        ("localhost:5000/app:x", ("localhost:5000/app", "x")),
        ("app@sha256:abc", ("app", "sha256:abc")),
        ("localhost:5000/app", None),
        ("app", None),
        ("app:", None),
        ("", None),
        (":1", None),
    ],
)
def test_a_pull_needs_a_tag_or_a_digest(image: str, expected: tuple[str, str] | None) -> None:
    assert split_reference(image) == expected
