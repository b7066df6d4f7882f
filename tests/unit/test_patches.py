"""No test changes a clock for the whole process: other threads wait by it too, and may wait for ever."""

from __future__ import annotations

import re

from tests.documents import ROOT
from tests.sources import files

#: `time.sleep` by way of any module that imports `time` is everybody's.
_OF_THE_PROCESS = re.compile(r"""setattr\(\s*(?:time,|["'][\w.]+\.time\.\w+["'])""")


def test_no_test_changes_the_clock_of_the_whole_process() -> None:
    tests = files(ROOT / "tests", {".py"})
    found = [str(file.relative_to(ROOT)) for file in tests if _OF_THE_PROCESS.search(file.read_text())]
    assert found == []
