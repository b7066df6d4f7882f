"""Dockerfile, compose file and the pages for operators say what the code has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from config.settings import Settings, StackSettings

ROOT = Path(__file__).parents[3]
KNOWN = {f"SLUICE_{name.upper()}" for name in Settings.model_fields} | {
    f"SLUICE_STACK_{name.upper()}" for name in StackSettings.model_fields
}
PAGES = (
    "docker-compose.yml",
    "docker/Dockerfile",
    "docker/pool.env.example",
    "README.md",
    *(str(page.relative_to(ROOT)) for page in (ROOT / "docs/quickstart").iterdir()),
)


def _read(path: str) -> str:
    return (ROOT / path).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_is_named_exists(page: str) -> None:
    assert set(re.findall(r"SLUICE_[A-Z][A-Z_]*[A-Z]", _read(page))) <= KNOWN


def test_the_image_holds_every_package() -> None:
    packages = tomllib.loads(_read("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = re.findall(r"^COPY (\w+) \1$", _read("docker/Dockerfile"), re.MULTILINE)
    assert sorted(copied) == sorted(packages)


def test_the_image_is_built_with_the_uv_of_the_makefile() -> None:
    made = re.search(r"UV_VERSION := (\S+)", _read("Makefile"))
    assert made is not None
    assert f"uv=={made[1]}" in _read("docker/Dockerfile")


def test_the_compose_file_has_the_stacks_kubo() -> None:
    pinned = re.search(r"github.com/ipfs/kubo (v\S+)", _read("ops/stack/kubo/go.mod"))
    assert pinned is not None
    assert f"ipfs/kubo:{pinned[1]}" in _read("docker-compose.yml")


def test_no_secret_is_sent_to_the_engine_that_builds_the_image() -> None:
    ignored = _read(".dockerignore").splitlines()
    mounted = re.findall(r"file: \./(\S+)/\S+ \}", _read("docker-compose.yml"))
    assert mounted
    assert {*mounted, "docker/pool.env"} <= set(ignored)
