"""The test event: sent at once, one attempt, through the same client as every request.

It asks neither for subscriptions nor for paused or disabled, and has no part in disabling or
alerts. One that succeeds closes the endpoint's breaker, in whichever process that is. What came of
it is recorded as a delivery with `test: true` once the attempt is over: a crash in between leaves no
trace.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.objects import delivery_with_attempts
from dispatcher.admin.operations.request_preview import ANY_PORT, request_template
from dispatcher.admin.resources.delivery import DeliveryWithAttempts
from dispatcher.admin.resources.event import test_type_problems
from dispatcher.core import codes, ids
from dispatcher.core.envelope import MadeTestEvent, make_test_event
from dispatcher.core.errors import (
    ConflictError,
    DispatcherError,
    EncodingError,
    InvalidRequestError,
    SecretError,
)
from dispatcher.core.limits import EVENT_DATA_BYTES_MAX
from dispatcher.core.masks import compile_mask
from dispatcher.core.matching import parse_event_types
from dispatcher.core.model import HttpResponse, Outcome, Reason
from dispatcher.core.problems import Problem, problem
from dispatcher.core.profile import Profile
from dispatcher.core.request import RequestTemplate
from dispatcher.core.url import CanonicalUrl, canonical_url
from dispatcher.outbound.client import HttpClient
from dispatcher.outbound.pool import NotAttempted, Target
from dispatcher.store import endpoints as store
from dispatcher.store.attempts import AttemptDetail
from dispatcher.store.audit import write_audit
from dispatcher.store.delivery_details import DeliveryDetail
from dispatcher.store.delivery_ids import uuid_of
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.events import record_test_event
from dispatcher.store.routing import routed_row
from dispatcher.store.secrets import load_secrets
from dispatcher.store.server import json_type
from dispatcher.store.statistics import report_test_succeeded
from dispatcher.usability import compile_credentials

_SHOWN_BY_AN_ATTEMPT: Final = frozenset({Reason.HTTP_NOT_ALLOWED, Reason.INVALID_URL})
"""Problems that the attempt itself reports: its outcome is `blocked_address`."""


class _Sent(NamedTuple):
    """One attempt and when it was made."""

    answer: HttpResponse
    attempted_at: datetime
    latency_seconds: float


class EventTester:
    """Sends test events; needs the HTTP client, and so a running loop."""

    def __init__(
        self,
        deployment: Deployment,
        http_client: HttpClient,
        tested: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tested` is called with the profile of each attempt that was made."""
        self._deployment = deployment
        self._database = deployment.database
        self._http_client = http_client
        self._tested = tested

    async def send(
        self,
        actor: Actor,
        endpoint_id: str,
        *,
        event_type: str | None = None,
        data: str | None = None,
    ) -> DeliveryWithAttempts:
        """Send a test event and return its delivery with the attempt, whatever its outcome.

        `data` is JSON text, an object. Without a type the first one that the endpoint subscribes to
        is taken.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: every fault. NotFoundError: no such
            endpoint. TooManyError: too many for this endpoint. ConflictError: the endpoint
            cannot be sent to at all: its profile is gone, its secret does not open.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant)
            if row.delivery == "pull":
                raise ConflictError(problem("id", "endpoint_is_pulled"))
            self._deployment.send_limits.take_send(actor.name, endpoint_id)
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
        profile = self._deployment.profiles.get(row.profile)
        if profile is None:
            raise ConflictError(problem("profile", "profile_not_configured", profile=row.profile))
        unusable = self._deployment.problem_of(routed_row(row, sealed))
        if unusable is not None and unusable.problem not in _SHOWN_BY_AN_ATTEMPT:
            raise ConflictError(problem("id", "endpoint_unusable", detail=unusable.detail))
        made = await self._make(row, profile, event_type, data)
        inserted_at = made.event.inserted_at
        unix_ms = ids.delivery_unix_ms(inserted_at, inserted_at.date())
        delivery_id = ids.delivery_id(unix_ms, made.event.id, row.id)
        url = canonical_url(row.url, https_only=profile.https_only, allow_ports=ANY_PORT)
        template = request_template(self._deployment, row, profile, url, sealed)
        try:
            credentials = compile_credentials(row, sealed, self._deployment.keyring)
        except SecretError as error:
            raise ConflictError(problem("id", "endpoint_unusable", detail=str(error))) from error
        target = self._http_client.make_target(url, row.ca_pem, row.id, credentials)
        sent = await self._send(row, profile, url, target, template, made, delivery_id)
        self._tested(profile.name)
        succeeded = sent.answer.outcome is Outcome.OK
        delivery = DeliveryDetail(
            delivery_id,
            made.event.inserted_at.date(),
            made.event.id,
            row.id,
            made.event.type,
            row.tenant,
            row.profile,
            "succeeded" if succeeded else "failed",
            None if succeeded else Reason.TEST_FAILED,
            test=True,
            attempt_count=1,
            schedule_position=0,
            next_attempt_at=None,
            created_at=ids.moment_of(delivery_id),
            finished_at=self._deployment.clock.now(),
            warnings=list(made.warnings),
        )
        async with self._database.transaction() as connection:
            await record_test_event(connection, _values(delivery, row, made, sent))
            if succeeded:
                await report_test_succeeded(connection, row.id)
            detail = {"delivery_id": delivery_id, "outcome": sent.answer.outcome}
            await write_audit(connection, actor.name, row.tenant, "endpoint.test", row.id, detail)
        return delivery_with_attempts(delivery, [_attempt(row, sent)], bodies=True)

    async def _make(
        self, row: EndpointDetail, profile: Profile, event_type: str | None, data: str | None
    ) -> MadeTestEvent:
        problems: list[Problem] = []
        if event_type is not None:
            problems += test_type_problems(event_type)
        if data is not None:
            if len(data.encode("utf-8", "replace")) > EVENT_DATA_BYTES_MAX:
                problems.append(problem("data", "too_many_bytes", maximum=EVENT_DATA_BYTES_MAX))
            elif (kind := await json_type(self._database, data)) != "object":
                found = "invalid JSON" if kind is None else kind
                problems.append(problem("data", "not_a_json_object", kind=found))
        if problems:
            raise InvalidRequestError(problems)
        if event_type is None and (profile.fixed_test is None or data is not None):
            event_type = self._first_type(row.event_types)
        known = self._deployment.catalogue.types.get(event_type or "")
        try:
            # In a thread: data of a mebibyte take seconds to rewrite for JavaScript at worst.
            return await asyncio.to_thread(
                make_test_event,
                profile,
                event_type=event_type,
                data=data,
                sample=None if known is None else known.sample,
                random_hex=secrets.token_hex(8),
                endpoint_id=row.id,
                endpoint_name=row.name,
                tenant=row.tenant,
                now=self._deployment.clock.now(),
                mask=compile_mask(tuple(row.include), tuple(row.exclude)),
            )
        except EncodingError as error:
            raise InvalidRequestError(
                [problem("data", "not_encodable", detail=str(error))]
            ) from error

    def _first_type(self, event_types: Sequence[str]) -> str | None:
        """Return the first type of the catalogue that the endpoint takes, else an exact name of its own."""
        subscription = parse_event_types(event_types)
        known = [name for name in self._deployment.catalogue.types if subscription.matches(name)]
        exact = [name for name in event_types if name in self._deployment.catalogue.types]
        named = [name for name in event_types if not name.endswith("*")]
        return next(iter([*exact, *known, *named]), None)

    async def _send(
        self,
        row: EndpointDetail,
        profile: Profile,
        url: CanonicalUrl,
        target: Target,
        template: RequestTemplate,
        made: MadeTestEvent,
        delivery_id: str,
    ) -> _Sent:
        clock = self._deployment.clock
        attempted_at, started = clock.now(), clock.monotonic()
        if url.scheme == "http" and not self._deployment.settings.egress.allow_http:
            error = "plain http is not allowed: set egress.allow_http"
            return _Sent(HttpResponse(Outcome.BLOCKED_ADDRESS, error=error), attempted_at, 0.0)
        try:
            head = template.head(
                event_id=made.event.id,
                delivery_id=delivery_id,
                event_type=made.event.type,
                timestamp=int(attempted_at.timestamp()),
                body=made.body,
                traceparent=None,
            )
        except EncodingError as fault:
            raise InvalidRequestError(
                [problem("event_type", "not_encodable", detail=str(fault))]
            ) from fault
        done: asyncio.Future[HttpResponse | NotAttempted] = (
            asyncio.get_running_loop().create_future()
        )

        def take(answer: HttpResponse | NotAttempted) -> None:
            if not done.done():
                done.set_result(answer)

        seconds = row.timeout_seconds or profile.timeout_seconds
        exchange = self._http_client.connections.send(target, head, made.body, seconds, take)
        try:
            answer = await done
        except asyncio.CancelledError:
            exchange.cancel()
            raise
        finally:
            self._http_client.connections.drop(target)
        if isinstance(answer, NotAttempted):
            raise DispatcherError(f"nothing was sent: {answer.reason}")
        return _Sent(answer, attempted_at, clock.monotonic() - started)


def _attempt(row: EndpointDetail, sent: _Sent) -> AttemptDetail:
    answer = sent.answer
    return AttemptDetail(
        1,
        "test",
        answer.outcome,
        list(answer.flags),
        sent.attempted_at,
        sent.latency_seconds,
        answer.status,
        answer.body or None,
        answer.error,
        row.url,
        *answer.phases,
        answer.reused,
        answer.peer,
        answer.headers or None,
    )


def _values(
    delivery: DeliveryDetail, row: EndpointDetail, made: MadeTestEvent, sent: _Sent
) -> list[object]:
    """Return the parameters of the statement that records it, in its order."""
    event, answer, attempt = made.event, sent.answer, _attempt(row, sent)
    return [
        delivery.day,
        event.id,
        event.type,
        row.tenant,
        event.data,
        event.inserted_at,
        row.profile,
        made.body,
        uuid_of(delivery.id),
        row.id,
        codes.event_type_code(event.type),
        codes.STATE_CODES[delivery.state],
        codes.reason_code(delivery.reason),
        delivery.warnings,
        codes.OUTCOME_CODES[attempt.outcome],
        attempt.flags,
        attempt.attempted_at,
        attempt.latency_seconds,
        *answer.phases,
        answer.reused,
        answer.peer,
        attempt.response_code,
        attempt.response_body,
        attempt.error,
        delivery.finished_at,
        attempt.response_headers,
    ]
