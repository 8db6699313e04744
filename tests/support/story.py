"""Deliveries and events put into the database as fan-out and recorder would, for tests of operations."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.core import ids
from tests.support.endpoints import create_endpoint

ALL = Actor(name="cli:tester")
ACME = Actor(name="cli:acme", tenant="acme")
KEY = "k1:" + "QUJD" * 10 + "QUI="


class Story:
    """Makes deliveries as fan-out and recorder would, each a second younger than the one before.

    Just after midnight they are closer together, since the day is that of their partitions.
    """

    def __init__(self, deployment: Deployment, connection: Any) -> None:
        self._deployment = deployment
        self._connection = connection
        self._count = 0
        now = datetime.now(UTC)  # noqa: TID251 -- partitions are those of today
        self.now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        """In whole milliseconds, as ids and `created_at` have them."""

    async def endpoint(self, name: str = "erp", **fields: Any) -> str:
        given = {
            "name": name,
            "url": "https://example.com/",
            "event_types": ["order.*"],
            "profile": "standard",
        } | fields
        return str((await create_endpoint(Endpoints(self._deployment), ALL, given)).id)

    async def event(
        self, event_id: str, *, labels: str = "{}", event_type: str = "order.created"
    ) -> None:
        await self._connection.execute(
            "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at,"
            " accepted_at) VALUES ($1, $2, $3, 'default', '{}', $4, $5, $4, $4)"
            " ON CONFLICT (day, id) DO UPDATE SET type = $3, labels = $5",
            self.now.date(),
            event_id,
            event_type,
            self.now,
            labels,
        )

    async def body(self, event_id: str, profile: str) -> None:
        await self._connection.execute(
            "INSERT INTO dispatcher.body VALUES ($1, $2, $3, '{}') ON CONFLICT DO NOTHING",
            self.now.date(),
            event_id,
            profile,
        )

    async def delivery(
        self, endpoint_id: str, event_id: str, state: str = "pending", profile: str = "standard"
    ) -> str:
        """Makes a delivery, and its event and body where these are missing."""
        self._count += 1
        await self._connection.execute(
            "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, inserted_at, accepted_at)"
            " VALUES ($1, $2, 'order.created', 'default', '{}', $3, $3, $3) ON CONFLICT DO NOTHING",
            self.now.date(),
            event_id,
            self.now,
        )
        await self.body(event_id, profile)
        midnight = datetime.combine(self.now.date(), time(), UTC)
        first = max(self.now - timedelta(seconds=100), midnight)
        at = first + (self.now - first) * self._count / 100
        # The ids of one event share its time; the stories tell deliveries of events that came one by one.
        await self._connection.execute(
            "UPDATE dispatcher.event SET inserted_at = $3 WHERE day = $1 AND id = $2"
            " AND NOT EXISTS (SELECT FROM dispatcher.delivery_row WHERE event_id = $2)",
            self.now.date(),
            event_id,
            at,
        )
        inserted_at = await self._connection.fetchval(
            "SELECT inserted_at FROM dispatcher.event WHERE day = $1 AND id = $2",
            self.now.date(),
            event_id,
        )
        unix_ms = ids.delivery_unix_ms(inserted_at, self.now.date())
        delivery_id = ids.delivery_id(unix_ms, event_id, endpoint_id)
        values = [delivery_id, self.now.date(), event_id, endpoint_id, state, at, profile]
        if state in {"pending", "retrying"}:
            await self._connection.execute(
                "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile,"
                " state, attempt_count, schedule_position, next_attempt_at, created_at) VALUES"
                " ($1, $2, $3, $4, 'order.created', 'default', $7, $5, $8, $8, $6, $6)",
                *values,
                int(state == "retrying"),
            )  # fmt: skip -- the statement's order
        else:
            await self._connection.execute(
                "INSERT INTO words.delivery_done (id, day, event_id, endpoint_id, event_type, tenant, profile,"
                " state, reason, attempt_count, schedule_position, created_at, finished_at) VALUES"
                " ($1, $2, $3, $4, 'order.created', 'default', $7, $5, $8, 1, 1, $6, $6)",
                *values,
                None if state == "succeeded" else "schedule_spent",
            )  # fmt: skip -- the statement's order
        return str(delivery_id)
