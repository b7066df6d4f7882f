"""Names of app images, and which image an order names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Refused, RefusedHere, SluiceError, StorageUnavailable, TaskDeclined, TaskFailure
from protocol.results.error_result import Failure
from tests.unit.workers.assignments import assignment
from workers.data.image_name import ImageName, read_image_name
from workers.sandbox.images.image import AppImage, require_name

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker.io/iexechub/app:1.0", ImageName("docker.io", "iexechub/app", "1.0", None)),
        ("iexechub/app:1.0", ImageName("docker.io", "iexechub/app", "1.0", None)),
        ("index.docker.io/app:1", ImageName("docker.io", "library/app", "1", None)),
        ("python:3.11", ImageName("docker.io", "library/python", "3.11", None)),
        ("localhost:5000/app:x", ImageName("localhost:5000", "app", "x", None)),
        ("GHCR.io/a/b:c", ImageName("ghcr.io", "a/b", "c", None)),
        (f"app@{DIGEST}", ImageName("docker.io", "library/app", None, DIGEST)),
        (f"ghcr.io/a/app:1@{DIGEST}", ImageName("ghcr.io", "a/app", "1", DIGEST)),
        ("localhost:5000/app", None),
        ("app@sha256:abc", None),
        (":1", None),
    ],
)
def test_a_name_is_written_out_in_full_and_needs_a_tag_or_a_digest(text: str, expected: ImageName | None) -> None:
    assert read_image_name(text) == expected


@given(st.text(alphabet="0123456789abcdef", min_size=1, max_size=64))
def test_an_images_id_names_nothing(image_id: str) -> None:
    assert read_image_name(image_id) is None
    assert read_image_name(f"sha256:{image_id}") is None or ":" in f"sha256:{image_id}"


@pytest.mark.parametrize(
    "image",
    ["docker.io/iexechub/app:1.0", "localhost:5000/app:x", f"app@{DIGEST}", "a/b__c.d-e:T_1", "app:latest"],
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


def manifest_where_the_checksums(outcome: SluiceError | str) -> str:
    """What is taken where the registry answers so for the app's checksum, and has an image of the tag."""

    class Registry:
        def manifest(self, wanted: str) -> str:
            if not wanted.startswith("sha256:"):
                return "the tag's"
            if isinstance(outcome, SluiceError):
                raise outcome
            return outcome

    image = cast("Any", AppImage.__new__(AppImage))
    image._assignment = SimpleNamespace(image_checksum="0x" + "ab" * 32)
    image._name = SimpleNamespace(digest=None, wanted="1")
    return cast("str", image._manifest(Registry()))


def test_the_image_of_the_apps_checksum_counts_before_the_tags() -> None:
    assert manifest_where_the_checksums("the checksum's") == "the checksum's"
    assert manifest_where_the_checksums(Refused(why="it has none")) == "the tag's"


@pytest.mark.parametrize(
    "error",
    [RefusedHere(why="more than 5 bytes, the most that this machine takes"), StorageUnavailable(what="x", why="away")],
)
def test_an_image_that_only_this_machine_cannot_take_is_not_replaced_by_the_tags(error: SluiceError) -> None:
    with pytest.raises(type(error)):
        manifest_where_the_checksums(error)
