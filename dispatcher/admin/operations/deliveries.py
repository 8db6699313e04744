"""Deliveries: listed, shown, sent once more, cancelled."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Final

import orjson

from dispatcher.admin.operations.deployment import ALL_TENANTS, Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import allowed_tenant
from dispatcher.admin.operations.objects import (
    LIMIT_DEFAULT,
    Object,
    Place,
    delivery_object,
    limit_problems,
    page_object,
    read_cursor,
    time_text,
)
from dispatcher.core.errors import ConflictError, InvalidRequestError, NotFoundError
from dispatcher.core.matching import labels_problems
from dispatcher.core.model import DeliveryState, Reason
from dispatcher.store import admin as store
from dispatcher.store import history
from dispatcher.store.history import DeliveryDetail

_REQUEST_ID: Final = re.compile(r"(?:[a-z0-9]+_)?([0-9a-f]{16})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries: all that is given must hold; `since` <= created_at < `until`.

    `request_id` is the id in a Humansoft body, which is made of the event's; `labels` are the
    event's.
    """

    endpoint_id: str | None = None
    event_id: str | None = None
    request_id: str | None = None
    event_type: str | None = None
    state: str | None = None
    labels: Mapping[str, str] | None = None
    tenant: str | None = None
    test: bool | None = None
    since: datetime | None = None
    until: datetime | None = None

    def given(self) -> dict[str, object]:
        """Returns what is given, by name, ready for the audit log."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: time_text(value) if isinstance(value, datetime) else value
            for name, value in values.items()
            if value is not None and value != {}
        }


RESEND_MAX: Final = 10_000
"""Deliveries that one call asks for: some minutes of work; a replay is for more."""
RESEND_BATCH: Final = 500
_WITHOUT_A_BODY = frozenset({Reason.UNENCODABLE_EVENT, Reason.UNKNOWN_PROFILE})


class DeliveryOperations:
    """The deliveries of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._allowance = deployment.allowance

    async def page(
        self,
        actor: Actor,
        wanted: DeliveryFilter,
        *,
        limit: int = LIMIT_DEFAULT,
        cursor: str | None = None,
    ) -> Object:
        """Returns a page of deliveries without their attempts, newest first.

        Raises:
            InvalidRequestError: every fault of the filter. NotFoundError: the tenant is not the
            actor's.
        """
        problems = [*_problems(wanted), *limit_problems(limit)]
        if problems:
            raise InvalidRequestError(problems)
        filters = self._filters(actor, wanted, read_cursor(cursor), limit + 1)
        async with store.reading(self._database) as connection:
            rows = await history.page_of_deliveries(connection, filters)
        return page_object(rows, limit, lambda row: Place(row.created_at, row.id), delivery_object)

    @staticmethod
    def _filters(
        actor: Actor, wanted: DeliveryFilter, place: Place | None, rows_max: int
    ) -> list[object]:
        """Returns the parameters of the page's statement."""
        digits = _REQUEST_ID.fullmatch(wanted.request_id) if wanted.request_id else None
        return [
            allowed_tenant(actor, wanted.tenant),
            wanted.endpoint_id,
            wanted.event_id,
            wanted.event_type,
            wanted.state,
            wanted.test,
            orjson.dumps(dict(wanted.labels)).decode() if wanted.labels else None,
            None if digits is None else digits[1],
            wanted.since,
            wanted.until,
            *(place or (None, None)),
            rows_max,
        ]

    async def show(self, actor: Actor, delivery_id: str) -> Object:
        """Returns a delivery with its attempts; what the receiver answered is for operators.

        Raises:
            NotFoundError: there is none of that id.
        """
        async with store.reading(self._database) as connection:
            row = _found(
                await history.find_delivery(connection, delivery_id, actor.tenant), delivery_id
            )
            attempts = await history.load_attempts(connection, row)
        return delivery_object(row, attempts, bodies=actor.may(Role.OPERATOR))

    async def resend(self, actor: Actor, delivery_id: str) -> Object:
        """Asks for one more attempt and returns the delivery as it is now; a dispatcher makes it.

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
                raise ConflictError(
                    f"it was cancelled before its body could be made ({row.reason}), so there is nothing to send"
                )
            self._allowance.take_send(actor.name, row.endpoint_id)
            if not await history.ask_for_resend(connection, row, actor.name):
                raise ConflictError("its endpoint is deleted, so there is nowhere to send it")
            detail = {"state": row.state, "endpoint_id": row.endpoint_id}
            await store.write_audit(
                connection, actor.name, row.tenant, "delivery.resend", row.id, detail
            )
        return delivery_object(row)

    async def resend_matching(
        self,
        actor: Actor,
        wanted: DeliveryFilter,
        *,
        dry_run: bool,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Object:
        """Asks for one extra attempt of each delivery of a filter, newest first; `dry_run` only counts.

        Tests and what never had a body are left out. One call takes `RESEND_MAX` at most: `capped`
        says that there are more, and `next_until` where the next call would go on. Requests are
        committed in batches, `progress` hearing the count so far; a call that is cut off has asked
        for those. The filter and the count are audited once.

        Returns `{count, capped, limit, dry_run, next_until}`; `count` is how many there are (dry
        run) or were asked for.

        Raises:
            ForbiddenError: no operator. InvalidRequestError: every fault of the filter; or it says
            nothing.
        """
        actor.require(Role.OPERATOR)
        problems = _problems(wanted)
        if not wanted.given():
            problems.append(
                ("filter", "says nothing: name an endpoint, a state, a time or the like")
            )
        if wanted.test:
            problems.append(("test", "a test event has one attempt; send another test event"))
        if problems:
            raise InvalidRequestError(problems)
        wanted = replace(wanted, test=False)
        count, place, rows = 0, None, 0
        while rows < RESEND_MAX:
            async with store.reading(self._database) as connection:
                batch = await history.page_of_deliveries(
                    connection, self._filters(actor, wanted, place, RESEND_BATCH)
                )
                fit = [row for row in batch if row.reason not in _WITHOUT_A_BODY]
                if dry_run:
                    count += len(fit)
                else:
                    if not rows:
                        await store.write_audit(
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
            if len(batch) < RESEND_BATCH:
                place = None
                break
            place = Place(batch[-1].created_at, batch[-1].id)
        return {
            "count": count,
            "capped": place is not None,
            "limit": RESEND_MAX,
            "dry_run": dry_run,
            "next_until": None if place is None else time_text(place.at),
        }

    async def cancel(self, actor: Actor, delivery_id: str) -> Object:
        """Ends a delivery that waits and returns it; an attempt in flight is still recorded.

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
            await store.write_audit(
                connection, actor.name, row.tenant, "delivery.cancel", row.id, detail
            )
        return await self.show(actor, delivery_id)


def _found(row: DeliveryDetail | None, delivery_id: str) -> DeliveryDetail:
    if row is None:
        raise NotFoundError(f"there is no delivery {delivery_id!r}")
    return row


def _problems(wanted: DeliveryFilter) -> list[tuple[str, str]]:
    problems = labels_problems(wanted.labels, "label") if wanted.labels else []
    if wanted.state is not None and wanted.state not in tuple(DeliveryState):
        problems.append(("state", f"must be one of {', '.join(DeliveryState)}"))
    if wanted.request_id is not None and _REQUEST_ID.fullmatch(wanted.request_id) is None:
        problems.append(("request_id", "must be a prefix such as req_ and 16 hexadecimal digits"))
    problems += [
        (name, "must have a time zone, as in 2026-05-29T14:32:11Z")
        for name, at in (("since", wanted.since), ("until", wanted.until))
        if at is not None and at.tzinfo is None
    ]
    return problems
