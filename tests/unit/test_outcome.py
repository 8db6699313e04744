"""Statuses, and the table of what an attempt makes of its delivery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.model import DeliveryState, Outcome, Reason, Trigger
from dispatcher.core.outcome import (
    Decision,
    RetryPolicy,
    decide,
    decide_success,
    honours_retry_after,
    judge_status,
)

PENDING, RETRYING, SUCCEEDED, FAILED, CANCELLED = DeliveryState
OPEN_STATES = (PENDING, RETRYING)
FINAL_STATES = (SUCCEEDED, FAILED, CANCELLED)
FAILURES = tuple(outcome for outcome in Outcome if outcome is not Outcome.OK)
REASONS = {FAILED: Reason.SCHEDULE_SPENT, CANCELLED: Reason.CANCELLED_BY_PERSON}

WMS = RetryPolicy(schedule=(30, 120), jitter_range=None, gone_disables=False)
STANDARD = RetryPolicy(schedule=(100, 1_000), jitter_range=(0.8, 1.2), gone_disables=True)


def decided(
    outcome: Outcome,
    trigger: Trigger = Trigger.SCHEDULED,
    *,
    state: DeliveryState = PENDING,
    position: int = 0,
    policy: RetryPolicy = WMS,
    jitter: float = 0.5,
    retry_after_seconds: float | None = None,
) -> Decision:
    return decide(
        outcome=outcome,
        trigger=trigger,
        state=state,
        reason=REASONS.get(state),
        schedule_position=position,
        policy=policy,
        jitter=jitter,
        retry_after_seconds=retry_after_seconds,
    )


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("state", DeliveryState)
@pytest.mark.parametrize("position", [0, 3])
def test_the_short_way_to_a_success_decides_as_the_long_one(trigger, state, position):
    short = decide_success(trigger, position)
    assert short == decided(Outcome.OK, trigger, state=state, position=position)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((200, 201, 202, 204, 206, 226, 299), Outcome.OK),
        ((410,), Outcome.GONE),
        ((429,), Outcome.THROTTLED),
        ((300, 301, 302, 303, 304, 307, 308), Outcome.HTTP_ERROR),
        ((400, 401, 404, 408, 409, 411, 428, 430, 500, 502, 503, 599), Outcome.HTTP_ERROR),
        ((0, 100, 101, 103, 199, 600, 999, -200), Outcome.HTTP_ERROR),
    ],
)
def test_only_2xx_is_success_and_two_statuses_have_a_name(statuses, expected):
    assert {judge_status(status) for status in statuses} == {expected}


def test_retry_after_counts_on_429_and_503_alone():
    assert {status for status in range(1_000) if honours_retry_after(status)} == {429, 503}


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("state", DeliveryState)
@pytest.mark.parametrize("policy", [WMS, STANDARD], ids=["wms", "standard"])
def test_a_success_makes_any_delivery_succeeded(trigger, state, policy):
    counted = trigger in (Trigger.SCHEDULED, Trigger.REPLAY)
    assert decided(Outcome.OK, trigger, state=state, position=1, policy=policy) == Decision(
        state=SUCCEEDED, reason=None, schedule_position=2 if counted else 1
    )


@pytest.mark.parametrize("trigger", [Trigger.SCHEDULED, Trigger.REPLAY])
@pytest.mark.parametrize("state", OPEN_STATES)
@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failure_waits_for_the_next_delay_and_the_last_one_ends_it(trigger, state, outcome):
    decisions = [decided(outcome, trigger, state=state, position=number) for number in range(4)]
    assert decisions == [
        Decision(state=RETRYING, reason=None, schedule_position=1, next_delay_seconds=30),
        Decision(state=RETRYING, reason=None, schedule_position=2, next_delay_seconds=120),
        Decision(state=FAILED, reason=Reason.SCHEDULE_SPENT, schedule_position=3),
        Decision(state=FAILED, reason=Reason.SCHEDULE_SPENT, schedule_position=4),
    ]


def test_an_empty_schedule_means_one_attempt():
    policy = RetryPolicy(schedule=(), jitter_range=None, gone_disables=False)
    assert decided(Outcome.TIMEOUT, policy=policy) == Decision(
        state=FAILED, reason=Reason.SCHEDULE_SPENT, schedule_position=1
    )


@pytest.mark.parametrize(
    ("jitter", "retry_after_seconds", "expected"),
    [(0.0, None, 80), (0.5, None, 100), (0.5, 60, 100), (0.5, 600, 600), (0.5, 1e9, 3_600)],
)
def test_jitter_and_retry_after_reach_the_delay(jitter, retry_after_seconds, expected):
    decision = decided(
        Outcome.THROTTLED,
        policy=STANDARD,
        jitter=jitter,
        retry_after_seconds=retry_after_seconds,
    )
    assert decision.next_delay_seconds == pytest.approx(expected)


@pytest.mark.parametrize("state", OPEN_STATES)
def test_gone_ends_the_delivery_and_the_endpoint_where_the_profile_says_so(state):
    assert decided(Outcome.GONE, state=state, policy=STANDARD) == Decision(
        state=FAILED, reason=Reason.GONE, schedule_position=1, disables_endpoint=True
    )
    assert decided(Outcome.GONE, state=state, policy=WMS).state is RETRYING


@pytest.mark.parametrize("outcome", [each for each in FAILURES if each is not Outcome.GONE])
@pytest.mark.parametrize("trigger", Trigger)
def test_nothing_but_gone_disables_an_endpoint(outcome, trigger):
    for position in range(4):
        decision = decided(outcome, trigger, position=position, policy=STANDARD)
        assert not decision.disables_endpoint


@pytest.mark.parametrize("state", FINAL_STATES)
@pytest.mark.parametrize("outcome", FAILURES)
def test_a_delivery_that_became_final_in_flight_stays_so_after_a_failure(state, outcome):
    assert decided(outcome, state=state, position=1, policy=WMS) == Decision(
        state=state, reason=REASONS.get(state), schedule_position=2
    )


def test_gone_counts_for_the_endpoint_of_a_cancelled_delivery():
    assert decided(Outcome.GONE, state=CANCELLED, policy=STANDARD) == Decision(
        state=CANCELLED,
        reason=Reason.CANCELLED_BY_PERSON,
        schedule_position=1,
        disables_endpoint=True,
    )


@pytest.mark.parametrize("state", DeliveryState)
@pytest.mark.parametrize("outcome", FAILURES)
@pytest.mark.parametrize("policy", [WMS, STANDARD], ids=["wms", "standard"])
def test_a_failed_resend_changes_nothing(state, outcome, policy):
    assert decided(outcome, Trigger.MANUAL, state=state, position=1, policy=policy) == Decision(
        state=state,
        reason=REASONS.get(state),
        schedule_position=1,
        keeps_due_time=state in OPEN_STATES,
    )


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failed_test_ends_after_one_attempt_and_disables_nothing(outcome):
    assert decided(outcome, Trigger.TEST, policy=STANDARD) == Decision(
        state=FAILED, reason=Reason.TEST_FAILED, schedule_position=0
    )


@given(
    st.sampled_from(Outcome),
    st.sampled_from(Trigger),
    st.sampled_from(DeliveryState),
    st.integers(0, 5),
    st.sampled_from([WMS, STANDARD]),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(),
)
def test_a_decision_ties_state_due_time_and_reason_together(
    outcome, trigger, state, position, policy, jitter, retry_after_seconds
):
    decision = decided(
        outcome,
        trigger,
        state=state,
        position=position,
        policy=policy,
        jitter=jitter,
        retry_after_seconds=retry_after_seconds,
    )
    has_due_time = decision.next_delay_seconds is not None or decision.keeps_due_time
    assert has_due_time is (decision.state in OPEN_STATES)
    assert (decision.reason is not None) is (decision.state in (FAILED, CANCELLED))
    assert decision.next_delay_seconds is None or not decision.keeps_due_time
    assert decision.schedule_position - position in (0, 1)
