"""What docs/quickstart/worker.md prints for machines that run all the time, with only its paths and names replaced."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from tests.documents import FILES, ROOT, SHELL, Block, blocks

PAGE = ROOT / "docs/quickstart/worker.md"
#: Folders of the page.
HOME, SETTINGS = "/var/lib/sluice", "/etc/sluice"
ENGINE = "/var/lib/docker"


def docker_run(replaced: Mapping[str, str]) -> list[str]:
    """Words of the `docker run …` command after `docker`."""
    (command,) = [line for block in _blocks(SHELL) for line in block.commands() if line.startswith("docker run ")]
    return [_replace(word, replaced) for word in shlex.split(command)[1:]]


def settings(replaced: Mapping[str, str]) -> str:
    """The file `worker.env`."""
    (text,) = [block.text for block in _blocks(SHELL) if block.text.startswith("SLUICE_")]
    return _replace(text, replaced)


def unit() -> str:
    """The file `sluice-worker.service`."""
    (text,) = [block.text for block in blocks(PAGE) if block.language in FILES and "[Service]" in block.text]
    return text


def write_settings(folder: Path, replaced: Mapping[str, str], more: Mapping[str, str]) -> None:
    """Write `worker.env` into a folder, with settings that this pool asks for besides."""
    own = "".join(f"{name}={value}\n" for name, value in more.items())
    (folder / "worker.env").write_text(settings(replaced) + own)


def _blocks(language: str) -> list[Block]:
    return [block for block in blocks(PAGE) if block.language == language]


def _replace(text: str, replaced: Mapping[str, str]) -> str:
    for words, replacement in replaced.items():
        text = text.replace(words, replacement)
    return text
