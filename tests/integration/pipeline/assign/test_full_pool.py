"""Sign-ins at a pool that has as many machines as it takes, on a real MongoDB."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.domain.machines.enrolment import Applicant, Policy
from pipeline.domain.records import ChainFacts
from pipeline.flow.machines.enrolment import SignInFacts, admit
from pipeline.store.client import Store
from protocol.errors import Refused
from protocol.types import NRlc, Wei
from tests.integration.pipeline.rows import ALICE, NOW, many
from tests.unit.pipeline.builders import worker

FREE = ChainFacts(2, NRlc(0), Wei(1), funded=True)
PROVEN = replace(FREE, score=4)


def test_new_wallets_that_fill_the_pool_keep_no_proven_machine_out(store: Store) -> None:
    many(store, 1, 3, FREE)
    stranger = SignInFacts(ALICE, None, "192.0.2.1", None, Policy(most_machines=3), Applicant())
    back = replace(stranger, worker=worker(1, facts=PROVEN, lost=True))
    with pytest.raises(Refused, match="at most 3 machines"):
        admit(store.workers, store.enrolment, stranger, NOW, 0, 0)
    many(store, 200, 2, PROVEN)
    admit(store.workers, store.enrolment, back, NOW, 0, 0)
    # Those that are as good as it do count.
    many(store, 300, 1, PROVEN)
    with pytest.raises(Refused, match="at most 3 machines"):
        admit(store.workers, store.enrolment, back, NOW, 0, 0)
