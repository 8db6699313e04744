"""Deliveries: listed, shown, sent once more, cancelled."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final, NamedTuple

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.delivery_search import DeliverySearch
from dispatcher.admin.operations.objects import attempt_of, delivery_of, delivery_with_attempts
from dispatcher.admin.resources.delivery import (
    Attempt,
    DeliveriesQuery,
    Delivery,
    DeliveryPage,
    DeliveryWithAttempts,
)
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
    write_cursor,
)
from dispatcher.core.errors import ConflictError, NotFoundError, TooManyError
from dispatcher.core.model import Reason
from dispatcher.core.problems import problem
from dispatcher.store.attempts import load_attempts, read_last_attempts
from dispatcher.store.audit import write_audit
from dispatcher.store.bodies import body_can_be_made, load_body
from dispatcher.store.delivery_details import DeliveryDetail, find_delivery
from dispatcher.store.delivery_requests import (
    cancel_delivery,
    request_resend,
)

EXPORTS_MAX: Final = 2
"""Exports of this process at a time: each reads page after page."""
EXPORT_ROWS_MAX: Final = 10_000
EXPORT_BATCH: Final = 500
EXPORT_SECONDS_MAX: Final = 60.0
ALL_ENDPOINTS: Final = "*"
"""The key that limits bulk resends of no certain endpoint."""
_WITHOUT_A_BODY = frozenset({Reason.UNENCODABLE_EVENT, Reason.EVENT_ERASED})


class ExportPage(NamedTuple):
    """A part of an export."""

    rows: list[tuple[Delivery, Attempt | None]]
    """Each delivery with its last attempt."""
    is_end: bool
    """No more deliveries match."""


class DeliveryOperations:
    """The deliveries of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._profiles = deployment.profiles
        self._search = DeliverySearch(deployment)
        self._send_limits = deployment.send_limits
        self._clock = deployment.clock
        self._exports_count = 0

    async def page(
        self,
        actor: Actor,
        query: DeliveriesQuery = DeliveriesQuery(),  # noqa: B008 -- frozen
    ) -> DeliveryPage:
        """Return a page of deliveries without their attempts, newest first.

        Raises:
            InvalidRequestError: the cursor is another filter's. NotFoundError: the tenant is not the
            actor's.
        """
        scope = cursor_scope("deliveries", actor.tenant, query.given())
        place = read_cursor(query.cursor, scope)
        if query.q and query.q.strip():
            found = await self._search.find(actor, query, place)
            return DeliveryPage(
                items=[delivery_of(row) for row in found.rows],
                next_cursor=found.next_place and write_cursor(found.next_place, scope),
                searched_back_to=time_text(found.searched_back_to),
            )
        async with self._database.reading() as connection:
            rows = await self._search.rows(connection, actor, query, place, query.limit + 1)
        items, next_cursor = page_of(
            rows, query.limit, lambda row: Place(row.created_at, row.id), delivery_of, scope=scope
        )
        return DeliveryPage(items=items, next_cursor=next_cursor)

    async def show(self, actor: Actor, delivery_id: str) -> DeliveryWithAttempts:
        """Return a delivery with its attempts; only operators see the responses.

        Raises:
            NotFoundError: there is none of that id.
        """
        async with self._database.reading() as connection:
            row = _found(await find_delivery(connection, delivery_id, actor.tenant), delivery_id)
            attempts = await load_attempts(connection, row)
        return delivery_with_attempts(row, attempts, bodies=actor.may(Role.OPERATOR))

    async def last_attempts(
        self, actor: Actor, deliveries: Sequence[Delivery]
    ) -> dict[str, Attempt]:
        """Return the last attempts of a page of deliveries, by the delivery's id; only operators see responses."""
        keys = [(one.id, one.event_id, one.endpoint_id) for one in deliveries if one.attempt_count]
        if not keys:
            return {}
        async with self._database.reading() as connection:
            rows = await read_last_attempts(connection, keys)
        bodies = actor.may(Role.OPERATOR)
        return {name: attempt_of(row, bodies=bodies) for name, row in rows.items()}

    async def export(
        self, actor: Actor, query: DeliveriesQuery
    ) -> AsyncGenerator[ExportPage, None]:
        """Yield the deliveries of a filter with their last attempts, page by page, newest first.

        The export ends after `EXPORT_ROWS_MAX` deliveries or `EXPORT_SECONDS_MAX`.

        Raises:
            As `page`. TooManyError: too many exports are running.
        """
        if self._exports_count >= EXPORTS_MAX:
            raise TooManyError(
                problem("export", "too_many_exports", maximum=EXPORTS_MAX), EXPORT_SECONDS_MAX / 2
            )
        self._exports_count += 1
        try:
            end_at = self._clock.monotonic() + EXPORT_SECONDS_MAX
            cursor, left = None, EXPORT_ROWS_MAX
            while left > 0 and self._clock.monotonic() < end_at:
                limited = {"limit": min(EXPORT_BATCH, left), "cursor": cursor}
                page = await self.page(actor, query.model_copy(update=limited))
                last = await self.last_attempts(actor, page.items)
                cursor = page.next_cursor
                rows = [(one, last.get(one.id)) for one in page.items]
                yield ExportPage(rows, cursor is None)
                left -= len(page.items)
                if cursor is None:
                    return
        finally:
            self._exports_count -= 1

    async def resend(self, actor: Actor, delivery_id: str) -> Delivery:
        """Request one more attempt, which a dispatcher makes, and return the delivery as it is now.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such delivery. ConflictError: its endpoint
            is deleted, or it was a test. TooManyError: too many for this endpoint.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction(is_planned_for_values=True) as connection:
            row = _found(await find_delivery(connection, delivery_id, actor.tenant), delivery_id)
            if row.test:
                raise ConflictError(problem("id", "test_not_resendable"))
            if row.reason in _WITHOUT_A_BODY:
                raise ConflictError(problem("id", "delivery_without_body", reason=row.reason))
            if await load_body(connection, row) is None:
                if not await body_can_be_made(connection, row.id, row.day):
                    raise ConflictError(problem("id", "event_erased"))
                self._require_profile(row)
            self._send_limits.take_send(actor.name, row.endpoint_id)
            if not await request_resend(connection, row, actor.name):
                raise ConflictError(problem("id", "endpoint_deleted"))
            detail = {"state": row.state, "endpoint_id": row.endpoint_id}
            await write_audit(connection, actor.name, row.tenant, "delivery.resend", row.id, detail)
        return delivery_of(row)

    def _require_profile(self, row: DeliveryDetail) -> None:
        """Require the profile that the missing body of a delivery is made under."""
        if row.profile not in self._profiles:
            raise ConflictError(problem("id", "profile_not_configured", profile=row.profile))

    async def cancel(self, actor: Actor, delivery_id: str) -> DeliveryWithAttempts:
        """Cancel a waiting delivery and return it; an attempt in flight is still recorded.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such delivery. ConflictError: it has ended
            already.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction(is_planned_for_values=True) as connection:
            row = _found(await find_delivery(connection, delivery_id, actor.tenant), delivery_id)
            if not await cancel_delivery(connection, row.id, actor.name):
                row = _found(
                    await find_delivery(connection, delivery_id, actor.tenant), delivery_id
                )
                raise ConflictError(problem("id", "delivery_ended", state=row.state))
            detail = {"state": row.state, "endpoint_id": row.endpoint_id}
            await write_audit(connection, actor.name, row.tenant, "delivery.cancel", row.id, detail)
        return await self.show(actor, delivery_id)


def _found(row: DeliveryDetail | None, delivery_id: str) -> DeliveryDetail:
    if row is None:
        raise NotFoundError(problem("id", "delivery_not_found", value=delivery_id))
    return row
