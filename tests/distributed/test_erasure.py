"""Erasing events of a distributed history: the tests of the store, with another database."""

import pytest

from tests.store.test_erasure import (
    deployment,
    pool,
    sql,
    test_a_job_counts_nothing_that_was_erased,
    test_an_erased_delivery_cannot_be_resent,
    test_an_event_that_waits_is_never_sent_and_its_id_stays_known,
    test_another_tenants_events_do_not_exist,
    test_by_label_every_day_and_the_outbox_and_no_other_event,
    test_what_an_event_said_is_gone_from_every_table_and_its_states_stay,
    test_what_is_answered_to_an_attempt_in_flight_is_not_kept,
    test_what_is_asked_wrongly_is_refused,
)

pytestmark = pytest.mark.postgres

__all__ = [
    "deployment",
    "pool",
    "sql",
    "test_a_job_counts_nothing_that_was_erased",
    "test_an_erased_delivery_cannot_be_resent",
    "test_an_event_that_waits_is_never_sent_and_its_id_stays_known",
    "test_another_tenants_events_do_not_exist",
    "test_by_label_every_day_and_the_outbox_and_no_other_event",
    "test_what_an_event_said_is_gone_from_every_table_and_its_states_stay",
    "test_what_is_answered_to_an_attempt_in_flight_is_not_kept",
    "test_what_is_asked_wrongly_is_refused",
]
