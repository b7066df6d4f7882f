"""Worker records as MongoDB documents; the only place that knows the document's shape."""

from __future__ import annotations

from pipeline.domain.records import ChainFacts, Reservation, WorkerRecord
from pipeline.store.documents import Documents
from protocol.poco.weights import NEWCOMER_WEIGHT
from protocol.types import NRlc, Wei

_HELD = Documents(Reservation, names={"task_id": "task"}, text=("stake",), versioned=False)
FACTS = Documents(ChainFacts, text=("stake", "coins"), versioned=False)
WORKERS = Documents(WorkerRecord, names={"wallet": "_id"}, inner={"held": _HELD, "pledged": _HELD})

#: Facts of a worker that the chain was not asked about yet.
NOTHING_KNOWN = FACTS.to_document(ChainFacts(NEWCOMER_WEIGHT, NRlc(0), Wei(0), funded=False))
