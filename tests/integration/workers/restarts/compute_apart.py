"""Computes one task, to be killed by a test: `python -m tests.integration.workers.restarts.compute_apart`.

Arguments: home folder, Docker host, then the assignment as JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

from config.settings import read_settings
from protocol.wire import Assignment
from tests.integration.workers.conftest import IMAGE, open_bench
from workers.task.compute import compute


def main() -> None:
    """Compute until done or killed."""
    home, host, text = sys.argv[1:]
    # Nobody listens there: reports get lost, which must not matter.
    settings = read_settings(
        home=Path(home), docker_host=host, api_url="http://127.0.0.1:9", worker_name="test", local_images=IMAGE
    )
    compute(open_bench(settings), Assignment.model_validate_json(text))


if __name__ == "__main__":
    main()
