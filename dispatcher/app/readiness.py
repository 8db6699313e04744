"""Whether a replica is ready: what its probe, its supervisor and the watchdog of systemd see.

A replica that is not ready keeps running: load balancers leave it out, and it is ready again by itself.
"""

import asyncio

from dispatcher.app.start import Role
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.delivery.pipeline import Pipeline
from dispatcher.runtime.clock import Clock
from dispatcher.store.schema import Schema

TURNED_SECONDS_MAX = 20.0
"""If intake makes no turn for longer, the replica is not ready and the watchdog is no longer notified."""
REFUSED_SECONDS_MAX = 1.0
"""If Postgres rejects a stage for longer, the replica is not ready; a deadlock or a short lock ends sooner."""


class Readiness:
    """The readiness of one replica."""

    def __init__(
        self, schema: Schema, pipeline: Pipeline, role: Role, clock: Clock, draining: asyncio.Event
    ) -> None:
        self._schema = schema
        self._pipeline = pipeline
        self._role = role
        self._clock = clock
        self._draining = draining
        self.schema_fits = False
        """Whether the database has been reached and its schema fits."""

    async def problems(self) -> list[str]:
        """Return human-readable reasons why this replica is not ready."""
        if self._draining.is_set():
            return ["draining"]
        intake = self._pipeline.intake
        problems = []
        if not self.schema_fits:
            problems.append("the database has not been reached yet")
        elif self._role is Role.API:
            pass  # it claims no events
        elif not intake.is_alive(TURNED_SECONDS_MAX):
            problems.append("intake has made no turn recently")
        elif not intake.reads_outbox(TURNED_SECONDS_MAX):
            problems.append("the outbox cannot be read: see intake.stalled in the log")
        elif refused := self._pipeline.refused(self._clock.monotonic(), REFUSED_SECONDS_MAX):
            problems.append(f"Postgres rejects statements: see {', '.join(refused)} in the log")
        if not await self._schema.is_writable():
            problems.append("the database cannot be written to")
        elif self.schema_fits and self._role is not Role.API:
            problems += await _partition_problems(self._schema)
        return problems

    def turns(self) -> bool:
        """Return whether the watchdog may be notified: before intake has begun, and while it turns."""
        has_begun = self.schema_fits and self._role is not Role.API
        return not has_begun or self._pipeline.intake.is_alive(TURNED_SECONDS_MAX)


async def _partition_problems(schema: Schema) -> list[str]:
    """Return today's missing partitions, without which no event can be fanned out."""
    try:
        missing = await schema.missing_partitions(0)
    except StoreUnavailableError as error:
        return [f"partitions cannot be read: {error}"]
    return [
        f"today's partition of {one.table} is missing ({one.day}); run: dispatcher migrate"
        for one in missing
        if one.days_from_today == 0
    ]
