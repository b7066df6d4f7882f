"""Every Prometheus metric, declared once. A scheduler's processes share them through files in `SLUICE_METRICS_DIR`.

The library decides at import whether values live in files: `config.metrics_folder.share` comes before this module.

    counted, timed     by the process that does it; `/metrics` adds up the files of all
    readings           by the API whenever `/metrics` is asked (`pipeline.api.readings`)

Labels have names of ours as values, never words of strangers, so that their number is bounded. docs/metrics.md is made
from here, and tests check every panel and alert in `monitoring/` against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily

#: Blocks from the match: at least 2 and 4, or 1 and 2 where steps share a block, and a contribution may take hundreds.
BLOCKS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100, 300, 1000)
#: Seconds from the match until the scheduler knows of it: blocks of 1 s and of a quarter of a minute, tasks of hours.
TASK_SECONDS_BUCKETS = (2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 10800, 36000)
#: Attempts at a task: 1 to 5 for the usual trusts, more where machines fail or are newcomers.
REPLICATES = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
#: Seconds of an upload: a few KB on a fast line to hundreds of MB at the least rate that the API takes.
UPLOAD_SECONDS_BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 60, 180, 600, 1800, 7200)


class Kind(StrEnum):
    """The Prometheus type of a metric."""

    COUNTER = "counter"  #: only grows; begins again at 0 when the scheduler is started
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric, as the page and the tests see it."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """The metric's names in Prometheus: of a histogram `_bucket`, `_sum` and `_count`, else the one name."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Reading:
    """A gauge whose value is read when `/metrics` is asked."""

    name: str
    about: str
    labels: tuple[str, ...] = ()

    def of(self, value: float) -> GaugeMetricFamily:
        """The one value of a reading without labels."""
        return GaugeMetricFamily(self.name, self.about, value=value)

    def by(self, values: dict[str, float]) -> GaugeMetricFamily:
        """The values of a reading with one label, by that label."""
        family = GaugeMetricFamily(self.name, self.about, labels=self.labels)
        for label, value in values.items():
            family.add_metric([label], value)
        return family


#: All metrics, in the order of the page.
DECLARED: list[Declared] = []


def _declare(name: str, kind: Kind, about: str, labels: Sequence[str]) -> None:
    """Note a metric for the table in docs/metrics.md."""
    DECLARED.append(Declared(name, kind, about, tuple(labels)))


def _counter(name: str, about: str, labels: Sequence[str] = ()) -> Counter:
    """Declare a counter and make it."""
    _declare(name, Kind.COUNTER, about, labels)
    return Counter(name, about, labels)


def _gauge(name: str, about: str, labels: Sequence[str] = ()) -> Gauge:
    """A gauge of which the value that was set last counts, whichever process set it."""
    _declare(name, Kind.GAUGE, about, labels)
    return Gauge(name, about, labels, multiprocess_mode="mostrecent")


def _histogram(name: str, about: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = ()) -> Histogram:
    """Declare a histogram and make it, with its own buckets if there are any."""
    _declare(name, Kind.HISTOGRAM, about, labels)
    return Histogram(name, about, labels, buckets=buckets) if buckets else Histogram(name, about, labels)


def _reading(name: str, about: str, labels: Sequence[str] = ()) -> Reading:
    """Declare a gauge that is read at each scrape."""
    _declare(name, Kind.GAUGE, about, labels)
    return Reading(name, about, tuple(labels))


# -- the pool at a glance ----------------------------------------------------------------------------------------------

PART_OK = _reading("sluice_part_ok", "1 if the part of the pool is well, as `/health` says.", ["part"])
REPORT_AGE = _reading(
    "sluice_report_age_seconds", "Seconds since the parts were last checked; most readings are from then."
)
HOLDING = _reading(
    "sluice_holding",
    "1 while the pool begins nothing new because something that work needs is away; it goes on by itself.",
)
PAUSED = _reading("sluice_paused", "1 while the operator has paused the pool.")
BACKGROUND_FAILURES = _counter(
    "sluice_background_failures_total", "Unexpected errors of a background thread, which went on.", ["thread"]
)
BACKGROUND_DROPPED = _counter("sluice_background_dropped_total", "Items a background thread gave up.", ["thread"])

# -- chain -------------------------------------------------------------------------------------------------------------

RPC_REQUESTS = _counter(
    "sluice_rpc_requests_total",
    "JSON-RPC calls sent, batched ones each. `endpoint`: the node's host and port, no other part of its address.",
    ["method", "endpoint", "outcome"],
)
RPC_SECONDS = _histogram("sluice_rpc_seconds", "Seconds per HTTP exchange with a node.", ["endpoint"])
CHAIN_HEAD = _reading("sluice_chain_head", "Newest block of the node.")
HEAD_AGE = _reading("sluice_head_age_seconds", "Age of the node's newest block by this machine's clock.")
BLOCK_TIME = _reading("sluice_block_time_seconds", "SLUICE_BLOCK_TIME.")
WATCHER_BLOCK = _reading("sluice_watcher_block", "Last block that the watcher stored.")
INGEST_LAG = _reading("sluice_ingest_lag_blocks", "Blocks of the node that the watcher has not stored yet.")
BLOCKS_READ = _counter("sluice_blocks_read_total", "Blocks followed.")
REORGS = _counter("sluice_reorgs_total", "Reorganisations seen.")
REORGS_BEYOND_FINALITY = _counter(
    "sluice_reorgs_beyond_finality_total",
    "Reorganisations that replaced blocks whose transactions counted as final; from the highest block followed.",
)
LATE_FINDS = _counter("sluice_late_finds_total", "Events that the first reading of their block missed.", ["found_by"])
HIDDEN_LOGS = _counter("sluice_hidden_logs_total", "Hub events that eth_getLogs left out and receipts showed.")

# -- tasks -------------------------------------------------------------------------------------------------------------

DEALS = _counter("sluice_deals_total", "Deals ingested.")
TASKS = _reading("sluice_tasks", "Tasks that are not over, by stage.", ["stage"])
OLDEST_TASK_AGE = _reading(
    "sluice_oldest_task_age_seconds", "Seconds since the match of the stage's oldest task; none without one.", ["stage"]
)
OLDEST_TASK_WINDOW = _reading(
    "sluice_oldest_task_window_used",
    "Part of the time from match to deadline that is over for the stage's oldest task or that whose time ends first, "
    "whichever is more: the contribution deadline until consensus, the final one from then on.",
    ["stage"],
)
TASKS_ENDED = _counter("sluice_tasks_ended_total", "Tasks ended.", ["status"])
TASK_BLOCKS = _histogram(
    "sluice_task_blocks", "Blocks from match to initialize, consensus and finalize.", ["step"], buckets=BLOCKS
)
TASK_SECONDS = _histogram(
    "sluice_task_seconds",
    "Seconds from the time of the match's block until the scheduler knew of initialize, consensus and finalize.",
    ["step"],
    buckets=TASK_SECONDS_BUCKETS,
)
TASK_REPLICATES = _histogram(
    "sluice_task_replicates",
    "Attempts of machines at a task that ended: as many as vote on it, if none had to be asked in another's place.",
    buckets=REPLICATES,
)
QUARANTINED_ROWS = _reading(
    "sluice_quarantined_rows", "Stored rows and deals in quarantine now that nobody has accepted.", ["collection"]
)
QUARANTINED = _counter("sluice_quarantined_total", "Stored rows and deals that were quarantined.", ["collection"])
QUEUE_READY = _reading(
    "sluice_queue_ready",
    "Messages that wait in a queue; `machines`: in those of all machines together. The lane's queue is called `lane`.",
    ["queue"],
)
QUEUE_UNACKNOWLEDGED = _reading(
    "sluice_queue_unacknowledged", "Messages that a consumer has and did not acknowledge yet.", ["queue"]
)
QUEUE_AGE = _reading(
    "sluice_queue_age_seconds",
    "Seconds since a queue was last seen without messages that wait: none of them has waited longer. Counted every few"
    " seconds since this process began to look.",
    ["queue"],
)
DEAD_LETTERS = _reading(
    "sluice_dead_letters", "Messages in the queue `dead`: each was delivered 20 times without success."
)

# -- money -------------------------------------------------------------------------------------------------------------

WALLET_BALANCE = _reading("sluice_wallet_balance_wei", "What the scheduler's wallet holds for gas.")
TASK_COST = _reading("sluice_task_cost_wei", "What the wallet must hold to carry a task through.")
STAKE_FREE = _reading("sluice_stake_free_nrlc", "RLC of the scheduler's wallet in the hub that is free, in nRLC.")
STAKE_LOCKED = _reading("sluice_stake_locked_nrlc", "RLC of the scheduler's wallet that open deals lock, in nRLC.")
REWARDS = _counter(
    "sluice_rewards_nrlc_total",
    "Rewards that the hub paid in final blocks for tasks of this pool, in nRLC: to the `scheduler`, to `machines`.",
    ["receiver"],
)
TRANSACTIONS_OPEN = _reading("sluice_transactions_open", "Actions of the scheduler that are not on chain yet.")
TRANSACTION_OLDEST_AGE = _reading(
    "sluice_transaction_oldest_age_seconds", "Age of the oldest of them, 0 where there is none."
)
LANE_SENT = _counter("sluice_lane_sent_total", "Transactions broadcast for the first time.", ["method"])
LANE_MINED = _counter("sluice_lane_mined_total", "Transactions mined.", ["method", "outcome"])
LANE_FAILED = _counter(
    "sluice_lane_failed_total",
    "Actions that ended without effect: `impossible` (the contract would refuse them), `reverted` too often, "
    "`overdue`, `cancelled`, `not_encodable`.",
    ["method", "reason"],
)
#: Its reasons.
FAILURES = ("impossible", "reverted", "overdue", "cancelled", "not_encodable")
LANE_REBROADCAST = _counter("sluice_lane_rebroadcast_total", "Signed bytes sent again.")
LANE_REPLACED = _counter(
    "sluice_lane_replaced_total",
    "Further attempts at a nonce: `call` with a higher fee or gas limit, `yield` as a 0-value self-transfer.",
    ["purpose"],
)
LANE_GAS_SPENT = _counter(
    "sluice_lane_gas_spent_wei_total", "Fees of transactions that are final, by contract method.", ["method"]
)
EARLY_SENT = _counter(
    "sluice_early_sent_total",
    "Transactions sent behind one that was not in a block yet (SLUICE_STATE=pending), by contract method. A machine's "
    "are counted on the machine, which shows no metrics.",
    ["method"],
)
EARLY_REVERTS = _counter(
    "sluice_early_reverts_total", "Those of them that came too early, reverted and were judged again.", ["method"]
)
EARLY_REVERT_GAS = _counter("sluice_early_revert_gas_total", "Gas that these reverts used.", ["method"])
LANE_NONCE_GAP = _gauge("sluice_lane_nonce_gap", "Nonces below the highest one that no transaction holds.", ["wallet"])
LANE_IN_FLIGHT = _gauge("sluice_lane_in_flight", "Open nonces.", ["wallet"])
LANE_HALTED = _gauge("sluice_lane_halted", "1 while the lane stands still until an operator decides.", ["wallet"])
LANE_WAITS = _gauge(
    "sluice_lane_waits",
    "1 while the lane waits for something that it cannot repair; `sluice tx ls` says what.",
    ["wallet"],
)

ORDERS_OFFERED = _gauge(
    "sluice_orders_offered_tasks",
    "Tasks that can be bought with the orders that the pool has signed and not withdrawn.",
)
ORDERS_SIGNED = _counter("sluice_orders_signed_total", "Workerpool orders signed.")
ORDERS_WITHDRAWN = _counter("sluice_orders_withdrawn_total", "Workerpool orders withdrawn, by what made it.", ["why"])
MARKET_ANSWERS = _counter(
    "sluice_market_answers_total",
    "Answers of the market API about orders: `done`, `refused`, `unknown` (an error, a limit, cut short).",
    ["answer"],
)
CHALLENGES = _counter(
    "sluice_challenges_total",
    "Answers of the secret service about tasks for enclaves: `told`, `refused`, `unknown` (away, an error, a limit).",
    ["answer"],
)

# -- machines ----------------------------------------------------------------------------------------------------------

WORKERS_ABLE = _reading("sluice_workers_able", "Machines that can take work; counted up to 1,000.")
MACHINES = _reading(
    "sluice_machines",
    "Machines that have signed in, by state; of those gone for good, `away` and `lost` are counted up to 10,000 each.",
    ["state"],
)
SLOTS = _reading(
    "sluice_slots",
    "Slots, used and free, of machines that could be given a task, by what the machine offers: `any` has all of them.",
    ["tag"],
)
SLOTS_FREE = _reading("sluice_slots_free", "Those of them that are free.", ["tag"])
ASSIGNMENTS_REFUSED = _counter(
    "sluice_assignments_refused_total",
    "Tasks that a round of matching gave to no machine, by what stood in the way. One that waits is counted in each "
    "round, and of many only the most urgent ones are.",
    ["reason"],
)
REPLICATES_ENDED = _counter(
    "sluice_replicates_ended_total",
    "Attempts of machines at tasks that ended, by what it says of the machine.",
    ["outcome"],
)
REPORTS = _counter("sluice_reports_total", "Worker reports accepted.", ["step"])
RESULT_SECONDS = _histogram(
    "sluice_result_upload_seconds",
    "Seconds from the request to the stored result.",
    buckets=UPLOAD_SECONDS_BUCKETS,
)
RESULTS_NOT_STORED = _counter(
    "sluice_results_not_stored_total", "Results that IPFS or the pool's own disk did not take."
)
CONTAINERS = _counter(
    "sluice_containers_total", "App containers ended; counted on the machines, which show no metrics.", ["outcome"]
)

#: What alerts compare with an hour ago must be there from the start, with 0: what a series begins with is no growth.
for _status in ("COMPLETED", "FAILED"):
    TASKS_ENDED.labels(_status)
for _answer in ("done", "refused", "unknown"):
    MARKET_ANSWERS.labels(_answer)
for _receiver in ("scheduler", "machines"):
    REWARDS.labels(_receiver)
LATE_FINDS.labels("overlap")
