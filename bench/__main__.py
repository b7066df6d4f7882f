"""`python -m bench NAME`: all, compare, latency, headstart, throughput, idle, lane, catchup, bag, crowd, connected,
assign, flat, faults, blackout, chaos, cluster, workerdrop, hostile, takeover, ledger; each has --help.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from bench import (
    all_short,
    bag,
    blackout,
    catchup,
    cluster,
    faults,
    flat,
    headstart,
    idle,
    lane,
    latency,
    ledger,
    takeover,
    throughput,
)
from bench.chaos import run as chaos
from bench.crowds import connected, crowd, hostile, rounds, workerdrop
from config.logging import configure
from config.settings import read_settings
from protocol.errors import SluiceError

app = typer.Typer(help="Measure the whole pool on the local stack; one line of JSON per figure.", no_args_is_help=True)
#: Accepted because every command has it; the output is JSON lines anyhow.
Json = Annotated[bool, typer.Option("--json", help="Always on: the output is JSON lines.")]


@app.command("all")
def all_command(
    to: Annotated[Path | None, typer.Option(help="File; default bench/results/<time>.json.")] = None,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Every benchmark of speed in a short form, and their ratios in a file for `compare`. Takes some ten minutes."""
    _print_lines(all_short.run(to))


@app.command("compare")
def compare_command(
    before: Annotated[Path, typer.Argument(help="A file of `all`, e.g. bench/results/baseline.json.")],
    after: Annotated[Path, typer.Argument(help="A later one.")],
) -> None:
    """What got worse from one file of `all` to another; exits with 1 if a ratio lost a fifth or is missing."""
    found = all_short.compare_files(before, after)
    for sentence in found.worse:
        print(f"Worse: {sentence}")
    for sentence in found.changed:
        print(sentence)
    for sentence in filter(None, map(all_short.busy, (before, after))):
        print(sentence)
    print(f"{found.compared} ratios compared, {len(found.worse)} worse.")
    if found.worse:
        sys.exit(1)


@app.command("latency")
def latency_command(
    block_time: Annotated[float, typer.Option(help="Seconds between blocks.")] = 1.0,
    tasks: Annotated[int, typer.Option(help="Tasks per trust, one after the other.")] = 20,
    state: Annotated[latency.State, typer.Option(help="SLUICE_STATE of the pool.")] = "latest",
    node: Annotated[
        latency.Node, typer.Option(help="Whose the chain is. geth is built once (5 minutes); whole seconds only.")
    ] = "anvil",
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Blocks from match to finalize on an idle pool. Example: latency --block-time 2 --tasks 20 --state pending"""
    _require_whole_seconds(node, block_time)
    _print_lines(latency.run(block_time=block_time, tasks=tasks, state=state, node=node))


@app.command("headstart")
def headstart_command(
    block_time: Annotated[float, typer.Option(help="Seconds between blocks.")] = 1.0,
    deals: Annotated[int, typer.Option(help="Deals, one after the other.", min=1)] = 40,
    node: Annotated[latency.Node, typer.Option(help="Whose the chain is; see latency.")] = "anvil",
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """How long a match waits for its block, and what computing meanwhile would save. Example: headstart --node geth"""
    _require_whole_seconds(node, block_time)
    _print_lines(headstart.run(block_time=block_time, deals=deals, on_geth=node == "geth"))


@app.command("throughput")
def throughput_command(
    tasks: Annotated[int | None, typer.Option(help="Tasks in a bag; default 100, with --null 1000.")] = None,
    workers: Annotated[int, typer.Option(help="Worker machines.")] = 4,
    slots: Annotated[int | None, typer.Option(help="Tasks at once per machine; default 2, with --null 8.")] = None,
    null: Annotated[
        bool, typer.Option("--null", help="No containers: what Sluice itself takes; trust 1 and 3.")
    ] = False,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Also say what the costs are made of.")] = False,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Tasks a minute of one bag of no-op containers at 1 s blocks. Example: throughput --tasks 100 --workers 4"""
    if null:
        _print_lines(throughput.run_null(tasks=tasks or 1000, workers=workers, slots=slots or 8, breakdown=breakdown))
    else:
        _print_lines(throughput.run(tasks=tasks or 100, workers=workers, slots=slots or 2, breakdown=breakdown))


@app.command("idle")
def idle_command(
    seconds: Annotated[float, typer.Option(help="How long to watch.", min=10)] = 60.0,
    workers: Annotated[int, typer.Option(help="Worker machines.")] = 4,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Also say what the figures are made of.")] = False,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """What a pool without work costs a minute, at 1 s blocks. Example: idle --seconds 120"""
    _print_lines(idle.run(seconds=seconds, workers=workers, breakdown=breakdown))


@app.command("faults")
def faults_command(
    only: Annotated[list[str] | None, typer.Option(help="Names of faults; default all.")] = None,
    tasks: Annotated[int, typer.Option(help="Tasks in the bag.")] = faults.TASKS,
    trust: Annotated[int, typer.Option(help="Trust of the deal.")] = 1,
    state: Annotated[latency.State, typer.Option(help="SLUICE_STATE of the pool.")] = "latest",
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """A fault in the middle of a bag, one run per fault. Example: faults --only lane --only rabbitmq"""
    _print_lines(faults.run(only=only or (), tasks=tasks, trust=trust, state=state))


@app.command("blackout")
def blackout_command(
    tasks: Annotated[int, typer.Option(help="Open tasks: two fifths of trust 1 and 3 each, a fifth of trust 5.")] = 200,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Scheduler, machines and servers are killed at once in the middle of a bag; stops the stack's servers, so nothing
    else may use them meanwhile. Example: blackout --tasks 200
    """
    _print_lines(blackout.run(tasks=tasks))


@app.command("chaos")
def chaos_command(
    tasks: Annotated[int, typer.Option(help="Tasks, a third each of trust 1, 3 and 5.", min=1)] = 60,
    seed: Annotated[int, typer.Option(help="Of the plan: the same seed strikes the same.")] = 1,
    every: Annotated[float, typer.Option(help="Seconds between two faults.", min=0.5)] = 5.0,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """A fault every few seconds, strangers among the machines. Example: chaos --tasks 60 --seed 1 --every 5"""
    _print_lines(chaos.run(tasks=tasks, seed=seed, every=every))


@app.command("cluster")
def cluster_command(
    tasks: Annotated[
        int, typer.Option(help="Tasks of a bag: two fifths of trust 1 and 3 each, a fifth of trust 5.", min=5)
    ] = 50,
    only: Annotated[
        list[str] | None, typer.Option(help="Members: rabbitmq-1, mongodb-2, host-1 …; default all.")
    ] = None,
    fault: Annotated[list[str] | None, typer.Option(help="kill, partition; default both.")] = None,
    null: Annotated[
        bool, typer.Option("--null", help="No containers: quicker, and on a busy machine steadier.")
    ] = False,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Each member of three clusters is killed and cut off in the middle of a bag. Example: cluster --only mongodb-1"""
    _print_lines(cluster.run(tasks=tasks, only=only or (), fault=fault or (), null=null))


@app.command("lane")
def lane_command(
    scale: Annotated[float, typer.Option(help="Multiplies the number of intents.")] = 1.0,
    only: Annotated[list[str] | None, typer.Option(help="Words in the names of cases; default all.")] = None,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Intents that one wallet's lane gets mined per second. Example: lane --only 1e9"""
    _print_lines(lane.run(scale=scale, only=only or ()))


@app.command("catchup")
def catchup_command(
    blocks: Annotated[int, typer.Option(help="Blocks of the long chain.", min=100)] = 50_000,
    only: Annotated[list[str] | None, typer.Option(help="Words in the names of cases; default all.")] = None,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Blocks per second at which the watcher follows a chain it has not seen. Example: catchup --blocks 50000"""
    _print_lines(catchup.run(blocks=blocks, only=only or ()))


@app.command("bag")
def bag_command(
    tasks: Annotated[int, typer.Argument(help="Tasks in the bag.", min=1)] = bag.TASKS,
    only: Annotated[list[str] | None, typer.Option(help="start, middle, open, expired, final; default all.")] = None,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """How long a small deal waits behind a large one, until both its deadlines passed. Example: bag 20000"""
    _print_lines(bag.run(tasks=tasks, only=tuple(only or ())))


@app.command("crowd")
def crowd_command(
    logins: Annotated[int, typer.Option(help="Fresh wallets that sign in.", min=1)] = 2000,
    pings: Annotated[int, typer.Option(help="Pings of those machines.", min=1)] = 50_000,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Sign-ins and pings a second at one API process, then an honest deal; exits with an error, in words, unless none
    got a 5xx and the deal is completed. Example: crowd --logins 2000 --pings 50000
    """
    _print_lines(crowd.run(logins=logins, pings=pings))


@app.command("connected")
def connected_command(
    machines: Annotated[int, typer.Option(help="Machines that sign in and connect.", min=1)] = 1000,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """What machines at rest cost RabbitMQ, and how long they are away when it restarts; stops the stack's RabbitMQ, so
    nothing else may use it meanwhile. Example: connected --machines 2000
    """
    _print_lines(connected.run(machines=machines))


@app.command("assign")
def assign_command(
    workers: Annotated[int, typer.Option(help="Machines enrolled.", min=1)] = 10_000,
    connected: Annotated[int, typer.Option(help="Of them, those that are there.", min=1)] = 1_000,
    number: Annotated[int, typer.Option("--rounds", help="Rounds measured.", min=1)] = 100,
    any_speed: Annotated[bool, typer.Option(help="Do not fail when a round takes long.")] = False,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """How long a round of matching takes beside thousands of machines. Example: assign --workers 10000"""
    _print_lines(rounds.run(workers=workers, connected=connected, rounds=number, any_speed=any_speed))


@app.command("flat")
def flat_command(
    ended: Annotated[int, typer.Option(help="Ended tasks of the large past.", min=1000)] = 100_000,
    workers: Annotated[int, typer.Option(help="Enrolled machines of the large past.", min=10)] = 10_000,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """What a step costs beside a large past, against a small one. Example: flat --ended 1000000 --workers 10000"""
    _print_lines(flat.run(ended=ended, workers=workers))


@app.command("workerdrop")
def workerdrop_command(
    machines: Annotated[int, typer.Option(help="Simulated machines.", min=1)] = 200,
    minutes: Annotated[float, typer.Option(help="Minutes in which they come and go.", min=0.1)] = 4.0,
    seed: Annotated[int, typer.Option(help="Of who comes and goes when.")] = 1,
    any_speed: Annotated[bool, typer.Option("--any-speed", help="Do not judge times: others use the machine.")] = False,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Machines that join, work and leave at random. Example: workerdrop --machines 200 --minutes 4"""
    _print_lines(workerdrop.run(machines=machines, minutes=minutes, seed=seed, any_speed=any_speed))


@app.command("hostile")
def hostile_command(
    wallets: Annotated[int, typer.Option(help="Fresh wallets with 256 slots each that do no work.")] = 50,
    tasks: Annotated[int, typer.Option(help="Tasks of trust 1; half as many of trust 9.", min=2)] = 40,
    category: Annotated[int, typer.Option(help="Category of the deals: 0 is XS (300 s), 6 is TEST-10 (10 s).")] = 0,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """Run the same deals with and without liars, copiers and others, and a crowd that does no work. Example: hostile"""
    _print_lines(hostile.run(wallets=wallets, tasks=tasks, category=category))


@app.command("takeover")
def takeover_command(
    tasks: Annotated[
        int, typer.Option(help="Tasks: two fifths of trust 1 and 3 each, a fifth of trust 5.", min=5)
    ] = 50,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """The database is lost in the middle of a bag, and the pool adopted from the chain. Example: takeover --tasks 50"""
    _print_lines(takeover.run(tasks=tasks))


@app.command("ledger")
def ledger_command(
    tasks: Annotated[int, typer.Option(help="Tasks of trust 1, 3 and 5; some are reopened or claimed.", min=20)] = 1000,
    seed: Annotated[int, typer.Option(help="Of the deals and the reorgs.")] = 1,
    json: Json = True,  # noqa: ARG001 - the output is JSON either way
) -> None:
    """The ledger beside the chain after lies, reorgs, reopened and claimed tasks. Example: ledger --tasks 100"""
    _print_lines(ledger.run(tasks=tasks, seed=seed))


def _require_whole_seconds(node: latency.Node, block_time: float) -> None:
    """Raise BadParameter for blocks that geth cannot make."""
    if node == "geth" and block_time != round(block_time):
        raise typer.BadParameter("geth's blocks are whole seconds apart.", param_hint="--block-time")


def _print_lines(lines: Iterator[str]) -> None:
    """Print each line as it comes."""
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    # Logs go to standard error, and only what matters: standard output is for the figures.
    configure(read_settings(log_level="warning", log_format="text"), process="bench")
    try:
        app()
    except SluiceError as error:
        sys.exit(f"bench: {error}")
