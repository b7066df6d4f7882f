"""Words that only we understood do not come back: each has a replacement from the field's own terms.

Matches are whole words in any case, in names (an underscore parts words), docstrings, comments and text: of code,
tests, pages, images and alerts.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.sources import files

ROOT = Path(__file__).parents[2]
#: Where prose is: folders, and pages beside them.
CODE = ("bench", "beat", "chain", "config", "ops", "pipeline", "protocol", "sms", "workers")
FOLDERS = (*CODE, "docker", "docs", "enclaves", "monitoring", "tests")
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "Makefile",
    "docker-compose.yml",
    "pyproject.toml",
    ".ci/run",
    ".ci/nightly",
)
WRITTEN = frozenset(
    (".py", ".md", ".yml", ".yaml", ".json", ".js", ".mjs", ".go", ".html", ".css", ".sh", ".conf", ".config", ".cfg")
)
#: What may not be written (a regular expression over one line), and what to write in its place.
WORDS = (
    (r"\bPASSING\b", "transient errors"),
    (r"\bmined[ _]count\b", "account nonce (`latest`)"),
    (r"dearer", "fee bump, replacement transaction"),
    (r"\b(give|gives|giving|gave|given)[ _]way\b", "no-op replacement (0-value self-transfer)"),
    (r"\btransfers? of nothing\b", "0-value self-transfer"),
    (r"\bcoins?\b", "native token; amounts in wei"),
    (r"\b(im)?patien(ce|t|tly)\b|Patient[A-Z]|PATIENCE", "timeout, `ConfirmTimeoutCelery`"),
    (r"\bwake-ups owed\b", "pending notifications"),
    (r"(?<![a-z])incumbents?(?![a-z])", "iExec Core or iExec Worker, with its version"),
    (r"\bidem\b", "say it again"),
    (r"\bset[ _]aside\b", "quarantined, with its reason"),
    (r"\b(said|say|says) so\b", "logged, reported (where)"),
    (
        r"\b(in doubt|doubtful|doubted|resting|rested|stirs?|stirred|wakers?)\b",
        "suspected, cooling down, woken, notifier",
    ),
    (r"\b(arena|desk|actor)\b|\bclass (Ground|Look)\b", "the thing's own name: bench pool, run context, sender …"),
    (r"\b(Workbench|Keeper|keeper|pulse)\b", "WorkerContext, Upkeep"),
    (r"behind the \w+' backs?\b|in this instant\b", "what happens, without persons"),
    (r"\bin vain\b|\bfor want of\b", "without effect, without an answer, for lack of"),
    (r"\b[Mm]end(s|ed|ing)?\b(?![\"'])", "repair, fix, correct"),
)


#: Names of stored fields, which stay for the databases that have them.
STORED = re.compile(r"    coins: Wei|\"coins\"|return self\.coins$|facts\.coins|facts\[.coins.\]")
#: Words that are ordinary English beside code: in pages, and in what tests play.
IN_CODE = ("so\\b",)


@cache
def _written() -> dict[Path, str]:
    """The text of each file with prose; not of this one, which names the words."""
    inside = [path for folder in FOLDERS for path in files(ROOT / folder, WRITTEN)]
    found = [*inside, *(ROOT / page for page in PAGES)]
    return {path: path.read_text() for path in found if path != Path(__file__)}


@pytest.mark.parametrize(("word", "instead"), WORDS)
def test_a_private_word_does_not_come_back(word: str, instead: str) -> None:
    pattern = re.compile(word, re.IGNORECASE if word.islower() else 0)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in _written().items()
        if path.relative_to(ROOT).parts[0] in CODE or not any(each in word for each in IN_CODE)
        # Nearly all have none, and splitting is dear.
        if pattern.search(text.replace("_", " "))
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line.replace("_", " ")) and not STORED.search(line)
    ]
    assert not found, f"write {instead!r} in place of {word!r}:\n" + "\n".join(found)
