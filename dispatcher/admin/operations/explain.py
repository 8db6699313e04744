"""Why each endpoint of an event's tenant did or did not get it, and the next step."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, assert_never

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.objects import delivery_of, event_of
from dispatcher.admin.operations.reasons import (
    NO_DISPATCHER,
    Circumstances,
    next_step,
    reason_advice,
)
from dispatcher.admin.resources.event import Explanation, Verdict
from dispatcher.admin.resources.serialization import time_text
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.filters import EventValues, compile_filter
from dispatcher.core.matching import labels_match, parse_event_types
from dispatcher.core.model import DeliveryState, EndpointState
from dispatcher.core.notifying import NOTIFICATION, TARGET_LABEL
from dispatcher.core.problems import problem, shortened
from dispatcher.store import endpoints as store
from dispatcher.store.delivery_details import DeliveryDetail, deliveries_of_event
from dispatcher.store.endpoints import RoutedEndpoint
from dispatcher.store.events import EventDetail, find_event
from dispatcher.store.leases import replicas_alive
from dispatcher.store.routing import saved_endpoints
from dispatcher.store.statistics import OpenBreaker, read_breakers

SEEN_MAX = 8
"""Values of an event that the explanation of a filter repeats."""
_OPEN = frozenset({DeliveryState.PENDING, DeliveryState.RETRYING})


class SeenByFilter(NamedTuple):
    """What a content filter that does not match was evaluated with."""

    values: dict[str, str | None]
    """By path; None: the event has no such value."""
    error: str | None


class Decision(NamedTuple):
    """Whether an endpoint gets the event, the reason as a code and as a sentence, and the next step."""

    gets_it: bool
    why: str
    explanation: str
    next: str
    next_code: str = "nothing"
    """Stable; `reasons.py` and this module define the values."""
    at: datetime | None = None
    """When that happened which `why` names: delivered, created later, changed later."""
    next_at: str | None = None
    """The time of the next step, where it is known."""
    seen: SeenByFilter | None = None


class Match(NamedTuple):
    """Whether an event fits an endpoint's subscription, and the reason."""

    is_match: bool
    why: str
    explanation: str
    seen: SeenByFilter | None = None


class Explainer:
    """Explains the deliveries of events."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._clock = deployment.clock

    async def explain(self, actor: Actor, event_id: str) -> Explanation:
        """Return the event with a verdict for each endpoint of its tenant.

        Endpoints that were deleted before the event was inserted are left out.

        Raises:
            NotFoundError: there is no event of that id.
        """
        async with self._database.reading() as connection:
            event = await find_event(connection, event_id, actor.tenant)
            if event is None:
                raise NotFoundError(problem("id", "event_not_found", value=event_id))
            deliveries = {
                row.endpoint_id: row for row in await deliveries_of_event(connection, event)
            }
            endpoints = await store.endpoints_of_tenant(connection, event.tenant)
            alive = await replicas_alive(connection)
            waiting = _waiting_endpoints(event, endpoints, deliveries)
            saved = {str(row.id): row for row in await saved_endpoints(connection, waiting)}
            breakers = {
                row.endpoint_id: row
                for row in await read_breakers(connection, list(deliveries), None, len(deliveries))
            }
            now = self._clock.now()
        problems = {
            endpoint_id: unusable.detail
            for endpoint_id, row in saved.items()
            if (unusable := self._deployment.problem_of(row)) is not None
        }
        came_at = event.accepted_at or event.inserted_at
        verdicts = [
            _verdict(
                endpoint,
                deliveries.get(endpoint.id),
                decide(
                    event,
                    endpoint,
                    deliveries.get(endpoint.id),
                    _around(
                        endpoint,
                        breakers.get(endpoint.id),
                        problems.get(endpoint.id),
                        alive,
                        now,
                    ),
                ),
            )
            for endpoint in endpoints
            if endpoint.id in deliveries
            or endpoint.deleted_at is None
            or endpoint.deleted_at > came_at
        ]
        summary = (
            f"it is quarantined: Postgres rejected its fan-out. Fix the cause that the log names, then run:"
            f" dispatcher event release {event.id}"
            if event.quarantined_at is not None
            else "it waits in the outbox"
            if event.accepted_at is None
            else "1 delivery was created"
            if len(deliveries) == 1
            else f"{len(deliveries)} deliveries were created"
        )
        if not alive:
            summary += f"; {NO_DISPATCHER}"
        return Explanation(
            event=event_of(event, self._deployment.catalogue.schemas),
            summary=summary,
            dispatchers_alive=alive,
            endpoints=verdicts,
        )


def _waiting_endpoints(
    event: EventDetail,
    endpoints: Sequence[RoutedEndpoint],
    deliveries: Mapping[str, DeliveryDetail],
) -> list[str]:
    """Return the endpoints of which a problem delays the event: it is still to be sent to them."""
    if event.accepted_at is None:
        return [one.id for one in endpoints if one.deleted_at is None]
    return [one.endpoint_id for one in deliveries.values() if one.state in _OPEN]


def decide(
    event: EventDetail,
    endpoint: RoutedEndpoint,
    delivery: DeliveryDetail | None,
    around: Circumstances,
) -> Decision:
    """Decide whether one endpoint gets the event."""
    if delivery is not None:
        return _of_delivery(delivery, around)
    nothing = "nothing: no delivery was made"
    if event.test:
        return Decision(
            False, "test_event", "a test event goes to the one endpoint it was sent to", nothing
        )
    if endpoint.deleted_at is not None:
        return Decision(False, "endpoint_deleted", "the endpoint is deleted", nothing)
    matches, why, explanation, seen = _match(event, endpoint)
    if event.accepted_at is None:
        if not matches:
            return Decision(
                False,
                why,
                explanation,
                "nothing, unless the endpoint changes before it is taken",
                seen=seen,
            )
        if event.quarantined_at is not None:
            return Decision(
                True, "quarantined", explanation, "nothing, until it is released", "quarantined"
            )
        then = "a dispatcher takes it from the outbox and makes a delivery"
        if endpoint.state == EndpointState.DISABLED:
            then += ", cancelled at once since the endpoint is disabled; resume it first"
        elif around.problem is not None:
            then += f", which waits until this is fixed: {around.problem}"
        return Decision(True, "waiting_in_outbox", explanation, then, "waiting_in_outbox")
    if endpoint.created_at > event.accepted_at:
        at = time_text(endpoint.created_at)
        return Decision(
            False,
            "created_later",
            f"the endpoint was made later, at {at}",
            nothing,
            at=endpoint.created_at,
        )
    if matches:
        at = time_text(endpoint.updated_at)
        return Decision(
            False,
            "changed_later",
            f"it matches now, and did not when the event came (changed at {at})",
            nothing,
            at=endpoint.updated_at,
        )
    return Decision(False, why, explanation, nothing, seen=seen)


def _around(
    endpoint: RoutedEndpoint,
    breaker: OpenBreaker | None,
    problem: str | None,
    alive: int,
    now: datetime,
) -> Circumstances:
    return Circumstances(
        endpoint_state=endpoint.state if endpoint.deleted_at is None else "deleted",
        rate_limit=endpoint.rate_limit,
        breaker_state=None if breaker is None else breaker.state,
        probe_at=None if breaker is None else breaker.probe_at,
        is_pulled=endpoint.is_pulled,
        dispatchers_alive=alive,
        problem=problem,
        now=now,
    )


def _match(event: EventDetail, endpoint: RoutedEndpoint) -> Match:
    listed = ", ".join(endpoint.event_types)
    if event.type == NOTIFICATION:
        names_it = event.labels.get(TARGET_LABEL) == endpoint.id
        explanation = "a notification goes to the one endpoint that its rule names"
        return Match(names_it, "subscribed" if names_it else "not_subscribed", explanation)
    try:
        subscribed = parse_event_types(endpoint.event_types).matches(event.type)
    except InvalidRequestError:
        subscribed = False
    if not subscribed:
        text = f"it subscribes to {listed}, which leaves {event.type} out"
        return Match(False, "not_subscribed", text)
    if not labels_match(endpoint.labels, event.labels):
        wanted = ", ".join(f"{name}={value}" for name, value in endpoint.labels.items())
        text = f"it requires the labels {wanted}, which the event does not have"
        return Match(False, "labels_differ", text)
    if endpoint.content_filter is not None:
        failed = _filter(event, endpoint.content_filter)
        if failed is not None:
            return failed
    return Match(True, "subscribed", f"it subscribes to {listed}")


def _filter(event: EventDetail, expression: str) -> Match | None:
    """Return why an event does not match an expression, with the values that it saw; None: it matches."""
    compiled = compile_filter(expression)
    values = EventValues(event.id, event.type, event.tenant, event.data, event.labels)
    result = compiled.evaluate(values)
    if result.matched:
        return None
    paths = compiled.paths()[:SEEN_MAX]
    seen = SeenByFilter({".".join(path): _seen(values, path) for path in paths}, result.error)
    listed = ", ".join(f"{path} is {value or 'missing'}" for path, value in seen.values.items())
    text = f"its filter {expression} does not match: {listed}"
    if result.error is not None:
        return Match(False, "filter_error", f"{text} ({result.error})", seen)
    return Match(False, "filtered", text, seen)


def _seen(values: EventValues, path: Sequence[str]) -> str | None:
    try:
        return shortened(values.value(path))
    except KeyError:
        return None


def _of_delivery(delivery: DeliveryDetail, around: Circumstances) -> Decision:
    step = next_step(delivery, around)
    state = DeliveryState(delivery.state)
    match state:
        case DeliveryState.SUCCEEDED:
            at = time_text(delivery.finished_at)
            text = f"delivered at {at}, attempt {delivery.attempt_count}"
        case DeliveryState.FAILED:
            reason = reason_advice(delivery.reason).text
            text = f"{delivery.attempt_count} attempts were made: {reason}"
        case DeliveryState.CANCELLED:
            text = reason_advice(delivery.reason).text
        case DeliveryState.PENDING | DeliveryState.RETRYING:
            text = _waiting(delivery)
        case _:
            assert_never(state)
    gets_it = state is not DeliveryState.CANCELLED
    delivered_at = delivery.finished_at if state is DeliveryState.SUCCEEDED else None
    return Decision(gets_it, state, text, step.text, step.code, delivered_at, step.at)


def _waiting(delivery: DeliveryDetail) -> str:
    if delivery.attempt_count:
        return f"failed attempts so far: {delivery.attempt_count}"
    return "it waits for its first attempt"


def _verdict(
    endpoint: RoutedEndpoint, delivery: DeliveryDetail | None, decision: Decision
) -> Verdict:
    return Verdict(
        endpoint_id=endpoint.id,
        endpoint_name=endpoint.name,
        endpoint_state="deleted" if endpoint.deleted_at is not None else endpoint.state,
        event_types=endpoint.event_types,
        labels=endpoint.labels,
        gets_it=decision.gets_it,
        why=decision.why,
        explanation=decision.explanation,
        next=decision.next,
        next_code=decision.next_code,
        at=time_text(decision.at),
        next_at=decision.next_at,
        content_filter=endpoint.content_filter,
        filter_values=None if decision.seen is None else decision.seen.values,
        filter_error=None if decision.seen is None else decision.seen.error,
        delivery=None if delivery is None else delivery_of(delivery),
    )
