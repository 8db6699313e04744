"""Deliveries: listed, shown, sent once more, cancelled."""

from collections.abc import Callable, Sequence
from typing import Final

from dispatcher.admin.operations.delivery_search import DeliverySearch
from dispatcher.admin.operations.deployment import ALL_TENANTS, Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import allowed_tenant
from dispatcher.admin.operations.objects import attempt_of, delivery_of, delivery_with_attempts
from dispatcher.admin.resources.delivery import (
    Attempt,
    DeliveriesQuery,
    Delivery,
    DeliveryPage,
    DeliveryWithAttempts,
    Resent,
)
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    write_cursor,
)
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError
from dispatcher.core.model import Reason
from dispatcher.core.problems import Problem, problem
from dispatcher.store import history
from dispatcher.store.audit import write_audit
from dispatcher.store.bodies import body_can_be_made
from dispatcher.store.columns import DeliveryDetail

RESEND_MAX: Final = 10_000
"""Deliveries that one call asks for: some minutes of work; a replay is for more."""
RESEND_BATCH: Final = 500
COUNT_BATCH: Final = 5_000
ALL_ENDPOINTS: Final = "*"
"""Whose allowance a bulk resend of no certain endpoint counts against."""
_WITHOUT_A_BODY = frozenset({Reason.UNENCODABLE_EVENT, Reason.EVENT_ERASED})


class DeliveryOperations:
    """The deliveries of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._profiles = deployment.profiles
        self._search = DeliverySearch(deployment.profiles)
        self._allowance = deployment.allowance

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
            row = _found(
                await history.find_delivery(connection, delivery_id, actor.tenant), delivery_id
            )
            attempts = await history.load_attempts(connection, row)
        return delivery_with_attempts(row, attempts, bodies=actor.may(Role.OPERATOR))

    async def last_attempts(
        self, actor: Actor, deliveries: Sequence[Delivery]
    ) -> dict[str, Attempt]:
        """Return the last attempts of a page of deliveries, by the delivery's id; only operators see responses."""
        keys = [(one.id, one.event_id, one.endpoint_id) for one in deliveries if one.attempt_count]
        if not keys:
            return {}
        async with self._database.reading() as connection:
            rows = await history.read_last_attempts(connection, keys)
        bodies = actor.may(Role.OPERATOR)
        return {name: attempt_of(row, bodies=bodies) for name, row in rows.items()}

    async def resend(self, actor: Actor, delivery_id: str) -> Delivery:
        """Request one more attempt, which a dispatcher makes, and return the delivery as it is now.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such delivery. ConflictError: its endpoint
            is deleted, or it was a test. TooManyError: too many for this endpoint.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            row = _found(
                await history.find_delivery(connection, delivery_id, actor.tenant), delivery_id
            )
            if row.test:
                raise ConflictError("a test event has one attempt; send another test event")
            if row.reason in _WITHOUT_A_BODY:
                raise ConflictError(f"it has no body ({row.reason}), so there is nothing to send")
            if await history.load_body(connection, row) is None:
                if not await body_can_be_made(connection, row.id, row.day):
                    raise ConflictError("its event's data was erased, so there is nothing to send")
                self._require_profile(row)
            self._allowance.take_send(actor.name, row.endpoint_id)
            if not await history.ask_for_resend(connection, row, actor.name):
                raise ConflictError("its endpoint is deleted, so there is nowhere to send it")
            detail = {"state": row.state, "endpoint_id": row.endpoint_id}
            await write_audit(connection, actor.name, row.tenant, "delivery.resend", row.id, detail)
        return delivery_of(row)

    def _require_profile(self, row: DeliveryDetail) -> None:
        """Require the profile that the missing body of a delivery is made under."""
        if row.profile not in self._profiles:
            raise ConflictError(
                f"it has no body yet, because profile {row.profile!r} is not configured."
                " Restore the profile's file; a waiting delivery is sent then"
            )

    async def resend_matching(
        self,
        actor: Actor,
        wanted: DeliveriesQuery,
        *,
        dry_run: bool,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Resent:
        """Request one more attempt of each delivery of a filter, newest first; `dry_run` only counts them.

        Test events and deliveries without a body or an endpoint are left out. One call examines at
        most `RESEND_MAX` deliveries from the filter's cursor on, and ignores its limit. Requests are
        committed in batches, and `progress` is called with the count so far; an interrupted call has
        requested those. The filter is audited once.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: the filter is empty or of test events,
            or the cursor is another filter's. TooManyError: too many resends for this endpoint, or
            of this kind.
        """
        actor.require(Role.OPERATOR)
        problems: list[Problem] = []
        if not wanted.given():
            problems.append(problem("filter", "empty_filter"))
        if wanted.test:
            problems.append(problem("test", "test_not_resendable"))
        if problems:
            raise InvalidRequestError(problems)
        wanted = wanted.model_copy(update={"test": False})
        if not dry_run:
            self._allowance.take_send(actor.name, wanted.endpoint_id or ALL_ENDPOINTS)
        scope = cursor_scope("resend", actor.tenant, wanted.given())
        place = read_cursor(wanted.cursor, scope)
        count, rows, batch_max = 0, 0, COUNT_BATCH if dry_run else RESEND_BATCH
        while rows < RESEND_MAX:
            async with self._database.reading() as connection:
                batch = await self._search.rows(connection, actor, wanted, place, batch_max)
                fit = [row for row in batch if row.reason not in _WITHOUT_A_BODY]
                if dry_run:
                    count += await history.count_resendable(connection, fit)
                else:
                    if not rows:
                        await write_audit(
                            connection,
                            actor.name,
                            allowed_tenant(actor, wanted.tenant) or ALL_TENANTS,
                            "delivery.resend_matching",
                            "deliveries",
                            {"filter": wanted.given()},
                        )
                    count += await history.ask_for_resends(connection, fit, actor.name)
            rows += len(batch)
            progress(count)
            if len(batch) < batch_max:
                place = None
                break
            place = Place(batch[-1].created_at, batch[-1].id)
        return Resent(
            count=count,
            capped=place is not None,
            limit=RESEND_MAX,
            dry_run=dry_run,
            next_cursor=None if place is None else write_cursor(place, scope),
        )

    async def cancel(self, actor: Actor, delivery_id: str) -> DeliveryWithAttempts:
        """Cancel a waiting delivery and return it; an attempt in flight is still recorded.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such delivery. ConflictError: it has ended
            already.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            row = _found(
                await history.find_delivery(connection, delivery_id, actor.tenant), delivery_id
            )
            if not await history.cancel_delivery(connection, row.id, actor.name):
                row = _found(
                    await history.find_delivery(connection, delivery_id, actor.tenant), delivery_id
                )
                raise ConflictError(f"it has ended already: {row.state}")
            detail = {"state": row.state, "endpoint_id": row.endpoint_id}
            await write_audit(connection, actor.name, row.tenant, "delivery.cancel", row.id, detail)
        return await self.show(actor, delivery_id)


def _found(row: DeliveryDetail | None, delivery_id: str) -> DeliveryDetail:
    if row is None:
        raise NotFoundError(f"there is no delivery {delivery_id!r}")
    return row
