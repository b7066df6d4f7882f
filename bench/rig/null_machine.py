"""A worker machine whose apps take no time: what the demo's app would leave is written at once, without a container.

All else is as on every machine, so that `bench throughput --null` measures Sluice and not the engine. Run as `python -m
bench.rig.null_machine`, with the settings of a worker. It works on the local stack's chain only, and no release has it:
the package `bench` is not installed.
"""

from __future__ import annotations

from pathlib import Path

from bench.rig.demo_result import honest_files
from config.logging import configure
from config.settings import Settings, settings
from ops.poco.state import CHAIN_ID
from protocol.errors import BadSetting
from workers import machine
from workers.sandbox import run_app
from workers.sandbox.engine.container_state import ContainerExit
from workers.sandbox.run_app import AppRun


def write_result(run: AppRun, *, resumed: bool) -> ContainerExit:
    """Stands in for `run_app`: the end of a container that has left the demo's result and printed nothing."""
    if resumed:
        run.clear()
    variables = run.spec.environment
    index, count = int(variables["IEXEC_BOT_TASK_INDEX"]), int(variables["IEXEC_BOT_SIZE"])
    for name, content in honest_files(index, count, " ".join(run.spec.command)).items():
        (Path(run.spec.outputs) / name).write_bytes(content)
    return ContainerExit(0, out_of_memory=False, timed_out=False)


def require_development_chain(own: Settings) -> None:
    """Raise BadSetting for every chain but the local stack's: elsewhere such a machine would lose its stakes."""
    if "chain_id" not in own.model_fields_set or own.chain_id != CHAIN_ID:
        raise BadSetting(
            name="SLUICE_CHAIN_ID",
            why="a machine without containers works on a development chain only",
            fix=f"Set {CHAIN_ID}, the local stack's, or run `sluice worker run`.",
        )


def main() -> None:
    """Main of the machine: run it until SIGTERM, with `write_result` in place of `run_app`. Raises BadSetting."""
    own = settings()
    require_development_chain(own)
    run_app.run_app = write_result
    configure(own, process="worker")
    machine.run(own)


if __name__ == "__main__":
    main()
