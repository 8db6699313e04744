"""What an attempt came to, and what follows from it for its delivery and endpoint.

Which outcome a status has is the receiver's word; what it leads to depends on why the attempt was
made. A scheduled one moves its delivery on: to success, to the next delay, or to `failed`. A resend
can only improve things. A test ends at once. A delivery that became final while its attempt was
in flight can still become `succeeded`, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self, assert_never

from dispatcher.core.model import DeliveryState, Outcome, Reason, Trigger
from dispatcher.core.profile import Profile
from dispatcher.core.retry import next_delay

_GONE_STATUS: Final = 410
_THROTTLED_STATUS: Final = 429
_UNAVAILABLE_STATUS: Final = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to commit for a delivery after one of its attempts."""

    state: DeliveryState
    reason: Reason | None
    schedule_position: int
    """Scheduled attempts made in this run of the schedule."""
    next_delay_seconds: float | None = None
    """From the attempt's end; a new due time is stored. None: none is."""
    keeps_due_time: bool = False
    """The delivery is open and the due time it has stays as it is."""
    disables_endpoint: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How the endpoint wants failures to be treated, as it stands now."""

    schedule: Sequence[float]
    """Seconds before each retry."""
    jitter_range: tuple[float, float] | None
    """Lowest and highest factor of a delay."""
    gone_disables: bool
    """Whether 410 ends the delivery and disables the endpoint."""
    skip_after_attempts: int | None = None
    """Failed attempts after which a delivery fails so that its line goes on; None: at the end of the schedule."""

    @classmethod
    def of(
        cls,
        profile: Profile | None,
        own: Sequence[float] | None,
        skip_after_attempts: int | None = None,
    ) -> Self:
        """Return the policy of an endpoint; `own` is its own schedule, None for the profile's."""
        if profile is None:
            return cls(
                schedule=own or (),
                jitter_range=None,
                gone_disables=False,
                skip_after_attempts=skip_after_attempts,
            )
        return cls(
            schedule=profile.retry_schedule_seconds if own is None else own,
            jitter_range=profile.jitter,
            gone_disables=profile.gone_disables,
            skip_after_attempts=skip_after_attempts,
        )


def judge_status(status: int) -> Outcome:
    """Return the outcome of a response with this final status.

    Only 2xx is success. Redirects are not followed, and 101, other final 1xx and numbers that HTTP
    does not have are errors like 4xx and 5xx. The profile decides what 410 leads to.
    """
    if 200 <= status <= 299:  # noqa: PLR2004 -- the class of success, as everyone writes it
        return Outcome.OK
    if status == _GONE_STATUS:
        return Outcome.GONE
    if status == _THROTTLED_STATUS:
        return Outcome.THROTTLED
    return Outcome.HTTP_ERROR


def honours_retry_after(status: int) -> bool:
    """Return whether a Retry-After header with this status postpones the next attempt: 429 and 503."""
    return status in (_THROTTLED_STATUS, _UNAVAILABLE_STATUS)


def decide(
    *,
    outcome: Outcome,
    trigger: Trigger,
    state: DeliveryState,
    reason: Reason | None,
    schedule_position: int,
    policy: RetryPolicy,
    jitter: float,
    retry_after_seconds: float | None,
) -> Decision:
    """Return what one complete attempt makes of its delivery.

    `state`, `reason` and `schedule_position` are the delivery's before the attempt is counted; the
    position is the number of scheduled attempts already made in this run of the schedule. `jitter`
    is in [0, 1); `retry_after_seconds` is None where the status does not honour it.

    Source: WMS document, delivery and retry; Humansoft document, retries; Standard Webhooks 1.0,
    status codes and 410.
    """
    match trigger:
        case Trigger.SCHEDULED | Trigger.REPLAY:
            return _decide_scheduled(
                outcome, state, reason, schedule_position + 1, policy, jitter, retry_after_seconds
            )
        case Trigger.MANUAL:
            return _decide_manual(outcome, state, reason, schedule_position)
        case Trigger.TEST:
            return _decide_test(outcome, schedule_position)
        case _:
            assert_never(trigger)


def decide_success(trigger: Trigger, schedule_position: int) -> Decision:
    """Return what `decide` returns for a 2xx, which depends on the trigger alone.

    Nearly every attempt is one, and this takes a fifth of the time.
    """
    is_scheduled = trigger is Trigger.SCHEDULED or trigger is Trigger.REPLAY
    return _succeeded(schedule_position + 1 if is_scheduled else schedule_position)


def _decide_scheduled(
    outcome: Outcome,
    state: DeliveryState,
    reason: Reason | None,
    schedule_position: int,
    policy: RetryPolicy,
    jitter: float,
    retry_after_seconds: float | None,
) -> Decision:
    """Decides an attempt that counts in the schedule; `schedule_position` is its own."""
    if outcome is Outcome.OK:
        return _succeeded(schedule_position)
    disables_endpoint = outcome is Outcome.GONE and policy.gone_disables
    if not _is_open(state):
        # It became final in flight: a person cancelled it, or its endpoint went.
        return Decision(
            state=state,
            reason=reason,
            schedule_position=schedule_position,
            disables_endpoint=disables_endpoint,
        )
    if disables_endpoint:
        return Decision(
            state=DeliveryState.FAILED,
            reason=Reason.GONE,
            schedule_position=schedule_position,
            disables_endpoint=True,
        )
    if policy.skip_after_attempts is not None and schedule_position >= policy.skip_after_attempts:
        return Decision(
            state=DeliveryState.FAILED,
            reason=Reason.SKIPPED,
            schedule_position=schedule_position,
        )
    delay_seconds = next_delay(
        schedule_position, policy.schedule, policy.jitter_range, jitter, retry_after_seconds
    )
    if delay_seconds is None:
        return Decision(
            state=DeliveryState.FAILED,
            reason=Reason.SCHEDULE_SPENT,
            schedule_position=schedule_position,
        )
    return Decision(
        state=DeliveryState.RETRYING,
        reason=None,
        schedule_position=schedule_position,
        next_delay_seconds=delay_seconds,
    )


def _decide_manual(
    outcome: Outcome, state: DeliveryState, reason: Reason | None, schedule_position: int
) -> Decision:
    """Decides a resend: a failure of it spends nothing, moves nothing and disables nothing."""
    if outcome is Outcome.OK:
        return _succeeded(schedule_position)
    return Decision(
        state=state,
        reason=reason,
        schedule_position=schedule_position,
        keeps_due_time=_is_open(state),
    )


def _decide_test(outcome: Outcome, schedule_position: int) -> Decision:
    """Decides the one attempt of a test event; it has no part in disabling."""
    if outcome is Outcome.OK:
        return _succeeded(schedule_position)
    return Decision(
        state=DeliveryState.FAILED,
        reason=Reason.TEST_FAILED,
        schedule_position=schedule_position,
    )


@lru_cache(maxsize=64)
def _succeeded(schedule_position: int) -> Decision:
    """From every state, a success is one."""
    return Decision(state=DeliveryState.SUCCEEDED, reason=None, schedule_position=schedule_position)


def _is_open(state: DeliveryState) -> bool:
    """Return whether the delivery still waits for attempts of its schedule."""
    return state in (DeliveryState.PENDING, DeliveryState.RETRYING)
