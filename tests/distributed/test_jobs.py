"""Resends and replays on a distributed history: the tests of the store, with another database."""

import pytest

from tests.store.conftest import connection, deployment, sql, story
from tests.store.test_jobs import (
    mixed,
    runners,
    test_a_delivery_is_in_one_job_at_a_time,
    test_a_job_ends_with_its_endpoint,
    test_a_job_is_taken_over_behind_its_last_delivery,
    test_a_job_starts_exactly_what_a_dry_run_counts,
    test_a_paused_job_starts_nothing_until_it_is_resumed,
    test_a_recovery_replays_what_failed_or_was_cancelled,
    test_a_replay_keeps_id_body_and_attempts,
    test_a_replay_to_another_endpoint_sends_each_event_once,
    test_a_step_that_is_cut_off_leaves_no_gap,
    test_a_walk_over_days_finds_each_delivery_once,
    test_bad_jobs_are_refused_or_find_nothing,
)

pytestmark = pytest.mark.postgres

__all__ = [
    "connection",
    "deployment",
    "mixed",
    "runners",
    "sql",
    "story",
    "test_a_delivery_is_in_one_job_at_a_time",
    "test_a_job_ends_with_its_endpoint",
    "test_a_job_is_taken_over_behind_its_last_delivery",
    "test_a_job_starts_exactly_what_a_dry_run_counts",
    "test_a_paused_job_starts_nothing_until_it_is_resumed",
    "test_a_recovery_replays_what_failed_or_was_cancelled",
    "test_a_replay_keeps_id_body_and_attempts",
    "test_a_replay_to_another_endpoint_sends_each_event_once",
    "test_a_step_that_is_cut_off_leaves_no_gap",
    "test_a_walk_over_days_finds_each_delivery_once",
    "test_bad_jobs_are_refused_or_find_nothing",
]
