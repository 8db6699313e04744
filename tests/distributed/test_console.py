"""The pages of the console on a distributed history: their own tests, with another database."""

import pytest

from tests.console.conftest import admin, deployment, served, sql, story
from tests.console.test_lists import (
    test_export_is_a_file_without_formulas_up_to_its_bound,
    test_filter_is_shown_as_chips_that_can_be_removed,
    test_outcome_of_events_is_listed_and_system_events_are_hidden,
    test_period_of_a_further_page_ends_with_that_of_the_first,
    test_resend_in_place_shows_its_outcome_and_watches_for_the_result,
    test_selected_deliveries_and_all_that_match_become_a_job,
)
from tests.console.test_pages import (
    test_a_job_is_counted_created_and_paused_by_forms,
    test_a_test_event_shows_its_result_in_place_and_says_what_to_do,
    test_deleting_asks_first_with_what_waits_and_then_says_that_it_is_done,
    test_every_page_answers_with_its_headers_in_both_languages,
    test_list_of_webhooks_begins_with_trouble_and_filters_by_name,
    test_no_get_changes_anything,
    test_webhook_page_counts_failures_by_response_and_recovers_them,
)
from tests.console.test_search import (
    test_search_finds_webhooks_types_pages_and_ids,
)

pytestmark = pytest.mark.postgres

__all__ = [
    "admin",
    "deployment",
    "served",
    "sql",
    "story",
    "test_a_job_is_counted_created_and_paused_by_forms",
    "test_a_test_event_shows_its_result_in_place_and_says_what_to_do",
    "test_deleting_asks_first_with_what_waits_and_then_says_that_it_is_done",
    "test_every_page_answers_with_its_headers_in_both_languages",
    "test_export_is_a_file_without_formulas_up_to_its_bound",
    "test_filter_is_shown_as_chips_that_can_be_removed",
    "test_list_of_webhooks_begins_with_trouble_and_filters_by_name",
    "test_no_get_changes_anything",
    "test_outcome_of_events_is_listed_and_system_events_are_hidden",
    "test_period_of_a_further_page_ends_with_that_of_the_first",
    "test_resend_in_place_shows_its_outcome_and_watches_for_the_result",
    "test_search_finds_webhooks_types_pages_and_ids",
    "test_selected_deliveries_and_all_that_match_become_a_job",
    "test_webhook_page_counts_failures_by_response_and_recovers_them",
]
