"""Reading image names."""

from __future__ import annotations

import pytest

from protocol.errors import TaskDeclined, TaskFailure
from protocol.results.error_result import Failure
from tests.unit.workers.assignments import assignment
from workers.sandbox.image import require_name, split_reference


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


@pytest.mark.parametrize(
    "image",
    ["docker.io/iexechub/app:1.0", "localhost:5000/app:x", "app@sha256:" + "ab" * 32, "a/b__c.d-e:T_1", "app:latest"],
)
def test_a_name_that_an_image_can_have_is_asked_for(image: str) -> None:
    require_name(assignment(1, image=image))


@pytest.mark.parametrize(
    "image",
    [
        "",
        "app",
        "0123456789ab",
        "NOT/A/Name:1",
        "../containers/x:1",
        "a b:1",
        "app:",
        "a" * 600 + ":1",
        "app:1\n",
        "a?b:1",
    ],
)
def test_a_name_that_no_image_can_have_fails_the_task_alike_on_every_machine(image: str) -> None:
    with pytest.raises(TaskFailure) as caught:
        require_name(assignment(1, image=image))
    assert caught.value.cause == Failure.APP_IMAGE
    assert not isinstance(caught.value, TaskDeclined)
