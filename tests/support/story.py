"""Deliveries and events put into the database as fan-out and recorder would, for tests of operations."""

from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.admin.operations.deployment import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.core import ids

ALL = Actor(name="cli:tester")
ACME = Actor(name="cli:acme", tenant="acme")
KEY = "k1:" + "QUJD" * 10 + "QUI="


class Story:
    """Makes deliveries as fan-out and recorder would, each a second younger than the one before."""

    def __init__(self, deployment: Deployment, connection: Any) -> None:
        self._deployment = deployment
        self._connection = connection
        self._count = 0
        self.now = datetime.now(UTC)  # noqa: TID251 -- partitions are those of today

    async def endpoint(self, name: str = "erp", **fields: Any) -> str:
        given = {"name": name, "url": "https://example.com/", "event_types": ["order.*"]} | fields
        return str((await Endpoints(self._deployment).create(ALL, given))["id"])

    async def event(
        self, event_id: str, *, labels: str = "{}", event_type: str = "order.created"
    ) -> None:
        await self._connection.execute(
            "INSERT INTO dispatcher.event VALUES ($1, $2, $3, 'default', '{}', $4, NULL, $5, NULL, $4, $4)",
            self.now.date(),
            event_id,
            event_type,
            self.now,
            labels,
        )  # fmt: skip -- the table's order

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
        """Makes a delivery, and its body where that is still missing."""
        self._count += 1
        await self.body(event_id, profile)
        at = self.now - timedelta(seconds=100 - self._count)
        unix_ms = ids.delivery_unix_ms(at, self.now.date()) + self._count
        delivery_id = ids.delivery_id(unix_ms, event_id, endpoint_id)
        values = [delivery_id, self.now.date(), event_id, endpoint_id, state, at, profile]
        if state in {"pending", "retrying"}:
            await self._connection.execute(
                "INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile,"
                " state, attempt_count, schedule_position, next_attempt_at, created_at) VALUES"
                " ($1, $2, $3, $4, 'order.created', 'default', $7, $5, $8, $8, $6, $6)",
                *values,
                int(state == "retrying"),
            )  # fmt: skip -- the statement's order
        else:
            await self._connection.execute(
                "INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_id, event_type, tenant, profile,"
                " state, reason, attempt_count, schedule_position, created_at, finished_at) VALUES"
                " ($1, $2, $3, $4, 'order.created', 'default', $7, $5, $8, 1, 1, $6, $6)",
                *values,
                None if state == "succeeded" else "schedule_spent",
            )  # fmt: skip -- the statement's order
        return str(delivery_id)
