"""An endpoint whose deliveries are fetched over the API, and a client of it."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from dispatcher.core import ids
from dispatcher.store.delivery_ids import uuid_of
from tests.admin.serving import ALL, Api
from tests.support.endpoints import create_endpoint


class Pulled:
    """A pulled endpoint with a secret, and deliveries that fan-out has written for it."""

    def __init__(self, api: Api, sql: asyncpg.Connection, endpoint: Any) -> None:
        self.api = api
        self.sql = sql
        self.id = endpoint.id
        self.secret = endpoint.secret
        self.path = f"/endpoints/{endpoint.id}/poll"
        self._count = 0

    async def add(self, count: int = 1, *, key: str | None = None) -> list[str]:
        """Write deliveries that are due, and return their ids; with a key they stand in its line."""
        made: list[str] = []
        now = datetime.now(UTC)  # noqa: TID251 -- rows of today have a partition
        for _ in range(count):
            self._count += 1
            event = f"evt-{self._count}"
            delivery = ids.delivery_id(ids.delivery_unix_ms(now, now.date()), event, self.id)
            body = orjson.dumps({"type": "order.created", "data": {"n": self._count}})
            await self.sql.execute(
                "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, labels, inserted_at,"
                " accepted_at, profile, bytes)"
                " VALUES ($1, $2, 'order.created', 'acme', '{}', $3, '{}', $3, $3, 'standard', $4)",
                now.date(), event, now, body,
            )  # fmt: skip
            await self.sql.execute(
                "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile)"
                " VALUES ($1, $2, $3, $4, 'order.created', 'acme', 'standard')",
                delivery, now.date(), event, self.id,
            )  # fmt: skip
            if key is not None:
                await self.place(delivery, key, self._count)
            made.append(delivery)
        return made

    async def place(self, delivery: str, key: str, position: int) -> None:
        """Put a delivery in the line of a key."""
        await self.sql.execute(
            "UPDATE dispatcher.delivery_open SET order_key = dispatcher.order_key($2), position = $3"
            " WHERE id = $1", uuid_of(delivery), key, position,
        )  # fmt: skip

    async def poll(self, query: str = "") -> list[dict[str, Any]]:
        reply = await self.api.ask("GET", f"{self.path}?{query}")
        assert reply.status == 200, reply.raw
        return list(reply.json["items"])

    async def settle(self, *results: dict[str, Any]) -> list[str]:
        reply = await self.api.ask("POST", self.path, {"results": results})
        assert reply.status == 200, reply.raw
        return [one["status"] for one in reply.json["items"]]

    async def shown(self, delivery: str) -> Any:
        return (await self.api.ask("GET", f"/deliveries/{delivery}")).json

    async def end_leases(self) -> None:
        """Let every lease have expired, and be recorded."""
        await self.let_leases_expire()
        await self.api.operations.pull._results.expire()

    async def let_leases_expire(self) -> None:
        await self.sql.execute(
            "UPDATE dispatcher.pull_lease SET leased_until = now() - interval '1 second'"
        )
        await self.sql.execute("UPDATE dispatcher.delivery_open SET next_attempt_at = now()")

    async def make_due(self) -> None:
        await self.sql.execute("UPDATE dispatcher.delivery_open SET next_attempt_at = now()")


async def pulled_endpoint(api: Api, sql: asyncpg.Connection, **fields: Any) -> Pulled:
    """Create an endpoint with `delivery: pull`."""
    endpoint = await create_endpoint(
        api.operations.endpoints,
        ALL,
        {
            "name": "behind", "tenant": "acme", "event_types": ["*"], "profile": "standard",
            "delivery": "pull", "retry_schedule_seconds": [60], "headers": {"X-Api-Key": "k"},
            **fields,
        },
    )  # fmt: skip
    return Pulled(api, sql, endpoint)


def done(item: dict[str, Any], code: int = 200, **more: Any) -> dict[str, Any]:
    """Return the result of a fetched delivery."""
    return {"lease_id": item["lease_id"], "response_code": code, **more}
