"""The newest attempts, read from the ends of their partitions."""

from datetime import date, datetime
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.store.columns import (
    DELIVERY_COLUMNS,
    AttemptDetail,
    DeliveryDetail,
    attempt_detail,
    delivery_details,
)
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Record

    from dispatcher.store.pool import Reach

_TAIL_DAYS = statement("partition_tail")
_TAIL_ATTEMPTS = {
    "attempt": statement("attempt_tail"),
    "delivery_done": statement("delivery_done_tail"),
}


class DayRow(NamedTuple):
    """A partition that receives attempts."""

    table: str
    """`attempt`, or `delivery_done` with its first attempts."""
    day: date
    pages: int
    inserted_count: int


class NewAttempt(NamedTuple):
    """An attempt, and its delivery as it is now."""

    delivery: DeliveryDetail
    attempt: AttemptDetail


async def read_days(connection: "Reach") -> list[DayRow]:
    """Returns the partitions, newest first.

    Raises:
        StoreUnavailableError: Postgres refuses; the tail is no reason to end a daemon.
    """
    return [DayRow(*row) for row in await _fetch(connection, _TAIL_DAYS)]


async def read_attempts(
    connection: "Reach", table: str, day: date, page: int, since: datetime, rows_max: int
) -> list[NewAttempt]:
    """Returns the newest attempts in a partition from a page on, oldest first, without response bodies.

    Raises:
        StoreUnavailableError: as `read_days`.
    """
    rows = await _fetch(connection, _TAIL_ATTEMPTS[table], day, f"({page},0)", since, rows_max)
    return [
        NewAttempt(delivery, attempt_detail(tuple(row)[DELIVERY_COLUMNS:]))
        for delivery, row in zip(delivery_details(rows), rows, strict=True)
    ]


async def _fetch(connection: "Reach", sql: str, *parameters: object) -> "list[Record]":
    try:
        return await connection.fetch(sql, *parameters)
    except asyncpg.PostgresError as error:
        raise StoreUnavailableError(f"the tail cannot be read: {error}") from error
