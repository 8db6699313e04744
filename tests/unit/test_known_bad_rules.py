"""The controls of R19, R20, T4, A12, A15, A16, A19, A28: rules as one writes them at first, and what they cost.

Each plays the same values through the known-bad rule and through ours, and counts what the row counts.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, Counter

from dispatcher.core import limits
from dispatcher.core.errors import SecretError
from dispatcher.core.model import DeliveryState, Outcome, Trigger
from dispatcher.core.outcome import RetryPolicy, decide
from dispatcher.core.request import RequestTemplate
from dispatcher.core.retry import next_delay, parse_retry_after
from dispatcher.core.sealing import Keyring
from dispatcher.core.secret import Secret
from dispatcher.core.signing import Signer
from dispatcher.telemetry.metrics import Metrics
from dispatcher.verify import VerificationError, verify
from tests.wire.vectors import PROFILES, SECRETS

NOW = datetime(2026, 8, 29, 12, tzinfo=UTC)
DELAY_SECONDS = 30.0


@pytest.mark.parametrize("text", ["-5", "1e9", "9e99", "inf", "NaN", "3601"])
def test_r19_control_a_float_that_is_added_leaves_the_bounds(text: str):
    def is_in_bounds(seconds: float | None) -> bool:
        return (
            seconds is not None
            and DELAY_SECONDS <= seconds <= DELAY_SECONDS + limits.RETRY_AFTER_SECONDS_MAX
        )

    ours = next_delay(1, [DELAY_SECONDS], None, 0.0, parse_retry_after(text, NOW))
    assert is_in_bounds(ours)
    assert not is_in_bounds(DELAY_SECONDS + float(text))


def test_r20_control_410_taken_for_any_4xx_is_asked_again_and_again():
    """Counted: requests that a receiver gets which has said that it is gone for good."""

    def requests(*, gone_disables: bool) -> int:
        policy = RetryPolicy(schedule=[5.0] * 7, jitter_range=None, gone_disables=gone_disables)
        state, position = DeliveryState.PENDING, 0
        while state in {DeliveryState.PENDING, DeliveryState.RETRYING}:
            decision = decide(
                outcome=Outcome.GONE,
                trigger=Trigger.SCHEDULED,
                state=state,
                reason=None,
                schedule_position=position,
                policy=policy,
                jitter=0.0,
                retry_after_seconds=None,
            )
            state, position = decision.state, decision.schedule_position
        return position

    assert requests(gone_disables=True) == 1
    assert requests(gone_disables=False) == 8


def test_t4_control_powers_of_two_in_floats_are_no_schedule():
    """Counted: positions whose delay is not the documented one, or no number of seconds at all."""
    schedule = [30, 120, 600, 3_600, 21_600]

    def doubled(position: int) -> float:
        return 30.0 * 2.0 ** min(position - 1, 1_023)

    theirs = [doubled(position) for position in range(1, 6)]
    ours = [next_delay(position, schedule, None, 0.0, None) for position in range(1, 6)]
    assert ours == schedule
    assert sum(a != b for a, b in zip(theirs, schedule, strict=True)) == 4
    assert math.isinf(doubled(1_000_000))
    assert next_delay(1_000_000, schedule, None, 0.0, None) is None


def head_of(headers: Mapping[str, str], *, timestamp: int = 1_700_000_000) -> dict[str, str]:
    template = RequestTemplate(
        profile=PROFILES["standard"],
        target="/hook",
        host_header="receiver.test",
        user_agent="dispatcher/1",
        custom_headers=headers,
        signer=Signer(PROFILES["standard"], [Secret(SECRETS["standard"])]),
    )
    head = template.head(
        event_id="evt_1",
        delivery_id="wh_1",
        event_type="a.b",
        timestamp=timestamp,
        body=b"{}",
        traceparent=None,
    )
    lines = head.decode().split("\r\n")[1:-2]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


def test_a12_control_headers_merged_after_ours_replace_ours():
    hostile = {"HOST": "evil.test", "Webhook-ID": "evt_2", "webhook-signature": "v1,forged"}
    ours = head_of({})
    merged = {**ours, **{name.lower(): value for name, value in hostile.items()}}
    assert sum(merged[name] != value for name, value in ours.items()) == len(hostile)
    assert head_of(hostile) == ours


def test_a15_control_the_first_attempts_timestamp_is_refused_by_the_third():
    """A receiver that takes requests of the last five minutes; attempts at once, after 5 s and after 5 min more."""
    began = 1_700_000_000
    attempts_at = [began, began + 5, began + 306]

    def refused(*, timestamp_of_the_first: bool) -> int:
        count = 0
        for at in attempts_at:
            headers = head_of({}, timestamp=began if timestamp_of_the_first else at)
            try:
                verify(headers, b"{}", SECRETS["standard"], profile="standard", now=at)
            except VerificationError as error:
                count += error.reason == "wrong_time"
        return count

    assert refused(timestamp_of_the_first=False) == 0
    assert refused(timestamp_of_the_first=True) == 1


def test_a16_control_free_ids_give_two_requests_one_signature():
    """What is signed is id, full stop, timestamp, full stop, body: with a full stop in the id it has two readings."""
    secret = Secret(SECRETS["standard"])

    def signature(event_id: str, timestamp: int, body: bytes) -> str:
        return Signer(PROFILES["standard"], [secret]).sign(
            event_id=event_id, delivery_id="wh_1", event_type="a.b", timestamp=timestamp, body=body
        )

    assert signature("evt", 17, b"18.{}") == signature("evt.17", 18, b"{}")
    assert signature("evt", 17, b"18.{}") != signature("evt-17", 18, b"{}")


def test_a19_control_one_fixed_key_opens_nothing_of_the_key_before():
    before = Keyring({"k1": b"o" * 32})
    sealed = {
        owner: before.seal("secret", owner=owner, nonce=bytes([number] * 12))
        for number, owner in enumerate(("ep_1", "ep_2", "ep_3"))
    }

    def unreadable(keyring: Keyring) -> int:
        count = 0
        for owner, one in sealed.items():
            try:
                keyring.open(one, owner=owner, key_id="k1")
            except SecretError:
                count += 1
        return count

    assert unreadable(Keyring({"k1": b"n" * 32})) == 3
    assert unreadable(Keyring({"k2": b"n" * 32, "k1": b"o" * 32})) == 0


def test_a28_control_a_name_as_a_label_makes_a_series_of_each():
    hostile = [f'ep_{number}\n"}}{"x" * number}' for number in range(200)]
    registry = CollectorRegistry()
    theirs = Counter("attempts", "By name.", ["endpoint"], registry=registry)
    ours = Metrics(version="1", endpoints_max=2).endpoint_attempts
    for name in hostile:
        theirs.labels(endpoint=name).inc()
        ours.labels(name, "ok").inc()
    (family,) = registry.collect()
    assert sum(sample.name == "attempts_total" for sample in family.samples) == len(hostile)
    (family,) = ours.collect()
    assert len(family.samples) <= 3
