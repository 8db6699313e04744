"""Bodies of deliveries that fan-out wrote without one; see `late_bodies.py`."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

import orjson

from dispatcher.core.model import DeliveryId, Event, EventId
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.delivery_ids import delivery_ids_of, uuid_of, uuids_of
from dispatcher.store.pool import Database, columns
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.delivery_details import DeliveryDetail
    from dispatcher.store.pool import Reach

_MISSING = statement("body_list_missing")
_KEEP = statement("body_keep")
_WARN = statement("delivery_open_warn")
_CANCEL = statement("delivery_open_cancel_unencodable")
_BODY_LOAD = statement("body_load")


class MissingBody(NamedTuple):
    """A delivery that was found without a body, and the event to make it from."""

    delivery_id: DeliveryId
    day: date
    profile: str
    body_key: str
    """Under what the body is stored, see `EndpointRow`."""
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    event: Event | None
    """None: the body has been made meanwhile, for another delivery."""


class LateBody(NamedTuple):
    """The body that a delivery got after fan-out."""

    delivery_id: DeliveryId
    day: date
    event_id: EventId
    body_key: str
    bytes: bytes
    warnings: tuple[str, ...]


async def body_can_be_made(connection: "Reach", delivery_id: str, day: date) -> bool:
    """Return whether the event of a delivery still has the data that its body is made from.

    The caller's transaction plans for values.
    """
    return bool(await connection.fetch(_MISSING, [uuid_of(delivery_id)], [day]))


class Bodies:
    """Bodies that are made after fan-out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def missing(self, deliveries: Sequence[tuple[DeliveryId, date]]) -> list[MissingBody]:
        """Return what these deliveries (id, day) need; those that are gone or erased are left out."""
        async with self._database.transaction() as connection:
            await connection.execute(PLAN_FOR_VALUES)
            rows = await connection.fetch(
                _MISSING,
                uuids_of([delivery_id for delivery_id, _ in deliveries]),
                [day for _, day in deliveries],
            )
        return [
            MissingBody(
                delivery_id,
                row["day"],
                row["profile"],
                row["body_key"],
                tuple(row["include"]),
                tuple(row["exclude"]),
                None
                if row["has_body"]
                else Event(
                    row["id"],
                    row["type"],
                    row["data"],
                    row["tenant"],
                    row["occurred_at"],
                    row["inserted_at"],
                    orjson.loads(row["labels"]),
                    row["traceparent"],
                ),
            )
            for row, delivery_id in zip(
                rows, delivery_ids_of([row["delivery_id"] for row in rows]), strict=True
            )
        ]

    async def keep(self, bodies: Sequence[LateBody], unencodable: Sequence[DeliveryId]) -> None:
        """Insert bodies that do not exist yet, and cancel the waiting deliveries that cannot have one."""
        async with self._database.transaction() as connection:
            if bodies:
                rows = [(b.day, b.event_id, b.body_key, b.bytes) for b in bodies]
                await connection.execute(PLAN_FOR_VALUES)
                await connection.execute(_KEEP, *columns(rows, 4))
            for body in bodies:
                if body.warnings:
                    await connection.execute(_WARN, uuid_of(body.delivery_id), list(body.warnings))
            if unencodable:
                await connection.execute(_CANCEL, uuids_of(unencodable))


async def load_body(connection: "Reach", delivery: "DeliveryDetail") -> bytes | None:
    """Return the bytes that every attempt of a delivery sends; None: none were made."""
    body: bytes | None = await connection.fetchval(
        _BODY_LOAD,
        delivery.day,
        delivery.event_id,
        delivery.endpoint_id,
        delivery.attempt_count > 0,
    )
    return body
