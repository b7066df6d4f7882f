"""Every Prometheus metric, declared once. A scheduler's processes share them through files in `SLUICE_METRICS_DIR`.

The library decides at import whether values live in files: `config.metrics_folder.share` comes before this module.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RPC_REQUESTS = Counter("sluice_rpc_requests_total", "JSON-RPC calls sent, batched ones each.", ["method", "outcome"])
RPC_SECONDS = Histogram("sluice_rpc_seconds", "Seconds per HTTP exchange with a node.")
BLOCKS_READ = Counter("sluice_blocks_read_total", "Blocks followed.")
REORGS = Counter("sluice_reorgs_total", "Reorganisations seen.")
REORGS_BEYOND_FINALITY = Counter(
    "sluice_reorgs_beyond_finality_total",
    "Reorganisations that replaced blocks whose transactions counted as final; from the highest block followed.",
)
LATE_FINDS = Counter("sluice_late_finds_total", "Events that the first reading of their block missed.", ["found_by"])
HIDDEN_LOGS = Counter("sluice_hidden_logs_total", "Hub events that eth_getLogs left out and receipts showed.")
QUARANTINED = Counter("sluice_quarantined_total", "Stored rows and deals that were quarantined.", ["collection"])
BACKGROUND_FAILURES = Counter(
    "sluice_background_failures_total", "Unexpected errors of a background thread, which went on.", ["thread"]
)
BACKGROUND_DROPPED = Counter("sluice_background_dropped_total", "Items a background thread gave up.", ["thread"])
DEALS = Counter("sluice_deals_total", "Deals ingested.")
TASKS_ENDED = Counter("sluice_tasks_ended_total", "Tasks ended.", ["status"])
LANE_SENT = Counter("sluice_lane_sent_total", "Transactions broadcast for the first time.", ["method"])
LANE_MINED = Counter("sluice_lane_mined_total", "Transactions mined.", ["method", "outcome"])
LANE_REBROADCAST = Counter("sluice_lane_rebroadcast_total", "Signed bytes sent again.")
LANE_IN_FLIGHT = Gauge("sluice_lane_in_flight", "Open nonces.", ["wallet"], multiprocess_mode="mostrecent")
LANE_HALTED = Gauge(
    "sluice_lane_halted",
    "1 while the lane stands still until an operator decides.",
    ["wallet"],
    multiprocess_mode="mostrecent",
)
LANE_WAITS = Gauge(
    "sluice_lane_waits",
    "1 while the lane waits for something that it cannot mend; `sluice tx ls` says what.",
    ["wallet"],
    multiprocess_mode="mostrecent",
)
REPORTS = Counter("sluice_reports_total", "Worker reports accepted.", ["step"])
CONTAINERS = Counter("sluice_containers_total", "App containers ended.", ["outcome"])
