"""What the pool can do, decided from facts. Pure: `pipeline.probes` gathers the facts, `/health` and the commands show
them.

    facts of each server ─► parts: can it do its share of a task? ─► no: what is wrong, with numbers, and what to do

A part that cannot be known, because the server that knows it does not answer, is left out: that server is red.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chain.contracts.calls import GAS_LIMITS
from pipeline.domain.condition import certificates
from pipeline.domain.condition.facts import (
    AuditFacts,
    BrokerFacts,
    CertificateFacts,
    DatabaseFacts,
    ExpectedPool,
    Facts,
    LaneFacts,
    MachineFacts,
    NoAnswer,
    NodeFacts,
    ResultFacts,
)
from protocol.counts import count
from protocol.poco.events import BlockRef
from protocol.types import Wei

#: A head this many block times old, and this many seconds, is not what the chain has now.
STALE_BLOCKS, STALE_SECONDS = 10, 30.0
#: The watcher is behind when it is both: so many blocks, and so many seconds by the chain's own time. Later by so many
#: seconds, what it has stored is too old to begin work by.
BEHIND_BLOCKS, BEHIND_SECONDS, FAR_BEHIND_SECONDS = 10, 30.0, 300.0
#: Seconds after which a result that could not be stored says nothing about now: machines upload it again sooner.
REFUSED_SECONDS = 60.0
#: Two clocks of one network differ by less (NTP: milliseconds); nodes refuse blocks that are 15 s ahead.
CLOCK_SECONDS = 15.0
#: Blocks, and at least seconds, that a transaction may wait before the lane counts as waiting.
WAIT_BLOCKS, WAIT_SECONDS = 20, 60.0
#: The pipeline hangs when no sweep was for so many seconds, and for so many times as long as sweeps are apart: one of
#: many open tasks takes a while.
SWEEP_SECONDS, SWEEPS_MISSED = 60.0, 6
#: Seconds after the start in which processes may still be on their way.
START_SECONDS = 30.0
#: What the scheduler's wallet sends for a task. Gas below its limit is not paid, but the wallet must hold it.
TASK_GAS = GAS_LIMITS["initialize"].base + GAS_LIMITS["finalize"].base
#: Chain seconds that pass in one of ours while a node follows the head; many more while it reads old blocks.
LIVE_PACE = (0.3, 3.0)
_ETHER = 10**18
_HOUR = 3600.0

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class HealthPart:
    """One thing the pool needs. `fix` is empty where all is well."""

    ok: bool
    detail: str
    fix: str = ""
    #: Whether work that is begun now might fail without it (`pipeline.domain.condition.holding`).
    needed_to_begin: bool = False


def parts(facts: Facts, pool: ExpectedPool) -> dict[str, HealthPart]:
    """The health of every part of the pool that `facts` tell of, by the part's name."""
    found: dict[str, HealthPart | None] = {
        "mongodb": _answered(facts.database, _database),
        "rabbitmq": _answered(facts.broker, lambda broker: _broker(broker, facts.watched)),
        "ipfs": _answered(facts.ipfs, lambda ipfs: HealthPart(ok=True, detail=f"kubo {ipfs.version}")),
        "chain": _answered(facts.node, lambda node: _chain(node, facts, pool)),
    }
    if isinstance(facts.node, NodeFacts):
        found["clock"] = _clock(facts.node, facts, pool)
        found["ownership"] = _ownership(facts.node, pool)
        found["gas"] = _gas(facts.node, pool)
        if isinstance(facts.database, DatabaseFacts):
            found["watcher"] = _watcher(facts.node, facts.database.cursor, facts.watched, pool)
    if isinstance(facts.database, DatabaseFacts) and facts.database.swept_at is not None:
        found["pipeline"] = _pipeline(facts.now - facts.database.swept_at, facts.database.swept_by, facts.watched, pool)
    if isinstance(facts.database, DatabaseFacts) and facts.database.audit is not None:
        found["audit"] = _audit(facts.database.audit, facts.now)
    if facts.lane is not None:
        found["lane"] = _lane(facts.lane, pool)
    if facts.machines is not None:
        found["workers"] = _machines(facts.machines)
    if facts.results is not None:
        found["results"] = _results(facts.results)
    if facts.certificates:
        found["certificates"] = _certificates(facts.certificates, facts.now)
    return {name: part for name, part in found.items() if part is not None}


def _answered(facts: F | NoAnswer | None, judge: Callable[[F], HealthPart]) -> HealthPart | None:
    """The verdict on a server's answer: not well if there was none; None if it was not asked."""
    if facts is None:
        return None
    if isinstance(facts, NoAnswer):
        return HealthPart(ok=False, detail=facts.why, fix=facts.fix, needed_to_begin=not facts.serves)
    return judge(facts)


def _database(facts: DatabaseFacts) -> HealthPart:
    """Whether MongoDB keeps what it confirms."""
    if facts.replicated:
        return HealthPart(ok=True, detail="a replica set")
    return HealthPart(
        ok=False,
        detail="MongoDB is a single server, not a replica set: what it confirms may be lost",
        fix="Start mongod with --replSet rs0, run rs.initiate() once, and add ?replicaSet=rs0 to SLUICE_MONGODB_URI.",
    )


def _broker(facts: BrokerFacts, watched: float) -> HealthPart:
    """Whether RabbitMQ takes our messages and each of our queues is read. `watched`: seconds since the monitor began:
    just after a start, no process reads a queue yet.
    """
    if not facts.administrator:
        return HealthPart(
            ok=False,
            detail=f"RabbitMQ's user {facts.user} is not tagged administrator, so no machine can get a user of its own",
            fix=f"Run: rabbitmqctl set_user_tags {facts.user} administrator",
        )
    if facts.alarms:
        return HealthPart(
            ok=False,
            detail=f"RabbitMQ takes no messages: {', '.join(facts.alarms)}",
            fix="Give it memory or disk, or raise its watermarks; it goes on by itself.",
            needed_to_begin=True,
        )
    if facts.unread and watched >= START_SECONDS:
        return HealthPart(
            ok=False,
            detail=f"no process reads the queue {', '.join(facts.unread)}",
            fix="Start the missing process: `sluice scheduler run`, or `--only pipeline --only lane`.",
        )
    if not facts.tells_of_cuts:
        slow = "no alarm; without rabbitmq_event_exchange, only missing pings show that a machine is cut off"
        return HealthPart(ok=True, detail=slow, fix="Run: rabbitmq-plugins enable rabbitmq_event_exchange")
    return HealthPart(ok=True, detail="no alarm")


def _age(node: NodeFacts, facts: Facts) -> float:
    """Age of the head in seconds by this machine's clock; negative if its timestamp is in the future."""
    return facts.now - node.timestamp


def stale_after(block_time: float) -> float:
    """Age in seconds from which on a head is too old to be the current one, at this block time."""
    return max(STALE_SECONDS, STALE_BLOCKS * block_time)


def _clocks(facts: Facts) -> dict[str, float]:
    """Seconds that the clocks of other servers are ahead of ours."""
    found = {}
    if isinstance(facts.database, DatabaseFacts):
        found["MongoDB"] = facts.database.clock_ahead
    if isinstance(facts.broker, BrokerFacts) and facts.broker.clock_ahead is not None:
        found["RabbitMQ"] = facts.broker.clock_ahead
    return found


def _clock_is_off(node: NodeFacts, facts: Facts, pool: ExpectedPool) -> bool:
    """Whether an old or future head shows that this machine's clock is wrong, rather than that the chain stands still.

    A head from the future does: nodes refuse such blocks. An old one does if it is older than it has stood still and
    moves at the pace of time, or if another server's clock agrees with it rather than with ours.
    """
    age = _age(node, facts)
    if age < -CLOCK_SECONDS:
        return True
    if age <= stale_after(pool.block_time):
        return False
    if facts.head_still is not None and facts.head_pace is not None:
        return age - facts.head_still > CLOCK_SECONDS and LIVE_PACE[0] < facts.head_pace < LIVE_PACE[1]
    return any(_agrees(ahead, age) for ahead in _clocks(facts).values())


def _agrees(ahead: float, age: float) -> bool:
    """Whether a clock that is `ahead` of ours is nearer to the chain's, which is `age` behind ours, than to ours."""
    return abs(ahead + age) < abs(ahead)


def _clock(node: NodeFacts, facts: Facts, pool: ExpectedPool) -> HealthPart:
    """Whether this machine's clock agrees with the chain and with the other servers."""
    age = _age(node, facts)
    if not _clock_is_off(node, facts, pool):
        return HealthPart(ok=True, detail="it agrees with the chain")
    agree = [name for name, ahead in _clocks(facts).items() if _agrees(ahead, age)]
    others = f" and that of {' and '.join(agree)}" if agree else ""
    way = "behind" if age < 0 else "ahead of"
    lag = ", or every node is that far behind" if age > 0 and not agree else ""
    return HealthPart(
        ok=False,
        detail=f"this machine's clock is {abs(age):.0f} s {way} the chain's{others}{lag}",
        fix="Set the clock, and keep it set (NTP: `timedatectl set-ntp true`)."
        + (" If it is right, name another node in SLUICE_RPC_URL." if lag else ""),
        needed_to_begin=True,
    )


def _chain(node: NodeFacts, facts: Facts, pool: ExpectedPool) -> HealthPart:
    """Whether the node's head is new enough, and if not, why."""
    age = _age(node, facts)
    if age <= stale_after(pool.block_time) or _clock_is_off(node, facts, pool):
        return HealthPart(ok=True, detail=f"head is block {node.head}")
    old = f"the head, block {node.head}, is {age:.0f} s old"
    other_node = "Ask another node (SLUICE_RPC_URL takes several, separated by commas)."
    if facts.head_pace is not None and facts.head_pace >= LIVE_PACE[1]:
        why, fix = "the node is still reading older blocks", other_node
    elif _clocks(facts) or facts.head_still is not None:
        why, fix = "the chain stands still, or the node does", other_node
    else:
        why = "the chain stands still, or this machine's clock is ahead of it"
        fix = "Compare `date -u` with another machine, and the head with another node."
    return HealthPart(ok=False, detail=f"{old}: {why}", fix=fix, needed_to_begin=True)


def _ownership(node: NodeFacts, pool: ExpectedPool) -> HealthPart:
    """Whether our wallet owns the workerpool."""
    if node.owner == pool.wallet:
        return HealthPart(ok=True, detail=f"{pool.wallet} owns the workerpool")
    return HealthPart(
        ok=False,
        detail=f"the wallet {pool.wallet} does not own the workerpool {pool.workerpool}, its owner is {node.owner}: "
        "the contracts take its steps only of deals that were matched while it did",
        fix="Set SLUICE_KEYSTORE to the owner's wallet, or SLUICE_WORKERPOOL to a workerpool of this wallet.",
    )


def task_cost(max_fee: Wei, keep_balance: int) -> Wei:
    """Wei that the scheduler's wallet must hold before it can carry a task through, at `max_fee` wei per gas."""
    return Wei(TASK_GAS * max_fee + keep_balance)


def _gas(node: NodeFacts, pool: ExpectedPool) -> HealthPart:
    """Whether the wallet can pay the gas of a task."""
    need = task_cost(node.max_fee, pool.keep_balance)
    if node.balance >= need:
        return HealthPart(ok=True, detail=f"{amount(node.balance)}; a task needs up to {amount(need)}")
    kept = " and what SLUICE_KEEP_BALANCE_WEI keeps" if pool.keep_balance else ""
    return HealthPart(
        ok=False,
        detail=f"the wallet holds {amount(node.balance)}, a task needs up to {amount(need)} ({TASK_GAS} gas for "
        f"initialize and finalize at {amount(node.max_fee)}{kept}): nothing can be sent",
        fix=f"Send {amount(Wei(need - node.balance))} or more of the chain's native token to {pool.wallet}; work goes "
        "on by itself.",
    )


def amount(wei: Wei) -> str:
    """An amount of the native token in words: in wei below a millionth of it, else with six digits."""
    return f"{wei} wei" if wei < _ETHER // 10**6 else f"{wei / _ETHER:.6g} ETH ({wei} wei)"


def _pipeline(since: float, swept_by: str | None, watched: float, pool: ExpectedPool) -> HealthPart | None:
    """Whether tasks are swept as often as they should be; None while that is not known: the scheduler may only just
    start, or not run at all. `since`: seconds since the last sweep; `swept_by`: the process that did it; `watched`:
    seconds since the monitor began.
    """
    if since < max(SWEEP_SECONDS, SWEEPS_MISSED * pool.sweep_seconds):
        return HealthPart(ok=True, detail=f"it swept the tasks {max(since, 0.0):.0f} s ago")
    if watched < START_SECONDS:
        return None
    return HealthPart(
        ok=False,
        detail=f"no process has swept the tasks for {since:.0f} s{_last(swept_by)}: nothing is decided",
        fix="See the log of the processes `pipeline` and `beat`, and `sluice queue ls`; restart what hangs.",
    )


def _last(by: str | None) -> str:
    """The end of a sentence about work that is late: which process did it last."""
    return "" if by is None else f" (the last was {by})"


def _watcher(node: NodeFacts, cursor: BlockRef | None, watched: float, pool: ExpectedPool) -> HealthPart:
    """Whether blocks are read as they come. `watched`: seconds since the monitor began."""
    if cursor is None:
        behind, late = node.head - pool.start_block, watched >= START_SECONDS
        place = "no block read yet"
    else:
        behind, late = node.head - cursor.number, node.timestamp - cursor.timestamp >= BEHIND_SECONDS
        place = f"read up to block {cursor.number}"
    if behind < BEHIND_BLOCKS or not late:
        return HealthPart(ok=True, detail=place)
    return HealthPart(
        ok=False,
        detail=f"{place}, {behind} blocks behind the head: newer deals and votes are not seen",
        fix="See `sluice chain status` and that the process `watch` runs; the first reading of a chain takes a while.",
        needed_to_begin=cursor is not None and node.timestamp - cursor.timestamp >= FAR_BEHIND_SECONDS,
    )


def _audit(facts: AuditFacts, now: float) -> HealthPart:
    """Whether the last audit found differences."""
    age = max(0.0, now - facts.at)
    ago = f"{age / _HOUR:.0f} h ago" if age >= _HOUR else f"{age / 60:.0f} min ago"
    asked = f"; could not be asked: {', '.join(facts.unasked)}" if facts.unasked else ""
    if not facts.differences:
        return HealthPart(ok=True, detail=f"no difference was found {ago}{asked}")
    return HealthPart(
        ok=False,
        detail=f"{count(facts.differences, 'difference')} found {ago}{asked}; the first: {facts.first}",
        fix="See `sluice audit`, which names each with what to do; `sluice audit --fix` repairs what is safe.",
    )


def _lane(facts: LaneFacts, pool: ExpectedPool) -> HealthPart:
    """Whether transactions go out: no halt, nothing stuck, none waiting for too long."""
    if facts.halted is not None:
        return HealthPart(
            ok=False,
            detail=f"it is halted: {facts.halted.rstrip('.')}",
            fix="Decide by `sluice tx disown` or `sluice tx resume`; `sluice tx ls` tells more.",
        )
    if facts.stuck is not None:
        return HealthPart(
            ok=False,
            detail=f"it waits for something that it cannot repair: {facts.stuck.rstrip('.')}",
            fix="It goes on by itself once that is well; `sluice tx ls` tells more.",
        )
    limit = max(WAIT_SECONDS, (WAIT_BLOCKS + pool.spend_depth) * pool.block_time)
    if facts.waiting is None or facts.waiting <= limit:
        return HealthPart(ok=True, detail="no operator is needed")
    return HealthPart(
        ok=False,
        detail=f"a transaction has waited for {facts.waiting:.0f} s{_last(facts.run_by)}: {facts.why}",
        fix="See `sluice tx ls`, and whether that process hangs.",
    )


def _results(facts: ResultFacts) -> HealthPart:
    """Whether results could be stored lately."""
    if facts.refused_since >= REFUSED_SECONDS:
        return HealthPart(ok=True, detail="none was refused lately")
    return HealthPart(
        ok=False,
        detail=f"a result could not be stored {facts.refused_since:.0f} s ago: {facts.why}",
        fix="Make room on the disk of IPFS and of the API (SLUICE_HOME); machines bring their results again.",
        needed_to_begin=True,
    )


def _certificates(shown: Sequence[CertificateFacts], now: float) -> HealthPart:
    """Whether machines and requesters still take the certificates that they are shown."""
    ended = certificates.ended(shown, now)
    return HealthPart(ended is None, ended or certificates.first_end(shown, now), certificates.RENEW if ended else "")


def _machines(facts: MachineFacts) -> HealthPart:
    """Whether any machine can work, and if not, why."""
    if facts.able:
        return HealthPart(ok=True, detail=f"{facts.able} can work")
    if not facts.enrolled:
        return HealthPart(
            ok=False,
            detail="no machine has signed in, so nobody can do a task",
            fix="Start one: docs/quickstart/worker.md.",
        )
    reasons = {
        "silent": facts.silent,
        "without gas": facts.unfunded,
        "cooling down after failures": facts.cooling,
        "banned": facts.banned,
        "drained": facts.drained,
    }
    said = ", ".join(f"{number} {name}" for name, number in reasons.items() if number)
    yours = [
        f"`sluice worker {undo} WALLET` takes it back for one that is {done}."
        for number, done, undo in ((facts.banned, "banned", "unban"), (facts.drained, "drained", "undrain"))
        if number
    ]
    theirs = ["Ask their operators to run `sluice worker doctor`."] if facts.silent or facts.unfunded else []
    rest = ["They go on by themselves; `sluice task ls --all` tells what failed."] if facts.cooling else []
    return HealthPart(
        ok=False,
        detail=f"none of {facts.enrolled} machines can take work: {said}",
        fix=" ".join(["See `sluice worker ls`.", *rest, *yours, *theirs]),
    )
