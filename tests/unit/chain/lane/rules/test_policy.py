"""From settings to the lane's numbers."""

from __future__ import annotations

import pytest

from chain.lane.model.policy import LanePolicy
from chain.lane.rules.send_errors import Kind
from config.settings import read_settings
from pipeline.domain.replicas import Timeouts
from protocol.errors import BadSetting


def test_every_setting_of_the_lane_reaches_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "LANE_MAX_IN_FLIGHT": "3",
        "LANE_MAX_QUEUED": "7",
        "FEE_POLICY": "fixed",
        "MAX_FEE_GWEI": "0.000000003",
        "FIXED_FEE_GWEI": "0.1",
        "KEEP_BALANCE_WEI": "1000000000000000000000000",
        "DAILY_SPEND_CAP_WEI": "5",
        "FINALITY_BLOCKS": "65",
        "LANE_DRY_RUN": "1",
        "REFUSAL_PHRASES": "come back later=busy",
    }.items():
        monkeypatch.setenv(f"SLUICE_{name}", value)
    policy = LanePolicy.of(read_settings())
    assert (policy.max_in_flight, policy.max_queued, policy.finality, policy.dry_run) == (3, 7, 65, True)
    assert (policy.keep_balance, policy.daily_cap) == (10**24, 5)
    assert (policy.fees.name, policy.fees.ceiling, policy.fees.fixed) == ("fixed", 3, 10**8)
    assert policy.phrases == (("come back later", Kind.BUSY),)


def test_a_depth_that_is_waited_for_leaves_tips_and_decisions_as_they_are_without_early_steps() -> None:
    assert LanePolicy.of(read_settings(state="pending")).order is not None
    assert LanePolicy.of(read_settings(state="pending", spend_depth=2)).order is None
    assert Timeouts.of(read_settings(state="pending")).early_steps
    assert not Timeouts.of(read_settings(state="pending", spend_depth=2)).early_steps


def test_without_settings_nothing_is_capped() -> None:
    policy = LanePolicy.of(read_settings())
    assert (policy.daily_cap, policy.keep_balance, policy.dry_run, policy.finality) == (None, 0, False, 12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_FINALITY_BLOCKS", "0"),
        ("SLUICE_SPEND_DEPTH", "-1"),
        ("SLUICE_DAILY_SPEND_CAP_WEI", "0.5"),
        ("SLUICE_KEEP_BALANCE_WEI", "much"),
        ("SLUICE_MAX_FEE_GWEI", "0.0000000001"),
        ("SLUICE_LANE_DRY_RUN", "perhaps"),
        ("SLUICE_REFUSAL_PHRASES", "no kind"),
    ],
)
def test_a_wrong_number_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSetting, match=name):
        LanePolicy.of(read_settings())
