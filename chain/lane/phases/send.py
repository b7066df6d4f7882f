"""Third phase of a run: give nonces to what may go now, and bytes to the node.

queued, oldest first ─► ready? ─► groups ─► sign ─► claim nonces (bytes stored) ─► eth_sendRawTransaction ─► SENT
                          ├─ wait: stays queued
                          └─ done, dead: ends here, without a nonce
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from chain.lane.model.intent import Intent, IntentState, method_of
from chain.lane.model.nonce import NonceRecord, Sent
from chain.lane.phases.context import Memory, RunContext, Turn
from chain.lane.phases.snapshot import ChainSnapshot
from chain.lane.rules.fees import quote
from chain.lane.rules.gas import Group
from chain.lane.rules.readiness import Judgement
from chain.lane.rules.send_errors import REACTIONS, Kind, Reaction, classify
from chain.lane.signer import Unsigned
from chain.lane.store.port import IntentMove
from config.metrics import LANE_SENT
from protocol.errors import BadMessage, RpcError
from protocol.types import Nonce, Wei

log = structlog.get_logger(__name__)

#: Least intents judged at once: fewer would save nothing, and some of them may have to wait.
_LEAST_WINDOW = 64
#: Seconds between two warnings that money is short.
_WARN_SECONDS = 300.0
_DAY_SECONDS = 86_400.0


@dataclass(slots=True)
class Chosen:
    """What may go now."""

    groups: list[Group] = field(default_factory=list)
    #: How many nonces may be claimed.
    capacity: int = 0
    #: Whether more may be ready: the run's share was used up, or a group fell apart.
    more: bool = False
    #: Intents that end without a nonce.
    moves: list[IntentMove] = field(default_factory=list)

    @property
    def ended(self) -> list[str]:
        """Their keys."""
        return [key for move in self.moves for key in move.keys]


def choose(context: RunContext, snapshot: ChainSnapshot, open_records: Sequence[NonceRecord], memory: Memory) -> Chosen:
    """Judge the queue until the free nonces are used up, or the queue is."""
    chosen = Chosen()
    capacity = min(context.policy.burst, context.policy.max_in_flight - len(open_records))
    capacity = min(capacity, context.policy.burst - len(memory.missing))
    if capacity <= 0 or any(REACTIONS[refusal.kind].hold for refusal in memory.refused.values()):
        return chosen
    held = {key for record in open_records for key in record.intents}
    ready: list[Intent] = []
    groups: list[tuple[Intent, ...]] = []
    seen = 0
    # Fetch one group more than fits, so that the last one that fits is full.
    while len(groups) <= capacity and seen < context.policy.scan:
        # As many as it takes, going by those seen so far.
        likely = (capacity + 1 - len(groups)) * max(1, seen) // max(1, len(groups))
        window = min(context.policy.window, max(_LEAST_WINDOW, likely))
        queued = context.store.queued(context.lane, window, seen)
        seen += len(queued)
        fresh = [intent for intent in queued if intent.key not in held]
        verdicts = context.readiness.check(fresh, snapshot.moment) if fresh else []
        for intent, verdict in zip(fresh, verdicts, strict=True):
            if verdict.judgement is Judgement.READY:
                ready.append(intent)
            elif verdict.judgement is not Judgement.WAIT:
                _end(chosen, intent, verdict.judgement, verdict.reason)
        groups = context.encoder.group(ready)
        if len(queued) < window:
            break
    chosen.capacity = capacity
    chosen.more = capacity == context.policy.burst and len(groups) > capacity
    for group in groups[:capacity]:
        try:
            chosen.groups.append((group, context.encoder.encode(group)))
        except BadMessage as error:
            for intent, why in _misfits(context, group) or [(intent, str(error)) for intent in group]:
                _end(chosen, intent, Judgement.DEAD, why)
            # Those who only shared the transaction go in the next run.
            chosen.more = True
    return chosen


def _misfits(context: RunContext, group: Sequence[Intent]) -> list[tuple[Intent, str]]:
    """Those of a group that cannot be encoded even alone, and why."""
    found: list[tuple[Intent, str]] = []
    for intent in group:
        try:
            context.encoder.encode((intent,))
        except BadMessage as error:
            found.append((intent, str(error)))
    return found


def _end(chosen: Chosen, intent: Intent, judgement: Judgement, reason: str) -> None:
    state = IntentState.DONE if judgement is Judgement.DONE else IntentState.FAILED
    chosen.moves.append(IntentMove((intent.key,), state, reason=reason))
    log.info("Intent ended unsent.", action="lane_ended_unsent", intent=intent.key, state=state.value, why=reason)


def afford(
    context: RunContext,
    snapshot: ChainSnapshot,
    open_records: Sequence[NonceRecord],
    groups: list[Group],
    memory: Memory,
) -> list[Group]:
    """The first groups that balance and daily cap allow."""
    memory.short = None
    if not groups:
        return []
    max_fee = quote(context.policy.fees, snapshot.market).max_fee
    fees = sum(record.gas_limit * record.newest.fees.max_fee for record in open_records)
    committed = fees + sum(record.value for record in open_records)
    left = snapshot.balance - committed - context.policy.keep_balance
    cap = context.policy.daily_cap
    allowed = (
        left if cap is None else cap - fees - context.store.spent_since(context.lane, context.clock() - _DAY_SECONDS)
    )
    count = 0
    for _, call in groups:
        fee = call.gas * max_fee
        left, allowed = left - fee - call.value, allowed - fee
        if min(left, allowed) < 0:
            break
        count += 1
    if count < len(groups) and count + len(open_records) == 0:
        memory.short = "there is not enough money to send: fund the wallet or raise its daily cap"
    if count < len(groups) and context.clock() - memory.warned > _WARN_SECONDS:
        memory.warned = context.clock()
        log.error(
            "Not enough money to send: fund the wallet or raise its daily cap.",
            action="lane_low_balance",
            wallet=context.lane.wallet,
            balance=snapshot.balance,
            committed=committed,
            daily_cap=cap,
            waiting=len(groups) - count,
        )
    return groups[:count]


def claim(turn: Turn, snapshot: ChainSnapshot, groups: Sequence[Group], next_nonce: Nonce) -> list[NonceRecord]:
    """Sign the groups' calls at consecutive nonces and store them. Raises LeaseLost."""
    context = turn.context
    fees = quote(context.policy.fees, snapshot.market)
    unsigned = [
        Unsigned(
            context.lane.chain_id, Nonce(next_nonce + offset), call.to, call.data, call.gas, fees, value=call.value
        )
        for offset, (_, call) in enumerate(groups)
    ]
    records = [
        NonceRecord(
            lane=context.lane,
            nonce=item.nonce,
            intents=tuple(intent.key for intent in intents),
            to=call.to,
            data=call.data,
            gas=call.gas,
            attempts=(attempt,),
            created_at=context.clock(),
            value=Wei(call.value),
        )
        for (intents, call), item, attempt in zip(groups, unsigned, context.signer.sign(unsigned), strict=True)
    ]
    turn.keep()
    context.store.claim(turn.lease, records)
    for record in records:
        LANE_SENT.labels(method_of(record.intents)).inc()
    return records


def broadcast(turn: Turn, snapshot: ChainSnapshot, outbox: Sequence[NonceRecord], memory: Memory) -> bool:
    """Give the newest bytes of each to the node; note what it said. Whether to look again at once.

    Raises RpcUnavailable: then nobody knows what was accepted, and all of them are sent again by the next run.
    """
    if not outbox:
        return False
    context = turn.context
    ordered = sorted(outbox, key=lambda record: record.nonce)
    turn.keep()
    answers = context.rpc.batch([("eth_sendRawTransaction", (record.newest.raw,)) for record in ordered])
    sent: list[Nonce] = []
    look_again = False
    for record, answer in zip(ordered, answers, strict=True):
        if not isinstance(answer, RpcError):
            if answer is not None:
                memory.accept(record.nonce)
            # After null nobody knows: it counts as sent, and what was known against it stays.
            sent.append(record.nonce)
            continue
        reaction = _note(context, record, answer, snapshot, memory)
        # A fatal refusal has its remedy at once, unless these bytes were tried before.
        first = record.nonce in memory.refused and memory.refused[record.nonce].tries == 1
        look_again = look_again or reaction.look_again or (reaction.replace_with_noop and first)
        if reaction.maybe_sent:
            sent.append(record.nonce)
    carried = tuple(key for record in ordered for key in record.intents)
    intents = [IntentMove(carried, IntentState.SENT)] if carried else []
    turn.context.store.move(turn.lease, intents, [Sent(tuple(sent), snapshot.head)] if sent else [])
    return look_again


def _note(
    context: RunContext, record: NonceRecord, answer: RpcError, snapshot: ChainSnapshot, memory: Memory
) -> Reaction:
    kind = classify(answer.message, context.policy.phrases)
    reaction = REACTIONS[kind]
    if kind is Kind.UNKNOWN or not reaction.maybe_sent:
        memory.refuse(record.nonce, kind, answer.message, record.newest.tx_hash, snapshot.head)
    else:
        memory.accept(record.nonce)
    # "Already known" is the normal answer to a rebroadcast: debug level.
    tell = log.debug if kind is Kind.KNOWN else log.info
    tell(
        "The node did not simply accept a transaction.",
        action="lane_send_answer",
        wallet=context.lane.wallet,
        nonce=record.nonce,
        tx=record.newest.tx_hash,
        kind=kind.value,
        answer=answer.message[:200],
    )
    return reaction
