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
from chain.lane.phases.context import Desk, Memory, Turn
from chain.lane.phases.snapshot import Look
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
    #: Nonces that may be claimed.
    room: int = 0
    #: Whether more may be ready: the run's share was used up, or a group fell apart.
    more: bool = False
    #: Intents that end without a nonce.
    moves: list[IntentMove] = field(default_factory=list)

    @property
    def ended(self) -> list[str]:
        """Their keys."""
        return [key for move in self.moves for key in move.keys]


def choose(desk: Desk, look: Look, open_records: Sequence[NonceRecord], memory: Memory) -> Chosen:
    """Judge the queue until the free nonces are used up, or the queue is."""
    chosen = Chosen()
    room = min(desk.policy.burst, desk.policy.max_in_flight - len(open_records))
    room = min(room, desk.policy.burst - len(memory.missing))
    if room <= 0 or any(REACTIONS[refusal.kind].hold for refusal in memory.refused.values()):
        return chosen
    held = {key for record in open_records for key in record.intents}
    ready: list[Intent] = []
    groups: list[tuple[Intent, ...]] = []
    seen = 0
    # One group beyond the room says that the last one inside it is full.
    while len(groups) <= room and seen < desk.policy.scan:
        # As many as it takes, going by those seen so far.
        likely = (room + 1 - len(groups)) * max(1, seen) // max(1, len(groups))
        window = min(desk.policy.window, max(_LEAST_WINDOW, likely))
        queued = desk.store.queued(desk.lane, window, seen)
        seen += len(queued)
        fresh = [intent for intent in queued if intent.key not in held]
        verdicts = desk.readiness.check(fresh, look.moment) if fresh else []
        for intent, verdict in zip(fresh, verdicts, strict=True):
            if verdict.judgement is Judgement.READY:
                ready.append(intent)
            elif verdict.judgement is not Judgement.WAIT:
                _end(chosen, intent, verdict.judgement, verdict.reason)
        groups = desk.encoder.group(ready)
        if len(queued) < window:
            break
    chosen.room = room
    chosen.more = room == desk.policy.burst and len(groups) > room
    for group in groups[:room]:
        try:
            chosen.groups.append((group, desk.encoder.encode(group)))
        except BadMessage as error:
            for intent, why in _misfits(desk, group) or [(intent, str(error)) for intent in group]:
                _end(chosen, intent, Judgement.DEAD, why)
            # Those who only shared the transaction go in the next run.
            chosen.more = True
    return chosen


def _misfits(desk: Desk, group: Sequence[Intent]) -> list[tuple[Intent, str]]:
    """Those of a group that cannot be encoded even alone, and why."""
    found: list[tuple[Intent, str]] = []
    for intent in group:
        try:
            desk.encoder.encode((intent,))
        except BadMessage as error:
            found.append((intent, str(error)))
    return found


def _end(chosen: Chosen, intent: Intent, judgement: Judgement, reason: str) -> None:
    state = IntentState.DONE if judgement is Judgement.DONE else IntentState.FAILED
    chosen.moves.append(IntentMove((intent.key,), state, reason=reason))
    log.info("Intent ended unsent.", action="lane_ended_unsent", intent=intent.key, state=state.value, why=reason)


def afford(
    desk: Desk, look: Look, open_records: Sequence[NonceRecord], groups: list[Group], memory: Memory
) -> list[Group]:
    """The first groups that balance and daily cap allow."""
    memory.short = None
    if not groups:
        return []
    max_fee = quote(desk.policy.fees, look.market).max_fee
    fees = sum(record.gas_limit * record.newest.fees.max_fee for record in open_records)
    committed = fees + sum(record.value for record in open_records)
    left = look.balance - committed - desk.policy.keep_balance
    cap = desk.policy.daily_cap
    allowed = left if cap is None else cap - fees - desk.store.spent_since(desk.lane, desk.clock() - _DAY_SECONDS)
    count = 0
    for _, call in groups:
        fee = call.gas * max_fee
        left, allowed = left - fee - call.value, allowed - fee
        if min(left, allowed) < 0:
            break
        count += 1
    if count < len(groups) and count + len(open_records) == 0:
        memory.short = "there is not enough money to send: fund the wallet or raise its daily cap"
    if count < len(groups) and desk.clock() - memory.warned > _WARN_SECONDS:
        memory.warned = desk.clock()
        log.error(
            "Not enough money to send: fund the wallet or raise its daily cap.",
            action="lane_low_balance",
            wallet=desk.lane.wallet,
            balance=look.balance,
            committed=committed,
            daily_cap=cap,
            waiting=len(groups) - count,
        )
    return groups[:count]


def claim(turn: Turn, look: Look, groups: Sequence[Group], next_nonce: Nonce) -> list[NonceRecord]:
    """Sign the groups' calls at consecutive nonces and store them. Raises LeaseLost."""
    desk = turn.desk
    fees = quote(desk.policy.fees, look.market)
    unsigned = [
        Unsigned(desk.lane.chain_id, Nonce(next_nonce + offset), call.to, call.data, call.gas, fees, value=call.value)
        for offset, (_, call) in enumerate(groups)
    ]
    records = [
        NonceRecord(
            lane=desk.lane,
            nonce=item.nonce,
            intents=tuple(intent.key for intent in intents),
            to=call.to,
            data=call.data,
            gas=call.gas,
            attempts=(attempt,),
            created_at=desk.clock(),
            value=Wei(call.value),
        )
        for (intents, call), item, attempt in zip(groups, unsigned, desk.signer.sign(unsigned), strict=True)
    ]
    turn.keep()
    desk.store.claim(turn.lease, records)
    for record in records:
        LANE_SENT.labels(method_of(record.intents)).inc()
    return records


def broadcast(turn: Turn, look: Look, outbox: Sequence[NonceRecord], memory: Memory) -> bool:
    """Give the newest bytes of each to the node; note what it said. Whether to look again at once.

    Raises RpcUnavailable: then nobody knows what was accepted, and all of them are sent again by the next run.
    """
    if not outbox:
        return False
    desk = turn.desk
    ordered = sorted(outbox, key=lambda record: record.nonce)
    turn.keep()
    answers = desk.rpc.batch([("eth_sendRawTransaction", (record.newest.raw,)) for record in ordered])
    sent: list[Nonce] = []
    look_again = False
    for record, answer in zip(ordered, answers, strict=True):
        if not isinstance(answer, RpcError):
            if answer is not None:
                memory.accept(record.nonce)
            # After null nobody knows: it counts as sent, and what was known against it stays.
            sent.append(record.nonce)
            continue
        reaction = _note(desk, record, answer, look, memory)
        # A fatal refusal has its remedy at once, unless these bytes were tried before.
        first = record.nonce in memory.refused and memory.refused[record.nonce].tries == 1
        look_again = look_again or reaction.look_again or (reaction.give_way and first)
        if reaction.maybe_sent:
            sent.append(record.nonce)
    carried = tuple(key for record in ordered for key in record.intents)
    intents = [IntentMove(carried, IntentState.SENT)] if carried else []
    turn.desk.store.move(turn.lease, intents, [Sent(tuple(sent), look.head)] if sent else [])
    return look_again


def _note(desk: Desk, record: NonceRecord, answer: RpcError, look: Look, memory: Memory) -> Reaction:
    kind = classify(answer.message, desk.policy.phrases)
    reaction = REACTIONS[kind]
    if kind is Kind.UNKNOWN or not reaction.maybe_sent:
        memory.refuse(record.nonce, kind, answer.message, record.newest.tx_hash, look.head)
    else:
        memory.accept(record.nonce)
    # That a node has what it is sent again is the best of news, and not worth a line each.
    tell = log.debug if kind is Kind.KNOWN else log.info
    tell(
        "The node did not simply accept a transaction.",
        action="lane_send_answer",
        wallet=desk.lane.wallet,
        nonce=record.nonce,
        tx=record.newest.tx_hash,
        kind=kind.value,
        answer=answer.message[:200],
    )
    return reaction
