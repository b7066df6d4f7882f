"""The undisturbed run, then the disturbed one on a pool of its own: three deals at once, of trust 1, 3 and 5.

Every machine has been right on chain before, as in a pool that has worked for some time. The category has as many
seconds as there are tasks: the contribution deadline is at three times the undisturbed time or more, so that no fault
makes completion impossible. Only strangers can, where they alone decide a task and bring no result.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from bench.chaos.figures import (
    Figures,
    count_reverts,
    counting_starts,
    duplicates,
    failed_by,
    held_up_by,
    poll_until_zero,
    worst_delay,
)
from bench.chaos.following import Following, not_ended
from bench.chaos.injector import Injector
from bench.chaos.plan import CHAIN, MACHINE_NAMES, MACHINES, Strike, make_plan
from bench.chaos.relay import Relays
from bench.faults import nonce_gaps, pool_wallets
from bench.rig.bench_pool import BenchPool, BrokenPromise, prepared_pool
from bench.rig.strangers import Kind as Harm
from bench.rig.strangers import at_work, funded
from ops.pool.local import LocalPool, WorkerMachine
from ops.pool.servers import bring_up
from ops.pool.site import Servers
from protocol.poco.view import TaskStatus
from protocol.types import TaskId, Wallet
from tests.faulty.node import FaultyNode, serving, upstream

#: Trust of the deals, a third of the tasks each, and what each container does.
TRUSTS, WORK = (1, 3, 5), "sleep 1"
BLOCK_TIME = 1.0
#: Least seconds of the category.
LEAST_CATEGORY_SECONDS = 60
#: Strangers among the machines: one of each.
CAST = (Harm.LYING, Harm.VANISHING, Harm.UNREVEALING, Harm.GARBAGE)
#: Share of the tasks that are done when the last fault strikes.
STRUCK_SHARE = 0.8
#: A run ends after so many times the undisturbed seconds, and not before the final deadline (so many times the
#: category's seconds) and a claim: what strangers alone decided ends no sooner.
LIMIT_FACTOR, FINAL_FACTOR, CLAIM_SECONDS = 5.0, 10.0, 120.0
#: Seconds for which tasks wait for proven machines that are busy: what the shortest public category, of 300 s, has by
#: default, whatever the category here.
PROVEN_SECONDS = 60.0
#: Seconds for an undisturbed task: ten times what it takes on a machine with nothing else to do.
UNDISTURBED_SECONDS = 20.0
#: Seconds in which stakes, nonces and database have to be as they should, after the last end on chain.
SETTLE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run: its figures, when each task ended (seconds), and a sentence for each thing that went wrong."""

    figures: Figures
    ended: Mapping[TaskId, float]
    words: Sequence[str] = ()


def run(*, tasks: int, seed: int, every: float) -> Iterator[str]:
    """Run without faults, then with faults; yields one line of JSON. `every`: seconds between two faults.

    Raises BrokenPromise with a sentence for each promise that was broken.
    """
    undisturbed = _run_once(tasks, (), limit=max(_last_claim(tasks), tasks * UNDISTURBED_SECONDS))
    if undisturbed.words:
        raise BrokenPromise(what="The undisturbed run", why="\n".join(undisturbed.words))
    seconds = undisturbed.figures.seconds
    plan = make_plan(seed, tasks, every)
    disturbed = _run_once(tasks, plan, limit=max(_last_claim(tasks), LIMIT_FACTOR * seconds))
    delay = worst_delay(disturbed.ended.values(), undisturbed.ended.values())
    figures = replace(disturbed.figures, worst_delay_seconds=round(delay, 1), undisturbed_seconds=seconds, seed=seed)
    yield json.dumps(figures.to_json())
    wrong = [*figures.wrong(), *disturbed.words]
    if wrong:
        raise BrokenPromise(what=f"The run of seed {seed}", why="\n".join(wrong))


def _run_once(tasks: int, plan: tuple[Strike, ...], *, limit: float) -> RunResult:
    """Buy the deals on a fresh pool, inject the faults of `plan`, and return how all ended within `limit` seconds.

    Without faults (an empty plan), no strangers are among its machines either.
    """
    with _relayed_pool(_category_seconds(tasks)) as (bench_pool, relays, node), ExitStack() as stack:
        strangers: set[Wallet] = set()
        _prove_machines(bench_pool)
        if plan:
            keys = funded(bench_pool, len(CAST))
            stack.enter_context(at_work(bench_pool, keys, CAST))
            strangers = {key.wallet for key in keys}
        category = bench_pool.new_category(_category_seconds(tasks))
        starts = stack.enter_context(counting_starts(bench_pool.servers.docker_host))
        deals = [
            bench_pool.buy(trust=trust, volume=volume, args=WORK, category=category)
            for trust, volume in zip(TRUSTS, _volumes(tasks), strict=True)
            if volume
        ]
        following = stack.enter_context(Following(bench_pool, deals).running())
        injector = Injector(bench_pool, relays, node)
        injector.carry_out(plan, following, until=STRUCK_SHARE, limit=limit)
        twice = duplicates(starts, following.tasks)
        found = _figures(following, strangers, len(twice), injector)
        theirs = failed_by(strangers, following.views.values())
        words = [*not_ended(following, besides=theirs), *twice, *injector.failed]
        return RunResult(found, dict(following.ended), words)


def _figures(following: Following, strangers: set[Wallet], twice: int, injector: Injector) -> Figures:
    """What the chain, the node and the database say once they agree, or SETTLE_SECONDS later."""
    bench_pool, ended = following.bench_pool, following.over.is_set()
    wallets = [*pool_wallets(bench_pool), *strangers]
    settle = SETTLE_SECONDS if ended else 0.0
    first = min(deal.block_number for deal in following.deals)
    held_up = held_up_by(strangers, following.views.values())
    seconds = max(following.ended.values()) if ended else following.elapsed
    others = [at for task, at in following.ended.items() if task not in held_up]
    return Figures(
        tasks=len(following.tasks),
        completed=following.count(TaskStatus.COMPLETED),
        failed_claimed=following.count(TaskStatus.FAILED),
        failed_by_strangers=len(failed_by(strangers, following.views.values())),
        duplicates=twice,
        reverts=count_reverts(bench_pool, wallets, first),
        nonce_gaps=poll_until_zero(lambda: nonce_gaps(bench_pool), settle),
        stake_locked=poll_until_zero(lambda: sum(one.locked for one in bench_pool.hub.accounts(wallets)), settle),
        database_differs=sum(sum(bench_pool.compare(deal, settle or 1.0)) for deal in following.deals),
        worst_delay_seconds=0.0,
        seconds=round(seconds, 1),
        undisturbed_seconds=0.0,
        seed=0,
        held_up=len(held_up),
        seconds_not_held_up=round(max(others, default=0.0), 1),
        faults={str(kind): count for kind, count in sorted(injector.struck.items())},
    )


@contextmanager
def _relayed_pool(category_seconds: int) -> Iterator[tuple[BenchPool, Relays, FaultyNode]]:
    """A pool of MACHINES machines with one slot each that reach servers, node and API through relays."""
    env = {"SLUICE_PROVEN_SHARE": f"{min(1.0, PROVEN_SECONDS / category_seconds)}"}
    servers = bring_up()
    pools: list[LocalPool] = []
    with ExitStack() as stack:

        def sessions() -> dict[str, int]:
            """Pids of the pool's running programs by name."""
            return {name: process.pid for pool in pools for name, process in pool.running.items()}

        relays = stack.enter_context(Relays(sessions).running())
        relayed = _relayed(servers, relays)
        bench_pool = stack.enter_context(
            prepared_pool(block_time=BLOCK_TIME, workers=MACHINES, servers=relayed, env=env)
        )
        node = FaultyNode(stack.enter_context(upstream(bench_pool.chain.rpc_url)))
        served = stack.enter_context(serving(node))
        rpc, heads = relays.open(CHAIN, _port(served)), relays.open(CHAIN, bench_pool.node.port)
        pool = bench_pool.pool
        pools.append(pool)
        pool.env = {**pool.env, "SLUICE_RPC_URL": _loopback("http", rpc), "SLUICE_WS_URL": _loopback("ws", heads)}
        api = relays.open("api", _port(pool.api_url))
        pool.start_scheduler()
        machines = zip(MACHINE_NAMES, pool.on_chain.workers, strict=True)
        pool.start_machines(
            [WorkerMachine(name, wallet) for name, wallet in machines], {"SLUICE_API_URL": _loopback("http", api)}
        )
        yield bench_pool, relays, node


def _relayed(servers: Servers, relays: Relays) -> Servers:
    """The servers' addresses behind relays. MongoDB's clients must connect directly, not by the set's addresses."""
    mongodb = relays.open("mongodb", _port(servers.mongodb_uri))
    amqp = relays.open("rabbitmq", servers.amqp_port)
    api = relays.open("rabbitmq", _port(servers.rabbitmq_api))
    ipfs = relays.open("ipfs", _port(servers.ipfs_api))
    return replace(
        servers,
        mongodb_uri=f"{_behind(servers.mongodb_uri, mongodb)}&directConnection=true",
        amqp_url=_behind(servers.amqp_url, amqp),
        amqp_port=amqp,
        rabbitmq_api=_behind(servers.rabbitmq_api, api),
        ipfs_api=_behind(servers.ipfs_api, ipfs),
    )


def _prove_machines(bench_pool: BenchPool) -> None:
    """Have every machine complete a task, so that it is proven."""
    bench_pool.wait([bench_pool.buy(trust=5, volume=MACHINES), bench_pool.buy(trust=1, volume=MACHINES)])


def _category_seconds(tasks: int) -> int:
    """Seconds that the category of the deals gives an app."""
    return max(LEAST_CATEGORY_SECONDS, tasks)


def _last_claim(tasks: int) -> float:
    """Seconds after which even what can only be claimed has ended."""
    return FINAL_FACTOR * _category_seconds(tasks) + CLAIM_SECONDS


def _volumes(tasks: int) -> list[int]:
    """How many of the tasks each deal has: as equal as can be, the first ones more."""
    return [math.ceil((tasks - place) / len(TRUSTS)) for place in range(len(TRUSTS))]


def _port(url: str) -> int:
    """The port of a URL."""
    port = urlsplit(url).port
    assert port is not None
    return port


def _behind(url: str, port: int) -> str:
    """A server's URL with the port of its relay."""
    return url.replace(f":{_port(url)}", f":{port}", 1)


def _loopback(scheme: str, port: int) -> str:
    """The URL of a port of this machine."""
    return f"{scheme}://127.0.0.1:{port}"
