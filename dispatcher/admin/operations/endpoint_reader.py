"""Endpoints: listed, shown and counted, without a change."""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, cast

from dispatcher.admin.operations.context import Actor, Deployment, allowed_tenant
from dispatcher.admin.operations.endpoint_view import endpoint_of
from dispatcher.admin.resources.endpoint import Endpoint, EndpointPage
from dispatcher.admin.resources.endpoint_recovery import (
    EndpointFailures,
    FailedResponse,
    WaitingDeliveries,
)
from dispatcher.admin.resources.endpoint_requests import EndpointsQuery
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
    write_cursor,
)
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.model import EndpointId
from dispatcher.core.problems import problem
from dispatcher.store import endpoints as store
from dispatcher.store.endpoint_counts import (
    RESPONSES_READ_MAX,
    DeliveryCounts,
    FailureRow,
    count_deliveries,
    count_failures,
    read_waiting,
)
from dispatcher.store.endpoints import EndpointDetail, EndpointName
from dispatcher.store.secrets import SealedSecret, load_secrets

if TYPE_CHECKING:
    from dispatcher.admin.resources.delivery import AttemptOutcomeName
    from dispatcher.store.pool import Reach

WAITING_COUNT_MAX: Final = 10_000
"""Waiting deliveries of an endpoint are counted up to here."""


class EndpointReader:
    """The endpoints of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

    async def page(
        self,
        actor: Actor,
        query: EndpointsQuery = EndpointsQuery(),  # noqa: B008 -- frozen
    ) -> EndpointPage:
        """Return a page of endpoints, newest first or by trouble.

        By trouble, a cursor is a number of rows: a page after it may repeat or miss an endpoint whose trouble has
        changed in between.

        Raises:
            InvalidRequestError: the cursor is another filter's.
        """
        tenant = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("endpoints", actor.tenant, query.given())
        place = read_cursor(query.cursor, scope)
        if query.sort == "trouble":
            return await self._page_by_trouble(actor, tenant, query, place, scope)
        filters = [
            tenant, query.name, query.profile, query.state, *(place or (None, None)), query.limit + 1, None,
            query.health, query.q,
        ]  # fmt: skip
        async with self._database.reading() as connection:
            rows = await store.page_of_endpoints(connection, filters)
            ids = [row.id for row in rows]
            sealed = await load_secrets(connection, ids)
            counts = await count_deliveries(connection, ids)
        items, next_cursor = page_of(
            rows,
            query.limit,
            lambda row: Place(row.created_at, row.id),
            lambda row: self._shown(row, sealed[row.id], counts[row.id], actor),
            scope=scope,
        )
        return EndpointPage(items=items, next_cursor=next_cursor)

    async def _page_by_trouble(
        self,
        actor: Actor,
        tenant: str | None,
        query: EndpointsQuery,
        place: Place | None,
        scope: str,
    ) -> EndpointPage:
        offset = 0 if place is None else _offset(place)
        filters = [tenant, query.name, query.q, query.profile, query.state, query.health]
        async with self._database.reading() as connection:
            ids_found = await store.endpoints_by_trouble(
                connection, filters, rows_max=query.limit + 1, offset=offset
            )
            items = await self._of_ids(connection, actor, tenant, ids_found[: query.limit])
        end = Place(self._deployment.clock.now(), str(offset + query.limit))
        return EndpointPage(
            items=items,
            next_cursor=write_cursor(end, scope) if len(ids_found) > query.limit else None,
        )

    async def _of_ids(
        self, connection: "Reach", actor: Actor, tenant: str | None, ids: list[str]
    ) -> list[Endpoint]:
        if not ids:
            return []
        any_filter = [tenant, *(None,) * 5, len(ids), ids, None, None]
        rows = {row.id: row for row in await store.page_of_endpoints(connection, any_filter)}
        sealed = await load_secrets(connection, list(rows))
        counts = await count_deliveries(connection, list(rows))
        return [
            self._shown(rows[one], sealed[one], counts[one], actor) for one in ids if one in rows
        ]

    async def with_problems(
        self, actor: Actor, *, has_failed: bool, failed_max: int, rows_max: int
    ) -> tuple[list[Endpoint], bool]:
        """Return the endpoints that are disabled, not healthy, or have failed deliveries, and whether there are more.

        `has_failed`: failed deliveries count as a problem; at most `failed_max` of them are read.
        """
        async with self._database.reading() as connection:
            ids = await store.endpoints_with_problems(
                connection,
                actor.tenant,
                has_failed=has_failed,
                failed_max=failed_max,
                rows_max=rows_max + 1,
            )
            items = await self._of_ids(connection, actor, actor.tenant, ids[:rows_max])
        return items, len(ids) > rows_max

    async def failures(self, actor: Actor, endpoint_id: str) -> EndpointFailures:
        """Return the failed and the retrying deliveries of an endpoint by their last response.

        Raises:
            NotFoundError: there is none of that id, or it is deleted.
        """
        async with self._database.reading() as connection:
            await store.load_endpoint(connection, endpoint_id, actor.tenant)
            found, counts = await count_failures(connection, endpoint_id, actor.tenant)
        return _failures(endpoint_id, found, counts)

    async def show_with_failures(
        self, actor: Actor, endpoint_id: str
    ) -> tuple[Endpoint, EndpointFailures]:
        """Return what `show` and `failures` return, with one count of the deliveries.

        Raises:
            NotFoundError: there is none of that id, or it is deleted.
        """
        async with self._database.reading() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant)
            sealed = await load_secrets(connection, [endpoint_id])
            found, counts = await count_failures(connection, endpoint_id, actor.tenant)
        shown = self._shown(row, sealed[endpoint_id], counts, actor)
        return shown, _failures(endpoint_id, found, counts)

    async def show(self, actor: Actor, endpoint_id: str) -> Endpoint:
        """Return an endpoint; its secret is masked.

        Raises:
            NotFoundError: there is none of that id, or it is deleted.
        """
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant)
            sealed = await load_secrets(connection, [endpoint_id])
            counts = await count_deliveries(connection, [endpoint_id])
        return self._shown(row, sealed[endpoint_id], counts[endpoint_id], actor)

    async def names(self, actor: Actor, endpoint_ids: Iterable[str]) -> dict[str, EndpointName]:
        """Return the names of the actor's endpoints by id, deleted ones included."""
        wanted = sorted(set(endpoint_ids))
        if not wanted:
            return {}
        async with self._database.reading() as connection:
            rows = await store.read_names(connection, wanted, actor.tenant)
        return {row.id: row for row in rows}

    async def waiting(self, actor: Actor, endpoint_id: str) -> WaitingDeliveries:
        """Return how many deliveries wait for an endpoint: a pause holds them, a deletion cancels them.

        They are counted up to `WAITING_COUNT_MAX`.

        Raises:
            NotFoundError: no such endpoint.
        """
        async with self._database.reading() as connection:
            await store.load_endpoint(connection, endpoint_id, actor.tenant)
            (row,) = await read_waiting(connection, [endpoint_id], None, WAITING_COUNT_MAX)
        return WaitingDeliveries(
            endpoint_id=endpoint_id,
            waiting_count=min(row.waiting_count, WAITING_COUNT_MAX),
            retrying_count=min(row.retrying_count, WAITING_COUNT_MAX),
            capped=row.waiting_count > WAITING_COUNT_MAX,
            oldest_due_at=time_text(row.oldest_due_at),
        )

    def _shown(
        self,
        row: EndpointDetail,
        sealed: Sequence[SealedSecret],
        counts: DeliveryCounts,
        actor: Actor,
    ) -> Endpoint:
        return endpoint_of(row, sealed, counts, self._deployment, actor)


def _failures(
    endpoint_id: str, found: Sequence[FailureRow], counts: DeliveryCounts
) -> EndpointFailures:
    return EndpointFailures(
        endpoint_id=EndpointId(endpoint_id),
        responses=[
            FailedResponse(
                outcome=cast("AttemptOutcomeName | None", one.outcome),
                response_code=one.response_code,
                failed_count=one.failed_count,
                retrying_count=one.retrying_count,
            )
            for one in found
        ],
        capped=max(counts) > RESPONSES_READ_MAX,
    )


def _offset(place: Place) -> int:
    """Return the rows before a page by trouble.

    Raises:
        InvalidRequestError: the cursor is none of ours.
    """
    if not re.fullmatch(r"[0-9]{1,7}", place.id):
        raise InvalidRequestError([problem("cursor", "invalid_cursor")])
    return int(place.id)
