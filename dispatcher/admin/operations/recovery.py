"""Retry an endpoint now: one waiting delivery is sent at once, and everything else once it has succeeded.

The request is two rows of one transaction: a resend of the delivery that has been due longest, which passes an open
breaker, and the endpoint's own request, on which the replica that owns the endpoint acts when the attempt has
succeeded. Both survive a crash and a takeover. A failed attempt changes nothing: the breaker stays open, and each
delivery keeps its place and its due time. This process only waits for the outcome, for a bounded time. If the
receiver rejected that delivery, which it may do because of its event type, this process requests the same with a
delivery of another type, up to `TYPES_MAX` types. If it dies, the retry has failed and can be repeated.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.endpoint_reader import WAITING_COUNT_MAX
from dispatcher.admin.operations.objects import attempt_of
from dispatcher.admin.resources.delivery import Attempt
from dispatcher.admin.resources.endpoint_recovery import EndpointRetry
from dispatcher.core.errors import ConflictError
from dispatcher.core.model import EndpointState
from dispatcher.core.problems import problem
from dispatcher.store import endpoints as store
from dispatcher.store.attempts import load_attempts
from dispatcher.store.audit import write_audit
from dispatcher.store.delivery_details import find_delivery
from dispatcher.store.delivery_requests import (
    RetryOutcome,
    RetryRequest,
    request_retry,
    retry_outcome,
)
from dispatcher.store.endpoint_counts import read_waiting
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.routing import routed_row
from dispatcher.store.secrets import load_secrets

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

TYPES_MAX: Final = 5
"""Event types that one retry begins with in turn."""
_BY_THE_DELIVERY: Final = frozenset({"http_error", "timeout", "protocol_error"})
"""Outcomes that another delivery may not have."""
_State = Literal["released", "releasing", "failed", "requested", "nothing_waiting"]

OUTCOME_SECONDS: Final = 0.1
"""How often the outcome is read while a person waits for it."""
RECORDED_SECONDS_MAX: Final = 10.0
"""How long the outcome may take beyond the endpoint's timeout: to be taken up, recorded, and released."""
TIMEOUT_SECONDS_DEFAULT: Final = 10.0
"""Of an endpoint whose profile is not configured."""


class Recovery:
    """Sends the waiting deliveries of an endpoint whose receiver is repaired."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def retry(self, actor: Actor, endpoint_id: str) -> EndpointRetry:
        """Retry an endpoint now, and return the outcome, for which this waits.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such endpoint. ConflictError: it is paused, disabled or
            unusable. TooManyError: too many for this endpoint.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True)
            if row.state != EndpointState.ACTIVE:
                raise ConflictError(problem("state", f"endpoint_{row.state}"))
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
            unusable = self._deployment.problem_of(routed_row(row, sealed))
            if unusable is not None:
                raise ConflictError(problem("id", "endpoint_unusable", detail=unusable.detail))
            self._deployment.send_limits.take_send(actor.name, endpoint_id)
            (waiting,) = await read_waiting(connection, [endpoint_id], None, WAITING_COUNT_MAX)
            request = await self._request(connection, actor, row, ())
        state: _State = "nothing_waiting"
        attempt = None
        if request is not None:
            profile = self._deployment.profiles.get(row.profile)
            timeout_seconds = row.timeout_seconds or (
                TIMEOUT_SECONDS_DEFAULT if profile is None else profile.timeout_seconds
            )
            ends_at = self._deployment.clock.monotonic() + timeout_seconds + RECORDED_SECONDS_MAX
            request, outcome, attempt = await self._probe(actor, row, request, ends_at)
            state = _state(outcome)
        return EndpointRetry(
            endpoint_id=endpoint_id,
            state=state,
            waiting_count=min(waiting.waiting_count, WAITING_COUNT_MAX),
            capped=waiting.waiting_count > WAITING_COUNT_MAX,
            delivery_id=None if request is None else request.delivery_id,
            attempt=attempt,
        )

    async def _request(
        self, connection: "Reach", actor: Actor, row: EndpointDetail, failed_types: Sequence[int]
    ) -> RetryRequest | None:
        """Request a retry that begins with a delivery of another type than these; None: none waits."""
        request = await request_retry(connection, row.id, actor.name, failed_types)
        if request is not None:
            detail = {"delivery_id": request.delivery_id}
            await write_audit(connection, actor.name, row.tenant, "endpoint.retry", row.id, detail)
        return request

    async def _probe(
        self, actor: Actor, row: EndpointDetail, request: RetryRequest, ends_at: float
    ) -> tuple[RetryRequest, RetryOutcome, Attempt | None]:
        """Wait for the outcome; if the receiver rejected the delivery, send one of another event type first."""
        failed_types: list[int] = []
        while True:
            outcome = await self._outcome(request, ends_at)
            attempt = None
            # The resend of a success is deleted after its result is committed, and the retry may be released between.
            is_made = outcome.succeeded or not outcome.is_resend_waiting
            if is_made and outcome.attempt_number is not None:
                attempt = await self._attempt(actor, request.delivery_id, outcome.attempt_number)
            failed_types.append(request.event_type_code)
            is_rejected = attempt is not None and attempt.outcome in _BY_THE_DELIVERY
            if (
                _state(outcome) != "failed"
                or not is_rejected
                or len(failed_types) == TYPES_MAX
                or self._deployment.clock.monotonic() >= ends_at
            ):
                return request, outcome, attempt
            async with self._database.transaction() as connection:
                following = await self._request(connection, actor, row, failed_types)
            if following is None:
                return request, outcome, attempt
            request = following

    async def _outcome(self, request: RetryRequest, ends_at: float) -> RetryOutcome:
        """Wait for the outcome of a request; without a dispatcher, or after that time, return what there is."""
        monotonic = self._deployment.clock.monotonic
        while True:
            async with self._database.transaction() as connection:
                outcome = await retry_outcome(connection, request)
            is_over = not outcome.is_retry_waiting or not outcome.dispatchers_alive
            if is_over or monotonic() >= ends_at:
                return outcome
            await asyncio.sleep(OUTCOME_SECONDS)

    async def _attempt(self, actor: Actor, delivery_id: str, attempt_number: int) -> Attempt | None:
        async with self._database.reading() as connection:
            row = await find_delivery(connection, delivery_id, actor.tenant)
            rows = [] if row is None else await load_attempts(connection, row)
        made = [one for one in rows if one.attempt_number == attempt_number]
        return attempt_of(made[0], bodies=True) if made else None


def _state(outcome: RetryOutcome) -> _State:
    if outcome.succeeded:
        return "releasing" if outcome.is_retry_waiting else "released"
    return "requested" if outcome.is_retry_waiting else "failed"
