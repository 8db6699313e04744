"""One delivery, looked at closely: what was sent, why it is where it is, what happens next.

The body is the bytes that go over the wire. Headers are not kept: they are made again from the
endpoint as it is now, for the moment of the chosen attempt. With secret and headers unchanged since
then they are what was sent. Who is no operator sees no signature, and who is no admin sees custom
headers masked, as everywhere.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.endpoint_rules import also_signing
from dispatcher.admin.operations.objects import attempt_values, delivery_values, event_of
from dispatcher.admin.operations.reasons import Circumstances, attempt_advice, next_step, why
from dispatcher.admin.operations.request_preview import ANY_PORT, FRAMING, request_template
from dispatcher.admin.resources.delivery import Advice
from dispatcher.admin.resources.delivery_report import (
    AlsoSigned,
    DeliveryEndpoint,
    DeliveryReport,
    ExplainedAttempt,
    ExplainedDelivery,
    SentRequest,
)
from dispatcher.core import secret
from dispatcher.core.envelope import request_id
from dispatcher.core.errors import (
    ConfigurationError,
    ConflictError,
    EncodingError,
    InvalidRequestError,
    NotFoundError,
)
from dispatcher.core.model import DeliveryState, Reason
from dispatcher.core.problems import problem
from dispatcher.core.profile import Profile, SignatureEncoding
from dispatcher.core.signing import signed_content
from dispatcher.core.url import canonical_url, masked_url
from dispatcher.store import endpoints as store
from dispatcher.store.attempts import AttemptDetail, load_attempts
from dispatcher.store.bodies import load_body
from dispatcher.store.delivery_details import (
    ContextRow,
    DeliveryDetail,
    find_delivery,
    load_context,
)
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.events import load_event
from dispatcher.store.routing import routed_row
from dispatcher.store.secrets import SealedSecret, load_secrets

_OPEN: Final = frozenset({DeliveryState.PENDING, DeliveryState.RETRYING})
ACCESS_TOKEN: Final = ("Authorization", f"Bearer {secret.MASK}")
"""The header of an endpoint with OAuth: no token is stored."""
_WITHOUT_A_BODY: Final = frozenset({Reason.UNENCODABLE_EVENT, Reason.EVENT_ERASED})


class RequestProblem(NamedTuple):
    """Why the request of a delivery cannot be shown; the console has its own text for each code."""

    code: str
    text: str


class DeliveryReports:
    """Looks at deliveries."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def delivery(
        self, actor: Actor, delivery_id: str, *, attempt_number: int | None = None
    ) -> DeliveryReport:
        """Return a delivery with the request of the chosen attempt, by default the last one.

        Raises:
            NotFoundError: there is none of that id, or no attempt of that number.
        """
        async with self._database.reading() as connection:
            row = await find_delivery(connection, delivery_id, actor.tenant)
            if row is None:
                raise NotFoundError(problem("id", "delivery_not_found", value=delivery_id))
            attempts = await load_attempts(connection, row)
            context = await load_context(connection, row)
            event = await load_event(connection, row)
            body = await load_body(connection, row)
            endpoint = await store.find_endpoint(connection, row.endpoint_id, actor.tenant)
            sealed = (await load_secrets(connection, [row.endpoint_id]))[row.endpoint_id]
        chosen = chosen_attempt(attempts, attempt_number)
        profile = self._deployment.profiles.get(row.profile)
        traceparent = None if event is None else event.traceparent
        request, request_problem = self._request(
            actor, row, chosen, body, endpoint, sealed, profile, traceparent
        )
        schedule = _schedule(context, profile)
        unusable = None if endpoint is None else self._problem(endpoint, sealed)
        return DeliveryReport(
            delivery=ExplainedDelivery(
                **delivery_values(row), attempts=[_attempt(attempt, actor) for attempt in attempts]
            ),
            event=None if event is None else event_of(event, self._deployment.catalogue.schemas),
            endpoint=None if context is None else _endpoint(context, actor),
            body=None if body is None else body.decode("utf-8", "replace"),
            body_bytes_count=None if body is None else len(body),
            why=why(row, attempts[-1] if attempts else None),
            next=next_step(row, _around(context, unusable)),
            schedule_seconds=schedule,
            attempts_max=None if schedule is None else len(schedule) + 1,
            request_id=None
            if profile is None
            else request_id(profile, row.event_id, is_test=row.test),
            resend=_resend(row, context, has_body=body is not None),
            can_cancel=row.state in _OPEN,
            request=request,
            request_problem=None if request_problem is None else request_problem.text,
            request_problem_code=None if request_problem is None else request_problem.code,
        )

    def _problem(self, endpoint: EndpointDetail, sealed: Sequence[SealedSecret]) -> str | None:
        unusable = self._deployment.problem_of(routed_row(endpoint, sealed))
        return None if unusable is None else unusable.detail

    def _request(
        self,
        actor: Actor,
        row: DeliveryDetail,
        attempt: AttemptDetail | None,
        body: bytes | None,
        endpoint: EndpointDetail | None,
        sealed: Sequence[SealedSecret],
        profile: Profile | None,
        traceparent: str | None,
    ) -> tuple[SentRequest | None, RequestProblem | None]:
        """Return the request of an attempt, or why it cannot be shown."""
        if body is None:
            return None, RequestProblem("body_missing", "its body does not exist any more")
        if profile is None:
            return None, RequestProblem("profile_missing", "its profile does not exist any more")
        if endpoint is None:
            return None, RequestProblem("endpoint_missing", "its endpoint does not exist any more")
        if attempt is None:
            return None, RequestProblem("no_attempts", "no attempt was made so far")
        timestamp = int(attempt.attempted_at.timestamp())
        try:
            head = made_head(
                self._deployment, endpoint, profile, sealed, row, attempt, body, traceparent
            )
        except (ConflictError, ConfigurationError, EncodingError, InvalidRequestError) as error:
            return None, RequestProblem("settings_invalid", str(error))
        if endpoint.delivery == "pull":
            head = [(name, value) for name, value in head if name.lower() not in FRAMING]
        elif endpoint.oauth_token_url is not None:
            head.append(ACCESS_TOKEN)
        hidden = () if actor.may(Role.MANAGER) else [name.lower() for name in endpoint.headers]
        also = also_signing(endpoint.also_sign, self._deployment)
        signatures = [one.signature.header.lower() for one in (profile, *also)]
        is_token = profile.signature.encoding is SignatureEncoding.SECRET
        if not actor.may(Role.MANAGER if is_token else Role.OPERATOR):
            hidden = [*hidden, *signatures]
        content = signed_content(
            profile, event_id=row.event_id, delivery_id=row.id, timestamp=timestamp, body=body
        )
        request = SentRequest(
            attempt_number=attempt.attempt_number,
            method="POST",
            url=attempt.url if actor.may(Role.OPERATOR) else masked_url(attempt.url),
            headers=[
                (name, secret.MASK if name.lower() in hidden else value) for name, value in head
            ],
            signature_header=profile.signature.header,
            timestamp=timestamp,
            signed_content=content.decode("utf-8", "replace"),
            also_signed=[
                AlsoSigned(
                    profile=one.name,
                    signature_header=one.signature.header,
                    signed_content=signed_content(
                        one,
                        event_id=row.event_id,
                        delivery_id=row.id,
                        timestamp=timestamp,
                        body=body,
                    ).decode("utf-8", "replace"),
                )
                for one in also
            ],
        )
        return request, None


def made_head(
    deployment: Deployment,
    endpoint: EndpointDetail,
    profile: Profile,
    sealed: Sequence[SealedSecret],
    row: DeliveryDetail,
    attempt: AttemptDetail,
    body: bytes,
    traceparent: str | None = None,
) -> list[tuple[str, str]]:
    """Return the headers of an attempt in the order of the wire, made again and signed.

    Raises:
        ConflictError: the endpoint cannot be sent to. ConfigurationError: there are no keys.
        InvalidRequestError: the URL is invalid by now. EncodingError: a value fits no header.
    """
    url = canonical_url(attempt.url, https_only=False, allow_ports=ANY_PORT)
    head = request_template(deployment, endpoint, profile, url, sealed).head(
        event_id=row.event_id,
        delivery_id=row.id,
        event_type=row.event_type,
        timestamp=int(attempt.attempted_at.timestamp()),
        body=body,
        traceparent=traceparent,
    )
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


def chosen_attempt(attempts: Sequence[AttemptDetail], number: int | None) -> AttemptDetail | None:
    """Return the attempt of a number, by default the last one; None if there is none so far.

    Raises:
        NotFoundError: there is no attempt of that number.
    """
    if number is None:
        return attempts[-1] if attempts else None
    for attempt in attempts:
        if attempt.attempt_number == number:
            return attempt
    raise NotFoundError(problem("attempt", "attempt_not_found", value=number))


def _attempt(row: AttemptDetail, actor: Actor) -> ExplainedAttempt:
    is_operator = actor.may(Role.OPERATOR)
    return ExplainedAttempt(
        **attempt_values(row, bodies=is_operator),
        # The address that a name resolved to may be internal, so no tenant sees it.
        peer=row.peer if actor.tenant is None and is_operator else None,
        reused=row.reused,
        dns_seconds=_rounded(row.dns_seconds),
        connect_seconds=_rounded(row.connect_seconds),
        wait_seconds=_rounded(row.wait_seconds),
        read_seconds=_rounded(row.read_seconds),
        why=attempt_advice(row.outcome, row.response_code),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _endpoint(context: ContextRow, actor: Actor) -> DeliveryEndpoint:
    return DeliveryEndpoint(
        id=context.endpoint_id,
        name=context.name,
        url=context.url if actor.may(Role.OPERATOR) else masked_url(context.url),
        delivery="pull" if context.delivery == "pull" else "push",
        state=_endpoint_state(context),
        reason=context.reason,
    )


def _endpoint_state(context: ContextRow) -> str:
    return "deleted" if context.deleted_at is not None else context.state


def _around(context: ContextRow | None, problem: str | None) -> Circumstances:
    if context is None:
        return Circumstances("deleted")
    return Circumstances(
        endpoint_state=_endpoint_state(context),
        rate_limit=context.rate_limit,
        breaker_state=context.breaker_state,
        probe_at=context.probe_at,
        is_resend_waiting=context.is_resend_waiting,
        is_behind=context.is_behind,
        is_pulled=context.delivery == "pull",
        dispatchers_alive=context.dispatchers_alive,
        problem=problem,
        now=context.now,
    )


def _schedule(context: ContextRow | None, profile: Profile | None) -> list[float] | None:
    """Return the delays between attempts as they are now."""
    if context is not None and context.retry_schedule_seconds is not None:
        return context.retry_schedule_seconds
    return None if profile is None else list(profile.retry_schedule_seconds)


def _resend(row: DeliveryDetail, context: ContextRow | None, *, has_body: bool) -> Advice:
    """Return whether it may be sent once more: `allowed`, or the reason why not."""
    if row.test:
        return Advice(code="test", text="a test event has one attempt; send another test event")
    if row.reason in _WITHOUT_A_BODY or not has_body:
        return Advice(code="no_body", text="it has no body, so there is nothing to send")
    if context is None or context.deleted_at is not None:
        return Advice(
            code="endpoint_deleted", text="its endpoint is deleted, so there is nowhere to send it"
        )
    if context.is_resend_waiting:
        return Advice(code="waiting", text="one more attempt was asked for already")
    return Advice(code="allowed", text="one more attempt can be asked for")
