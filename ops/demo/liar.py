"""A worker machine whose owner changed its software: it votes for a result that its container never gave.

For the demo and the tests of dishonest workers. Run as `python -m ops.demo.liar`, with the settings of a worker.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec

from config.logging import configure
from config.settings import settings
from protocol.ethereum.hexbytes import to_bytes, to_hex
from protocol.ethereum.keccak import keccak
from protocol.types import Hash32
from workers import machine
from workers.data import outputs
from workers.data.outputs import PackedResult

P = ParamSpec("P")


def lying(pack: Callable[P, PackedResult]) -> Callable[P, PackedResult]:
    """`pack` (`workers`' function that packs a result) with a wrong digest in place of the true one."""

    @functools.wraps(pack)
    def lie(*args: P.args, **kwargs: P.kwargs) -> PackedResult:
        """What `pack` returns, with another digest."""
        truth = pack(*args, **kwargs)
        return replace(truth, digest=Hash32(to_hex(keccak(to_bytes(truth.digest)))))

    return lie


def main() -> None:
    """Main of the lying worker machine: run it until SIGTERM with `outputs.pack` replaced by `lying`."""
    outputs.pack = lying(outputs.pack)
    now = settings()
    configure(now, process="worker")
    machine.run(now)


if __name__ == "__main__":
    main()
