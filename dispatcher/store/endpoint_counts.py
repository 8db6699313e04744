"""Counts of an endpoint's deliveries: waiting, failed by response, and by state."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from dispatcher.core.codes import outcome_of
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.day_walk import PLAN_FOR_VALUES, month_ago
from dispatcher.store.delivery_ids import first_uuid
from dispatcher.store.kept_plans import fetch_since
from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach


_WAITING = statement("endpoint_count_waiting")
_DELIVERIES = statement("endpoint_count_deliveries")
_MANY_DELIVERIES = statement("endpoint_count_many_deliveries")
_FAILURES = statement("endpoint_count_failures")
_ENDPOINT_PROGRESS = statement("endpoint_progress")
COUNTED_MAX = 1_000
"""Waiting and failed deliveries of an endpoint are counted up to here."""
FAILED_READ_MAX = 10_000
"""Failed deliveries that are counted in one pass over several endpoints (ADR 35)."""
RESPONSES_READ_MAX = 100
"""Failed deliveries of an endpoint, and waiting ones, whose last response is read; some 5 µs each."""
RESPONSES_MAX = 20
"""Different responses that the failures of an endpoint are counted by."""


class WaitingRow(NamedTuple):
    """The waiting deliveries of one endpoint."""

    endpoint_id: str
    waiting_count: int
    retrying_count: int
    oldest_due_at: datetime | None


class DeliveryCounts(NamedTuple):
    """The open and the failed deliveries of one endpoint; `COUNTED_MAX` + 1 where there are more."""

    waiting: int = 0
    failed: int = 0
    """Failed and not resent with success."""


class FailureRow(NamedTuple):
    """The failed and the retrying deliveries of an endpoint whose last attempt had one response."""

    outcome: str | None
    """None: no attempt was made."""
    response_code: int | None
    failed_count: int
    retrying_count: int


class Progress(NamedTuple):
    """An endpoint's deliveries by state."""

    endpoint_id: str
    delivered: int
    waiting: int
    retrying: int
    failed: int
    cancelled: int
    attempts: int


async def read_waiting(
    connection: "Reach", endpoint_ids: Sequence[str], tenant: str | None, count_max: int
) -> list[WaitingRow]:
    """Return the waiting deliveries of those of the endpoints that exist."""
    rows = await connection.fetch(_WAITING, list(endpoint_ids), tenant, count_max)
    return [WaitingRow(*row) for row in rows]


async def count_deliveries(
    connection: "Reach", endpoint_ids: Sequence[str]
) -> dict[str, DeliveryCounts]:
    """Count the waiting and the failed deliveries of endpoints, up to `COUNTED_MAX` each.

    It is to be the last read of its transaction.
    """
    if not endpoint_ids:
        return {}
    since = month_ago(SystemClock.now())
    ids = list(endpoint_ids)
    rows = await fetch_since(
        connection, _DELIVERIES, ids, COUNTED_MAX, FAILED_READ_MAX, days=[since], is_last=True
    )
    if rows and rows[0]["failed_read"] == FAILED_READ_MAX:
        rows = await fetch_since(
            connection, _MANY_DELIVERIES, ids, COUNTED_MAX, days=[since], is_last=True
        )
    return {row[0]: DeliveryCounts(*row[1:3]) for row in rows}


async def count_failures(
    connection: "Reach", endpoint_id: str, tenant: str | None
) -> tuple[list[FailureRow], DeliveryCounts]:
    """Count the failed and the retrying deliveries of an endpoint by their last response, the most frequent first.

    Those of the newest `RESPONSES_READ_MAX` failed ones, and of as many that wait and are due first. The numbers of all
    waiting and failed ones are returned as well, up to `COUNTED_MAX`. It is to be the last read of its transaction.
    """
    since = month_ago(SystemClock.now())
    rows = await fetch_since(
        connection,
        _FAILURES,
        endpoint_id,
        tenant,
        COUNTED_MAX,
        RESPONSES_READ_MAX,
        RESPONSES_MAX,
        days=[since],
        is_last=True,
    )
    counts = DeliveryCounts(rows[0]["waiting_total"], rows[0]["failed_total"])
    found = [row[2:] for row in rows if row["failed_count"] is not None]
    return [
        FailureRow(None if code is None else outcome_of(code), *rest) for code, *rest in found
    ], counts


async def read_progress(
    database: "Database", endpoint_ids: Sequence[str], since: datetime
) -> list[Progress]:
    """Return the counts of the deliveries made since then, for endpoints that have any."""
    day = since.astimezone(UTC).date()
    async with database.transaction() as connection:
        await connection.execute(PLAN_FOR_VALUES)
        rows = await connection.fetch(
            _ENDPOINT_PROGRESS, list(endpoint_ids), first_uuid(since), day
        )
    return [Progress(*row) for row in rows]
