"""Why a delivery is where it is, what happens next, and what a person can do: codes and plain words.

The codes are stable: the console has its own words for each, in each of its languages, and scripts
may rely on them. The texts here are those of API and command line.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple, assert_never

from dispatcher.admin.resources.delivery import Advice, NextStep
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core.model import DeliveryState, EndpointState, Outcome, Reason
from dispatcher.core.order import SHELVED
from dispatcher.store.attempts import AttemptDetail
from dispatcher.store.delivery_details import DeliveryDetail

NO_DISPATCHER: Final = "no dispatcher runs: nothing is sent until one does"


class Circumstances(NamedTuple):
    """The conditions other than the delivery that decide the next step."""

    endpoint_state: str
    """`deleted` where it is."""
    rate_limit: float | None = None
    breaker_state: str | None = None
    """None: closed."""
    probe_at: datetime | None = None
    is_resend_waiting: bool = False
    is_behind: bool = False
    """Whether an earlier delivery of its line is open."""
    is_pulled: bool = False
    """Whether its receiver fetches it."""
    dispatchers_alive: int = 1
    problem: str | None = None
    """Why the configuration does not let the endpoint be sent to; None: it does."""
    now: datetime | None = None


def _advice(code: str, text: str, advice: str = "") -> Advice:
    return Advice(code=code, text=text, advice=advice)


def _step(code: str, text: str, at: datetime | None = None) -> NextStep:
    return NextStep(code=code, text=text, at=time_text(at))


_FETCHED: Final = _step("waits_for_poll", "it waits until the receiver fetches it")
_OUTCOMES: Final[dict[str, Advice]] = {
    Outcome.OK: _advice("ok", "the receiver accepted it"),
    Outcome.GONE: _advice(
        "gone",
        "the receiver responded with 410 Gone",
        "the receiver no longer uses this URL; ask its owner for the new one",
    ),
    Outcome.THROTTLED: _advice(
        "throttled",
        "the receiver asks for fewer requests",
        "lower the endpoint's rate limit or concurrency",
    ),
    Outcome.TIMEOUT: _advice(
        "timeout",
        "the receiver did not respond in time",
        "a receiver should respond with 2xx at once and process the event afterwards; otherwise raise timeout_seconds",
    ),
    Outcome.CONNECT_ERROR: _advice(
        "connect_error",
        "no connection to the receiver",
        "is the receiver up, and do firewalls let the dispatcher through?",
    ),
    Outcome.DNS_ERROR: _advice(
        "dns_error", "the receiver's name was not found", "check the host name in the URL"
    ),
    Outcome.TLS_ERROR: _advice(
        "tls_error",
        "no secure connection to the receiver",
        "is its certificate valid, for this name, and from an authority that we trust (ca_pem)?",
    ),
    Outcome.PROTOCOL_ERROR: _advice(
        "protocol_error",
        "the response was not HTTP",
        "does the URL lead to an HTTP server, with the right scheme and port?",
    ),
    Outcome.BLOCKED_ADDRESS: _advice(
        "blocked_address",
        "the URL leads to an address that this deployment does not allow",
        "use a public address, or have the operator allow the network (egress.allow_networks)",
    ),
}
_STATUSES: Final[dict[int, Advice]] = {
    401: _advice(
        "unauthorized",
        "the receiver refused our signature or credentials",
        "compare the secret on both sides, and the endpoint's headers",
    ),
    403: _advice(
        "forbidden",
        "the receiver refused us",
        "compare the secret on both sides; a firewall in front of it may be refusing too",
    ),
    404: _advice("not_found", "the receiver has nothing at this path", "check the path in the URL"),
    405: _advice("not_found", "this path does not accept POST", "check the path in the URL"),
    413: _advice(
        "too_large",
        "the receiver does not accept a body of this size",
        "raise its limit; the defaults are 100 KB in Express and 1 MB in nginx",
    ),
}
_REASONS: Final[dict[str, Advice]] = {
    Reason.SCHEDULE_SPENT: _advice(
        "schedule_spent", "every attempt of the schedule failed", "fix the receiver, then resend"
    ),
    Reason.GONE: _advice(
        "gone", "the receiver responded with 410 Gone", _OUTCOMES[Outcome.GONE].advice
    ),
    Reason.TEST_FAILED: _advice("test_failed", "the one attempt of a test event failed"),
    Reason.CANCELLED_BY_PERSON: _advice(
        "cancelled_by_person", "a person cancelled it", "resend it if that was wrong"
    ),
    Reason.ENDPOINT_DISABLED: _advice(
        "endpoint_disabled", "the endpoint was disabled", "fix it, resume it, then resend"
    ),
    Reason.ENDPOINT_DELETED: _advice("endpoint_deleted", "the endpoint was deleted"),
    Reason.PAUSED_TOO_LONG: _advice(
        "paused_too_long", "the endpoint was paused for too long", "resume it, then resend"
    ),
    Reason.UNENCODABLE_EVENT: _advice(
        "unencodable_event",
        "the event does not fit the endpoint's format",
        "publish the event again, with data that fits",
    ),
    Reason.EVENT_ERASED: _advice("event_erased", "the event's data was erased on request"),
    Reason.UNKNOWN_PROFILE: _advice(
        "unknown_profile",
        "the endpoint's profile is not configured",
        "restore the profile's file; its deliveries wait until then",
    ),
    Reason.HTTP_NOT_ALLOWED: _advice(
        "http_not_allowed",
        "the endpoint's URL is plain http, which is not allowed",
        "use https, or set egress.allow_http; its deliveries wait until then",
    ),
    Reason.INVALID_HEADERS: _advice(
        "invalid_headers",
        "the endpoint's headers cannot be sent",
        "correct them; its deliveries wait",
    ),
    Reason.INVALID_URL: _advice(
        "invalid_url",
        "the endpoint's URL cannot be used",
        "correct it; its deliveries wait",
    ),
    Reason.INVALID_CA_PEM: _advice(
        "invalid_ca_pem",
        "the endpoint's certificates cannot be read",
        "correct them; its deliveries wait",
    ),
    Reason.INVALID_SETTINGS: _advice(
        "invalid_settings",
        "the endpoint's row cannot be read",
        "correct it; its deliveries wait",
    ),
    Reason.SECRET_UNREADABLE: _advice(
        "secret_unreadable",
        "the endpoint's secret cannot be decrypted",
        "restore its key in DISPATCHER_SECRET_KEYS, or rotate the secret; its deliveries wait",
    ),
    Reason.SKIPPED: _advice(
        "skipped",
        "it was skipped so that later deliveries of its ordering key could be sent",
        "fix the receiver, then replay it",
    ),
    Reason.FAILING_TOO_LONG: _advice(
        "failing_too_long", "the endpoint failed for too long", "fix it, resume it, then resend"
    ),
}
_REDIRECTS: Final = range(300, 400)
_SERVER_ERRORS: Final = range(500, 600)


def reason_advice(reason: str | None) -> Advice:
    """Return the words for a delivery's or an endpoint's reason; an unknown one speaks for itself."""
    return _REASONS.get(
        reason or "", _advice(reason or "unknown", reason or "no reason was recorded")
    )


def attempt_advice(outcome: str, response_code: int | None) -> Advice:
    """Return what an attempt came to, by its status where there is one."""
    if outcome != Outcome.HTTP_ERROR or response_code is None:
        return _OUTCOMES.get(outcome, _advice(outcome, outcome))
    if response_code in _STATUSES:
        advice = _STATUSES[response_code]
    elif response_code in _REDIRECTS:
        advice = _advice(
            "redirected",
            "the receiver responded with a redirect, which is not followed",
            "set the URL to where it leads",
        )
    elif response_code in _SERVER_ERRORS:
        advice = _advice(
            "server_error", "the receiver failed", "the receiver's logs have the reason"
        )
    else:
        advice = _advice(
            "client_error", "the receiver refused it", "its response may contain the reason"
        )
    return replace(advice, text=f"{advice.text} ({response_code})")


def why(delivery: DeliveryDetail, last: AttemptDetail | None) -> Advice:
    """Return why a delivery is where it is."""
    state = DeliveryState(delivery.state)
    match state:
        case DeliveryState.SUCCEEDED:
            return _advice("succeeded", f"delivered at {time_text(delivery.finished_at)}")
        case DeliveryState.CANCELLED | DeliveryState.FAILED:
            advice = reason_advice(delivery.reason)
            if last is not None and delivery.state == DeliveryState.FAILED:
                cause = attempt_advice(last.outcome, last.response_code)
                advice = replace(
                    advice,
                    text=f"{advice.text}; the last: {cause.text}",
                    advice=cause.advice or advice.advice,
                )
            return advice
        case DeliveryState.PENDING | DeliveryState.RETRYING:
            if last is None:
                return _advice("waiting_first_attempt", "it waits for its first attempt")
            return attempt_advice(last.outcome, last.response_code)
        case _:
            assert_never(state)


def next_step(delivery: DeliveryDetail, around: Circumstances) -> NextStep:
    """Return what happens next to a delivery."""
    alive = around.dispatchers_alive > 0
    if around.endpoint_state == "deleted":
        open_still = delivery.state in {DeliveryState.PENDING, DeliveryState.RETRYING}
        text = "it will be cancelled" if open_still else "nothing"
        return _step("endpoint_deleted", f"{text}: the endpoint is deleted")
    if around.is_resend_waiting:
        if not alive:
            return _step("no_dispatcher", f"a resend was asked for, but {NO_DISPATCHER}")
        if around.is_pulled:
            return _FETCHED
        return _step("resend_waiting", "one more attempt was asked for and comes at once")
    if delivery.state not in {DeliveryState.PENDING, DeliveryState.RETRYING}:
        if delivery.test:
            return _step("nothing", "nothing: a test event has one attempt")
        return _step("nothing", "nothing, unless you request a resend")
    return _of_endpoint(delivery, around)


def _of_endpoint(delivery: DeliveryDetail, around: Circumstances) -> NextStep:
    due = delivery.next_attempt_at
    endpoint_state = EndpointState(around.endpoint_state)
    match endpoint_state:
        case EndpointState.DISABLED:
            return _step("endpoint_disabled", "it will be cancelled: the endpoint is disabled")
        case EndpointState.PAUSED:
            return _step("endpoint_paused", "it waits until the endpoint is resumed")
        case EndpointState.ACTIVE:
            if around.problem is not None:
                return _step("endpoint_unusable", f"it waits until this is fixed: {around.problem}")
            if around.dispatchers_alive == 0:
                return _step("no_dispatcher", NO_DISPATCHER, due)
        case _:
            assert_never(endpoint_state)
    if around.is_behind or (due is not None and due >= SHELVED):
        return _step(
            "behind_another",
            "it is sent after the earlier deliveries of its ordering key have ended",
        )
    if around.breaker_state is not None:
        probe = max(filter(None, (due, around.probe_at)), default=None)
        return _step(
            "breaker_open",
            "it waits for the breaker: the endpoint fails so often that it is only probed,"
            f" next at {time_text(around.probe_at) or 'any moment'}",
            probe,
        )
    if due is not None and around.now is not None and due <= around.now:
        if around.is_pulled:
            return _FETCHED
        if around.rate_limit is not None:
            return _step(
                "waits_its_turn",
                f"it is due and waits its turn: {around.rate_limit:g} a second are allowed",
                due,
            )
        return _step("due", "it is due, and sent as soon as there is room", due)
    return _step("scheduled", f"the next attempt is due at {time_text(due)}", due)
