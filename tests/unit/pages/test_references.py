"""What pages name in the code exists: modules and what is in them, files, links with their anchors, targets of make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config import topology
from tests.documents import PAGES, ROOT

#: Packages whose modules pages name with dots.
PACKAGES = "chain|config|pipeline|protocol|workers|beat|sms|ops|bench"
#: Folders whose files pages name.
FOLDERS = "tests|docs|monitoring|ops|bench|workers|pipeline|chain|config|enclaves|\\.ci"
_MODULE = re.compile(rf"`((?:{PACKAGES})(?:\.\w+)+)(?:\([^`]*\))?`")
_FILE = re.compile(rf"`((?:{FOLDERS})/[\w./-]*\w)")
_LINK = re.compile(r"\]\(([^)#\s]*)#?([^)\s]*)\)")
_TARGET = re.compile(r"`make ([a-z]+(?:-[a-z]+)*)|^make ([a-z]+(?:-[a-z]+)*)", re.MULTILINE)
#: What looks like a module and is none: tasks and queues of Celery, files.
_OTHERS = {*topology.PIPELINE_ROUTES, topology.RETRY_QUEUE, "sms.keys"}
#: What is made when it is asked for.
_MADE = ("bench/results/",)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pages
def test_every_module_on_a_page_exists_with_what_is_named_in_it(page: Path) -> None:
    named = set(_MODULE.findall(page.read_text())) - _OTHERS
    assert not {name for name in named if not _is_in_the_code(name)}


@pages
def test_every_file_on_a_page_exists(page: Path) -> None:
    named = {name for name in _FILE.findall(page.read_text()) if not name.startswith(_MADE)}
    assert not {name for name in named if not (ROOT / name).exists()}


@pages
def test_every_link_leads_to_a_page_and_to_a_heading_on_it(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text()), f"{target}#{anchor}"


@pages
def test_every_target_of_make_on_a_page_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {one or other for one, other in _TARGET.findall(page.read_text())}
    assert not {name for name in named if f"\n{name}:" not in makefile}


def _is_in_the_code(name: str) -> bool:
    """Whether a dotted name is a package or module, or one of those and names that stand in it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:length])
        module = place.with_suffix(".py")
        if module.exists() or place.is_dir():
            text = module.read_text() if module.exists() else ""
            return all(re.search(rf"\b{part}\b", text) for part in parts[length:])
    return False


def _anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}
