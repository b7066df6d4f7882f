"""Twenty-five ways in which iExec Core 9.2.1 loses tasks, stakes or time, each with tests that this pool does not.

A row: the failing, and tests by file and name. What had no test of its own has one below.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from pipeline.domain.actions import Explain, Want
from pipeline.domain.tries import MAX_FAILED_INTENTS
from protocol.types import Hash32
from tests.unit.pipeline.builders import CONTRIBUTE_UNTIL, decided, initialized, task, view

ROOT = Path(__file__).parents[1]
DECIDE, VOTES = "unit/pipeline/domain/decide/test_decide.py", "unit/pipeline/domain/decide/test_decide_votes.py"
LANE, HERE = "unit/chain/lane", "unit/test_known_failings.py"
FAILINGS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "A deal that cannot be read for a moment is skipped for good",
        (
            (
                "unit/pipeline/flow/test_ingest.py",
                "test_a_deal_that_cannot_be_read_does_not_keep_others_from_being_read",
            ),
            ("integration/pipeline/test_sweep.py", "test_a_deal_whose_message_was_lost_is_handed_on_again"),
        ),
    ),
    (
        "One transient error while initialize or finalize is asked for fails the task",
        (
            (VOTES, "test_a_failed_initialize_gets_another_try_with_another_key"),
            (
                f"{LANE}/rules/test_poco_rules.py",
                "test_a_node_that_is_behind_or_a_reorg_ends_no_step_of_a_task_that_was_initialized",
            ),
        ),
    ),
    (
        "A task that anybody else initializes first is failed",
        ((f"{LANE}/test_run.py", "test_what_is_already_done_on_chain_is_done_without_a_nonce"),),
    ),
    (
        "A command accepted before a crash is forgotten",
        (
            (
                "integration/lane/test_crash_windows.py",
                "test_killed_after_the_intent_is_stored_and_before_it_has_a_nonce",
            ),
            ("integration/lane/test_crash_windows.py", "test_killed_after_a_send_and_before_its_status_is_saved"),
        ),
    ),
    (
        "No replacement by fee, nonce 0 after an error of the node, a new transaction for each retry",
        (
            (f"{LANE}/test_repair.py", "test_a_base_fee_above_the_cap_bumps_the_fee_of_the_lowest_nonce"),
            (f"{LANE}/rules/test_unknown.py", "test_a_head_that_cannot_be_read_costs_a_run_and_no_more"),
            (f"{LANE}/test_repair.py", "test_a_transaction_whose_acceptance_was_lost_is_not_sent_twice"),
        ),
    ),
    (
        "Nothing is reopened or claimed",
        (
            (DECIDE, "test_if_nobody_reveals_in_time_the_task_is_reopened"),
            (DECIDE, "test_a_task_past_its_final_deadline_is_claimed"),
            (
                "unit/pipeline/domain/decide/test_decide_always.py",
                "test_a_claim_is_tried_until_it_is_mined_however_often_it_failed",
            ),
        ),
    ),
    (
        "A lost worker is replaced only after the task's whole time",
        (
            (VOTES, "test_a_replicate_that_is_over_is_replaced_at_once"),
            (VOTES, "test_a_worker_that_never_starts_is_asked_again_and_then_replaced"),
        ),
    ),
    (
        "A finalize that reverts for one uploader's data fails the task",
        (
            (DECIDE, "test_a_stored_result_that_is_not_what_was_agreed_on_is_not_used"),
            (DECIDE, "test_another_winner_is_asked_for_the_result_if_the_first_does_not_deliver"),
        ),
    ),
    (
        "An upload that failed is followed by no other uploader",
        (
            (DECIDE, "test_a_winner_that_said_it_failed_is_not_asked_to_upload"),
            (DECIDE, "test_without_a_stored_result_nothing_is_finalized"),
        ),
    ),
    (
        "A vote read on a lagging node is stored as zero, and its winner never told to reveal",
        (
            (DECIDE, "test_every_winner_on_chain_is_asked_to_reveal_known_to_the_record_or_not"),
            (f"{LANE}/rules/test_poco_rules.py", "test_null_in_place_of_a_view_is_no_word_about_it"),
        ),
    ),
    (
        "A wake-up that comes while its task is looked at is lost",
        (
            (
                "integration/pipeline/assign/test_overlap.py",
                "test_a_decision_whose_save_lost_the_race_frees_no_slot_and_sends_nothing",
            ),
            ("unit/pipeline/domain/decide/test_task_life.py", "test_without_trouble_a_task_completes_within_seconds"),
        ),
    ),
    (
        "A task without votes at its contribution deadline is begun again",
        ((VOTES, "test_nobody_is_asked_after_the_contribution_deadline"),),
    ),
    (
        "A task for enclaves fails at once where no machine is known, and never where others are",
        ((HERE, "test_a_task_for_machines_that_are_not_there_waits_until_its_deadline"),),
    ),
    (
        "A worker that does not come back after a restart of the scheduler is never lost",
        (("unit/pipeline/flow/test_outage.py", "test_a_worker_that_died_in_an_outage_is_lost_after_it"),),
    ),
    (
        "A save that loses a race leaves a slot taken",
        (
            ("integration/pipeline/test_sweep.py", "test_a_slot_that_nothing_holds_is_given_back"),
            (
                "integration/pipeline/assign/test_overlap.py",
                "test_rounds_at_the_same_time_leave_work_and_slots_in_the_record",
            ),
        ),
    ),
    (
        "A machine that aborts before it computed keeps its slot taken",
        ((DECIDE, "test_a_worker_that_still_computes_at_consensus_is_stopped_and_its_slot_freed"),),
    ),
    (
        "Waiting for a block holds a thread and a lock without a limit",
        (
            ("integration/pipeline/trouble/test_faults.py", "test_a_node_frozen_for_a_while_only_delays"),
            (
                "unit/pipeline/flow/test_tasks.py",
                "test_every_task_of_the_scheduler_has_limits_below_rabbitmqs_and_a_queue",
            ),
        ),
    ),
    (
        "Workers ask without a pause while the pool is away",
        (
            ("unit/pipeline/flow/test_tasks.py", "test_a_task_that_finds_a_server_away_waits_at_the_broker"),
            (
                "unit/workers/task/test_attempt.py",
                "test_reports_wait_before_each_try_while_the_pool_is_away_and_longer_each_time",
            ),
        ),
    ),
    (
        "A worker that is cut off at consensus never reveals",
        (
            (
                "integration/pool/trouble/test_faults.py",
                "test_a_machine_killed_between_contribute_and_reveal_reveals_after_its_restart",
            ),
            ("unit/workers/test_upkeep.py", "test_a_winning_vote_is_revealed_even_if_the_pool_is_away_and_never_asks"),
        ),
    ),
    (
        "There can be one scheduler process only, and no upgrade while it runs",
        (
            (
                "integration/lane/test_two_lanes.py",
                "test_two_lanes_paused_alternately_make_a_thousand_payments_once_each",
            ),
            (
                "integration/pipeline/store/test_broken_rows.py",
                "test_what_the_last_release_stored_is_read_and_migrated_once_by_any_number_of_processes",
            ),
        ),
    ),
    (
        "Nothing notices a reorg, and there is one node only",
        (
            (DECIDE, "test_a_reorg_that_takes_finalize_back_opens_the_task_again"),
            ("unit/chain/rpc/test_pool.py", "test_a_node_that_falls_behind_is_left"),
        ),
    ),
    (
        "Matching looks at no tag, stake, standing or requester",
        (
            ("unit/pipeline/domain/test_match.py", "test_a_worker_must_offer_every_bit_of_the_tag"),
            ("unit/pipeline/domain/test_match.py", "test_a_vote_needs_stake_and_working_alone_needs_none"),
            ("unit/pipeline/domain/test_match.py", "test_who_was_right_on_chain_comes_before_any_stake"),
        ),
    ),
    (
        "What is old is never removed, and each look reads all of it",
        (
            (f"{LANE}/store/test_stores.py", "test_every_named_query_finds_its_rows_by_an_index"),
            ("integration/api/test_enrolment.py", "test_what_limits_and_tidying_ask_uses_an_index"),
        ),
    ),
    (
        "One word of any worker has the whole chain read",
        ((DECIDE, "test_only_reports_that_can_change_a_decision_wake_the_pipeline"),),
    ),
    (
        "Blocks of less than a second, slow and idle chains are taken for a node that fails",
        (
            (
                "unit/pipeline/condition/test_health.py",
                "test_blocks_that_keep_coming_distinguish_a_clock_ahead_from_a_halted_chain",
            ),
            ("integration/chain/test_chain_heads.py", "test_a_chain_that_stands_still_still_wakes_up"),
        ),
    ),
)


@cache
def names_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("failing", "tests"), FAILINGS, ids=lambda item: item if isinstance(item, str) else "")
def test_each_failing_has_tests_by_name(failing: str, tests: tuple[tuple[str, str], ...]) -> None:
    assert tests
    for path, name in tests:
        assert name in names_of(path), f"{failing}: {path} has no {name}"


def test_all_twenty_five_are_there() -> None:
    assert len({failing for failing, _ in FAILINGS}) == 25


@pytest.mark.parametrize("now", [1003.0, CONTRIBUTE_UNTIL - 1.0])
def test_a_task_for_machines_that_are_not_there_waits_until_its_deadline(now: float) -> None:
    """Whatever machines are known, or none: it is wanted, given up by nobody, and initialized so that it can be had."""
    record = task(trust=3, tag=Hash32("0x" + "0" * 63 + "3"), failed={"initialize": MAX_FAILED_INTENTS - 1})
    actions = decided(record, view(initialized()), now)
    assert any(isinstance(action, Want) and action.count for action in actions)
    assert not any(isinstance(action, Explain) for action in actions)
