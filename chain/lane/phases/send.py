"""Third phase of a run: give nonces to the intents that may be sent now, and send signed transactions to the node.

queued, oldest first ─► ready? ─► groups ─► sign ─► claim nonces (bytes stored) ─► eth_sendRawTransaction ─► SENT
                          ├─ wait: stays queued, unless it may go early (`early`)
                          └─ done, dead: ends here, without a nonce
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import structlog

from chain.lane.model.intent import READY_MADE, Intent, IntentState, method_of
from chain.lane.model.nonce import Fees, NonceRecord, Sent
from chain.lane.model.policy import LanePolicy
from chain.lane.phases.context import LaneMemory, LeasedRun, Missing, RunContext
from chain.lane.phases.early import find_early
from chain.lane.phases.snapshot import ChainSnapshot
from chain.lane.rules.fees import FeeMarket, ceiling_worth, quote, too_low
from chain.lane.rules.gas import Group
from chain.lane.rules.order import ordered_fees
from chain.lane.rules.readiness import Judgement, ReadinessVerdict
from chain.lane.rules.send_errors import REACTIONS, Kind, Reaction, deciding
from chain.lane.signer import Unsigned
from chain.lane.store.port import IntentMove
from config.metrics import EARLY_SENT, LANE_SENT
from protocol.errors import BadMessage, RpcError
from protocol.types import Nonce, Wei

log = structlog.get_logger(__name__)

#: Least intents judged at once: fewer would save nothing, and some of them may have to wait.
_LEAST_WINDOW = 64
#: Seconds between two warnings that money is short.
_WARN_SECONDS = 300.0
#: The daily cap is about the last so many seconds.
DAY_SECONDS = 86_400.0
#: Why what is ready is not sent: the balance, the daily cap, the ceiling of fees.
_POOR = "there is not enough money to send: fund the wallet"
_CAPPED = "the wallet has spent what it may in 24 hours: wait, or raise its daily cap (SLUICE_DAILY_SPEND_CAP_WEI)"
_OVERDUE = "the time in which it was to be sent is over. Ask again if you still want it"
_COSTLY = "the base fee is above what the wallet may pay: wait, or raise SLUICE_MAX_FEE_GWEI"
#: Answers after which the nonce needs nothing more of the sender; after any other the transaction goes out again.
_SETTLED = frozenset({Kind.KNOWN, Kind.NONCE_TOO_LOW})
#: What stands for the words of a node that has none.
_NULL = "the node answered null"


@dataclass(slots=True)
class Chosen:
    """Result of `choose`: what can be sent now, and which intents end unsent."""

    groups: list[Group] = field(default_factory=list)
    #: How many nonces may be claimed.
    capacity: int = 0
    #: Whether more may be ready: the run's share was used up, or a group fell apart.
    more: bool = False
    #: Intents that end without a nonce.
    moves: list[IntentMove] = field(default_factory=list)
    #: How many of them FAILED, by method and reason, for the metric.
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Keys of those in `groups` that rely on what is not in a block yet.
    early: set[str] = field(default_factory=set)

    @property
    def ended(self) -> list[str]:
        """Keys of the intents that end unsent."""
        return [key for move in self.moves for key in move.keys]


def choose(
    context: RunContext,
    snapshot: ChainSnapshot,
    open_records: Sequence[NonceRecord],
    spent: Sequence[NonceRecord],
    memory: LaneMemory,
) -> Chosen:
    """Take READY intents from the queue, grouped and encoded, as many as may be in flight.

    Intents that can never become READY are ended. `spent`: records whose nonce is spent, nobody knows yet by what.
    """
    chosen = Chosen()
    silent, memory.unanswered = memory.unanswered, None
    capacity = min(context.policy.burst, context.policy.max_in_flight - len(open_records))
    capacity = min(capacity, context.policy.burst - len(memory.missing))
    holds = memory.holds()
    # A price that is too low for others does not keep what saves a stake from a nonce: with it, theirs are raised.
    if capacity <= 0 or any(not (hold.reprice and context.policy.uncapped) for hold in holds):
        return chosen
    # A run that broke off has left some of them in the queue, although they have a nonce.
    held = {key for record in (*open_records, *spent) for key in record.intents}
    ready: list[Intent] = []
    groups: list[tuple[Intent, ...]] = []
    seen = 0
    # Fetch one group more than fits, so that the last one that fits is full.
    while (len(groups) <= capacity or context.policy.uncapped) and seen < context.policy.scan:
        # As many as it takes, going by those seen so far.
        likely = (capacity + 1 - len(groups)) * max(1, seen) // max(1, len(groups))
        window = min(context.policy.window, max(_LEAST_WINDOW, likely))
        queued = context.store.queued(context.lane, window, seen)
        seen += len(queued)
        fresh = _in_time(context, chosen, [intent for intent in queued if intent.key not in held])
        verdicts = context.readiness.check(fresh, snapshot.moment) if fresh else []
        memory.unanswered = memory.unanswered or _find_unanswered(snapshot, verdicts, silent)
        chosen.early |= find_early(context, snapshot, memory, fresh, verdicts)
        for intent, verdict in zip(fresh, verdicts, strict=True):
            if verdict.judgement is Judgement.READY or intent.key in chosen.early:
                ready.append(intent)
            elif verdict.judgement is not Judgement.WAIT:
                _end_unsent(chosen, intent, verdict.judgement, verdict.reason, "impossible")
        groups = _in_order(context, ready)
        if len(queued) < window:
            break
    chosen.capacity = capacity
    chosen.more = capacity == context.policy.burst and len(groups) > capacity
    for group in _fitting(context.policy, groups[:capacity], len(open_records), hold=bool(holds)):
        try:
            chosen.groups.append((group, context.encoder.encode(group)))
        except BadMessage as error:
            for intent, why in _find_misfits(context, group) or [(intent, str(error)) for intent in group]:
                _end_unsent(chosen, intent, Judgement.DEAD, why, "not_encodable")
            # Those who only shared the transaction go in the next run.
            chosen.more = True
    return chosen


def _find_unanswered(
    snapshot: ChainSnapshot, verdicts: Sequence[ReadinessVerdict], before: Missing | None
) -> Missing | None:
    """What the node does not tell of these intents, in the words of the run `before`; None if it tells all."""
    why = next((verdict.reason for verdict in verdicts if verdict.unanswered), None)
    if why is None:
        return None
    # A lower head than before means a reorg.
    return before if before is not None and before.since <= snapshot.head else Missing(snapshot.head, why)


def _in_time(context: RunContext, chosen: Chosen, queued: Sequence[Intent]) -> list[Intent]:
    """The intents that may still be sent; the others end unsent."""
    now = context.clock()
    for intent in queued:
        if intent.overdue(now):
            _end_unsent(chosen, intent, Judgement.DEAD, _OVERDUE, "overdue")
    return [intent for intent in queued if not intent.overdue(now)]


def _in_order(context: RunContext, ready: Sequence[Intent]) -> list[tuple[Intent, ...]]:
    """Groups that share a transaction: deadlines first, then an operator's calls, then what a cap may hold."""
    uncapped = context.policy.uncapped
    return sorted(
        context.encoder.group(ready),
        key=lambda group: (group[0].method not in uncapped, group[0].method == READY_MADE),
    )


def _fitting(
    policy: LanePolicy, groups: Sequence[tuple[Intent, ...]], opened: int, *, hold: bool
) -> list[tuple[Intent, ...]]:
    """The groups, in their order, that get a nonce: some nonces are kept for uncapped methods, all with `hold`."""
    first = [group for group in groups if group[0].method in policy.uncapped]
    others = [group for group in groups if group[0].method not in policy.uncapped]
    return [*first, *others[: 0 if hold else max(0, policy.most_calls - opened - len(first))]]


def _find_misfits(context: RunContext, group: Sequence[Intent]) -> list[tuple[Intent, str]]:
    """The intents of a group that cannot be encoded even alone, each with the reason."""
    found: list[tuple[Intent, str]] = []
    for intent in group:
        try:
            context.encoder.encode((intent,))
        except BadMessage as error:
            found.append((intent, str(error)))
    return found


def _end_unsent(chosen: Chosen, intent: Intent, judgement: Judgement, reason: str, label: str) -> None:
    """Add a move that ends an intent without a transaction, and log it. `label`: the reason for the metric."""
    state = IntentState.DONE if judgement is Judgement.DONE else IntentState.FAILED
    chosen.moves.append(IntentMove((intent.key,), state, reason=reason))
    if state is IntentState.FAILED:
        chosen.failed[method_of((intent.key,)), label] += 1
    log.info("Intent ended unsent.", action="lane_ended_unsent", intent=intent.key, state=state.value, why=reason)


def afford(
    context: RunContext,
    snapshot: ChainSnapshot,
    open_records: Sequence[NonceRecord],
    groups: list[Group],
    memory: LaneMemory,
) -> list[Group]:
    """The groups, in order, whose cost the wallet's balance, the daily cap and the ceiling of fees allow."""
    memory.short = None
    if not groups:
        return []
    policy = context.policy
    fees = sum(record.gas_limit * record.newest.fees.max_fee for record in open_records)
    committed = fees + sum(record.value for record in open_records)
    left = snapshot.balance - committed - policy.keep_balance
    allowed = left_today(context, fees)
    paid: list[Group] = []
    why = _POOR
    for group in groups:
        _, call = group
        fee = call.gas * offer_for(context, group, snapshot.market).max_fee
        if fee + call.value > left:
            why = _POOR
            # A smaller one behind it may fit: a finalize must not wait for the gas of fifty initializes.
            continue
        held = why_held(context, group, snapshot.market, allowed)
        if held is not None:
            why = held
            continue
        left -= fee + call.value
        allowed = None if allowed is None else allowed - fee
        paid.append(group)
    if not paid and not open_records:
        memory.short = why
    if len(paid) < len(groups) and context.clock() - memory.warned > _WARN_SECONDS:
        memory.warned = context.clock()
        log.error(
            f"Not sent: {why}.",
            action="lane_low_balance",
            wallet=context.lane.wallet,
            balance=snapshot.balance,
            committed=committed,
            daily_cap=policy.daily_cap,
            base_fee=snapshot.base_fee,
            ceiling=policy.fees.ceiling,
            waiting=len(groups) - len(paid),
        )
    return paid


def left_today(context: RunContext, in_flight: int) -> int | None:
    """Wei that the daily cap leaves, where open nonces may cost `in_flight`; None: there is no cap."""
    cap = context.policy.daily_cap
    if cap is None:
        return None
    return cap - in_flight - context.store.spent_since(context.lane, context.clock() - DAY_SECONDS)


def why_held(context: RunContext, group: Group, market: FeeMarket, allowed: int | None) -> str | None:
    """Why the daily cap or the fee ceiling holds this group back, in words; None if neither does. `allowed`: what
    `left_today` says.
    """
    policy, (intents, call) = context.policy, group
    offer = offer_for(context, group, market)
    if allowed is not None and call.gas * offer.max_fee > allowed and intents[0].method not in policy.uncapped:
        return _CAPPED
    if policy.uncapped and too_low(offer, market.base_fee):
        return _COSTLY
    return None


def offer_for(context: RunContext, group: Group, market: FeeMarket) -> Fees:
    """Fees of this group's first attempt: above the ceiling only as far as what its failure would cost."""
    intents, call = group
    lost = sum(context.worth(intent) for intent in intents)
    policy = context.policy
    fees = quote(ceiling_worth(policy.fees, [(call.gas, lost)]), market)
    return fees if policy.order is None else ordered_fees(fees, intents[0].method, policy.fees, market, policy.order)


def claim(
    run: LeasedRun, snapshot: ChainSnapshot, groups: Sequence[Group], next_nonce: Nonce, early: Collection[str] = ()
) -> list[NonceRecord]:
    """Sign the groups' calls at consecutive nonces and store them. `early`: keys of intents that rely on what is not in
    a block yet. Raises LeaseLost.
    """
    context = run.context
    prices = [offer_for(context, group, snapshot.market) for group in groups]
    unsigned = [
        Unsigned(
            context.lane.chain_id, Nonce(next_nonce + offset), call.to, call.data, call.gas, fees, value=call.value
        )
        for offset, ((_, call), fees) in enumerate(zip(groups, prices, strict=True))
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
            early=intents[0].key in early,
        )
        for (intents, call), item, attempt in zip(groups, unsigned, context.signer.sign(unsigned), strict=True)
    ]
    run.keep_lease()
    context.store.claim(run.lease, records)
    for record in records:
        LANE_SENT.labels(method_of(record.intents)).inc()
        if record.early:
            EARLY_SENT.labels(method_of(record.intents)).inc()
    return records


def broadcast(run: LeasedRun, snapshot: ChainSnapshot, outbox: Sequence[NonceRecord], memory: LaneMemory) -> bool:
    """Send the newest attempt of each record to the node and record its answers; whether to run again at once.

    Raises RpcUnavailable: then it is unknown what was accepted, and the next run sends all of them again.
    """
    if not outbox:
        return False
    context = run.context
    ordered = sorted(outbox, key=lambda record: record.nonce)
    run.keep_lease()
    answers = context.rpc.batch([("eth_sendRawTransaction", (record.newest.raw,)) for record in ordered])
    sent: list[Nonce] = []
    look_again = False
    for record, answer in zip(ordered, answers, strict=True):
        if not isinstance(answer, RpcError):
            if answer is None:
                # What became of it is unknown: it counts as sent.
                memory.add_refusal(record.nonce, Kind.UNKNOWN, _NULL, record.newest.tx_hash, snapshot.head)
            else:
                memory.clear_refusals(record.nonce)
            sent.append(record.nonce)
            continue
        reaction = _record_refusal(context, record, answer, snapshot, memory)
        # A fatal refusal has its remedy at once, unless these bytes were tried before.
        first = record.nonce in memory.refused and memory.refused[record.nonce].tries == 1
        look_again = look_again or reaction.look_again or (reaction.replace_with_noop and first)
        # A busy node has most likely not taken it: a price is not to blame for what no block can have seen.
        if reaction.maybe_sent and not reaction.hold:
            sent.append(record.nonce)
    carried = tuple(key for record in ordered for key in record.intents)
    intents = [IntentMove(carried, IntentState.SENT)] if carried else []
    run.context.store.move(run.lease, intents, [Sent(tuple(sent), snapshot.head)] if sent else [])
    return look_again


def _record_refusal(
    context: RunContext, record: NonceRecord, answer: RpcError, snapshot: ChainSnapshot, memory: LaneMemory
) -> Reaction:
    """Classify the node's error about one transaction, record it in `memory`, and log it; how the lane reacts."""
    kind, answer = deciding(answer, context.policy.phrases)
    reaction = REACTIONS[kind]
    if kind in _SETTLED:
        memory.clear_refusals(record.nonce)
    else:
        memory.add_refusal(record.nonce, kind, answer.message, record.newest.tx_hash, snapshot.head)
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
