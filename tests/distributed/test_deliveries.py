"""Recording results in a distributed history: the tests of the store, with another database."""

import pytest

from tests.store.test_deliveries import (
    deliveries,
    sql,
    test_a_failed_resend_of_a_waiting_delivery_keeps_its_due_time,
    test_a_late_result_under_a_stale_token_writes_nothing,
    test_a_row_that_postgres_refuses_takes_its_whole_batch_with_it,
    test_a_stale_token_writes_nothing,
    test_a_success_after_a_cancellation_in_flight_makes_it_succeeded,
    test_an_ended_lease_without_a_takeover_still_records,
    test_cancelling_skips_rows_that_a_recorder_holds,
    test_load_returns_what_is_still_open_with_its_body,
    test_record_failure_after_cancellation_starts_no_schedule,
    test_record_success_retry_and_failure_leave_one_attempt_each,
    test_recording_a_batch_twice_changes_nothing,
    test_requests_are_of_our_shards_and_not_in_flight,
    test_resend_request_during_an_attempt_is_settled_by_its_success,
    test_resend_request_is_settled_by_a_later_or_successful_attempt,
    test_what_a_paused_endpoint_held_too_long_is_cancelled,
    test_what_is_no_rows_fault_is_waited_out,
)

pytestmark = pytest.mark.postgres

__all__ = [
    "deliveries",
    "sql",
    "test_a_failed_resend_of_a_waiting_delivery_keeps_its_due_time",
    "test_a_late_result_under_a_stale_token_writes_nothing",
    "test_a_row_that_postgres_refuses_takes_its_whole_batch_with_it",
    "test_a_stale_token_writes_nothing",
    "test_a_success_after_a_cancellation_in_flight_makes_it_succeeded",
    "test_an_ended_lease_without_a_takeover_still_records",
    "test_cancelling_skips_rows_that_a_recorder_holds",
    "test_load_returns_what_is_still_open_with_its_body",
    "test_record_failure_after_cancellation_starts_no_schedule",
    "test_record_success_retry_and_failure_leave_one_attempt_each",
    "test_recording_a_batch_twice_changes_nothing",
    "test_requests_are_of_our_shards_and_not_in_flight",
    "test_resend_request_during_an_attempt_is_settled_by_its_success",
    "test_resend_request_is_settled_by_a_later_or_successful_attempt",
    "test_what_a_paused_endpoint_held_too_long_is_cancelled",
    "test_what_is_no_rows_fault_is_waited_out",
]
