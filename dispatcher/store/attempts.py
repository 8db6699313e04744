"""The table `attempt`: one row for each attempt that is not part of its delivery's row."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes, ids
from dispatcher.core.model import DeliveryId
from dispatcher.store.delivery_ids import delivery_ids_of, uuids_of
from dispatcher.store.kept_plans import fetch_of_days
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.delivery_details import DeliveryDetail
    from dispatcher.store.pool import Reach

_ATTEMPTS_LOAD = statement("attempt_load")
_ATTEMPTS_LAST = statement("attempt_last")

ATTEMPT_COLUMNS = (
    *("day", "event_id", "endpoint_no", "delivery_id", "attempt_number", "trigger", "outcome"),
    *("flags", "attempted_at", "latency_seconds", "dns_seconds", "connect_seconds"),
    *("wait_seconds", "read_seconds", "reused", "peer", "revision", "response_code"),
    *("response_body", "error", "response_headers"),
)


class AttemptDetail(NamedTuple):
    """An attempt as people see it."""

    attempt_number: int
    trigger: str
    outcome: str
    flags: list[str] | None
    attempted_at: datetime
    latency_seconds: float
    response_code: int | None
    response_body: bytes | None
    error: str | None
    url: str
    dns_seconds: float | None
    connect_seconds: float | None
    wait_seconds: float | None
    read_seconds: float | None
    reused: bool
    peer: str | None
    response_headers: bytes | None


class AttemptRow(NamedTuple):
    """One attempt, with the facts of the delivery and of the endpoint that its row contains."""

    day: date
    event_id: str
    event_type: str
    endpoint_no: int
    delivery_id: DeliveryId
    attempt_number: int
    trigger: str
    outcome: str
    flags: tuple[str, ...] | None
    attempted_at: datetime
    latency_seconds: float
    dns_seconds: float | None
    connect_seconds: float | None
    wait_seconds: float | None
    read_seconds: float | None
    reused: bool
    peer: str | None
    revision: int
    response_code: int | None
    response_body: bytes | None
    error: str | None
    response_headers: bytes | None


def attempt_detail(values: Sequence[Any]) -> AttemptDetail:
    """Return an attempt from its columns, in the statements' order."""
    number, trigger, outcome, *rest = values
    return AttemptDetail._make(
        (number, codes.trigger_of(trigger), codes.outcome_of(outcome), *rest)
    )


async def load_attempts(connection: "Reach", delivery: "DeliveryDetail") -> list[AttemptDetail]:
    """Return the attempts of a delivery, in order."""
    rows = await connection.fetch(
        _ATTEMPTS_LOAD, delivery.day, delivery.event_id, delivery.endpoint_id
    )
    return [attempt_detail(tuple(row)) for row in rows]


async def read_last_attempts(
    connection: "Reach", deliveries: Sequence[tuple[str, str, str]]
) -> dict[str, AttemptDetail]:
    """Return the last attempt of each delivery (id, event's id, endpoint's id) that has one."""
    if not deliveries:
        return {}
    days = [ids.day_of(delivery[0]) for delivery in deliveries]
    rows = await fetch_of_days(
        connection,
        _ATTEMPTS_LAST,
        uuids_of([delivery[0] for delivery in deliveries]),
        days,
        [delivery[1] for delivery in deliveries],
        [delivery[2] for delivery in deliveries],
        days=days,
    )
    found = delivery_ids_of([row[0] for row in rows])
    return {
        delivery_id: attempt_detail(tuple(row)[1:])
        for delivery_id, row in zip(found, rows, strict=True)
    }


def attempt_values(attempt: AttemptRow, uuid: UUID) -> tuple[object, ...]:
    """Return the row of an attempt that is not part of its delivery's row."""
    return (
        attempt.day,
        attempt.event_id,
        attempt.endpoint_no,
        uuid,
        attempt.attempt_number,
        codes.TRIGGER_CODES[attempt.trigger],
        codes.OUTCOME_CODES[attempt.outcome],
        *attempt[8:],
    )
