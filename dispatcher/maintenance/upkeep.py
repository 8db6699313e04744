"""Upkeep: partitions ahead and dropped, ids forgotten when they may be, deliveries cancelled that will never be sent.

Every replica runs it; each step is a short statement over a slice, with rows that others hold
skipped, so that two of them do no harm to each other and none holds a lock that delivery waits for.
"""

import asyncio
from typing import Protocol

import structlog

from dispatcher.core.errors import SchemaError, StoreUnavailableError
from dispatcher.core.model import EndpointId
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage

_log = structlog.get_logger("dispatcher.maintenance.upkeep")

SECONDS_BETWEEN = 30.0
SLICE_ROWS_MAX = 1000


class EndsDeliveries(Protocol):
    """The deliveries' store, as upkeep sees it."""

    async def endpoints_with_nothing_to_send(self) -> list[tuple[EndpointId, str]]:
        """Return endpoints whose waiting deliveries are to be cancelled."""
        ...

    async def cancel_of_endpoints(
        self, endpoints: list[tuple[EndpointId, str]], rows_max: int
    ) -> int:
        """Cancels a slice of them."""
        ...

    async def cancel_held(self, hold_seconds: float, rows_max: int) -> int:
        """Cancels a slice of what was held too long."""
        ...


class ForgetsIds(Protocol):
    """The outbox, as upkeep sees it."""

    async def forget_tombstones(self, days: int, rows_max: int) -> int:
        """Delete a slice of old ids."""
        ...


class MakesPartitions(Protocol):
    """The schema, as upkeep sees it."""

    async def make_partitions(self, days_ahead: int) -> int:
        """Create the missing partitions."""
        ...

    async def sweep_replicas(self) -> None:
        """Delete replicas whose lease ended long ago."""
        ...


class ForgetsTraffic(Protocol):
    """The statistics, as upkeep sees them."""

    async def forget(self, days: int, rows_max: int) -> int:
        """Delete a slice of old counts."""
        ...


class DeletesJobs(Protocol):
    """The jobs, as upkeep uses them."""

    async def forget(self, days: int, rows_max: int) -> int:
        """Delete a slice of the jobs that ended long ago."""
        ...


class EndsHistory(Protocol):
    """Retention, as upkeep sees it."""

    async def round_if_due(self) -> None:
        """Run a round if one is due."""
        ...

    def stop(self) -> None:
        """Stop the round after its present step."""
        ...


class Upkeep:
    """One loop; `soon` makes it go round at once."""

    def __init__(
        self,
        deliveries: EndsDeliveries,
        outbox: ForgetsIds,
        schema: MakesPartitions,
        retention: EndsHistory,
        statistics: ForgetsTraffic,
        jobs: DeletesJobs,
        *,
        hold_seconds: float,
        idempotency_days: int,
        history_days: int,
        partitions_ahead_days: int,
    ) -> None:
        self._deliveries = deliveries
        self._outbox = outbox
        self._schema = schema
        self._retention = retention
        self._statistics = statistics
        self._jobs = jobs
        self._hold_seconds = hold_seconds
        self._idempotency_days = idempotency_days
        self._history_days = history_days
        self._partitions_ahead_days = partitions_ahead_days
        self._woken = asyncio.Event()
        self._stopping = False
        self._outage = Outage(_log, "upkeep.stalled", "upkeep.resumed")
        self._partitions_outage = Outage(_log, "partitions.stalled", "partitions.resumed")

    def soon(self) -> None:
        """Start a round at once: an endpoint changed."""
        self._woken.set()

    def stop(self) -> None:
        """Stop `run` after its present step."""
        self._stopping = True
        self._retention.stop()
        self._woken.set()

    async def run(self) -> None:
        """Run rounds until stopped; a failed step is repeated in the next round."""
        while not self._stopping:
            self._woken.clear()
            try:
                await self._round()
                self._outage.ended()
            except StoreUnavailableError as error:
                self._outage.began(error)
            probe.hit("upkeep.done")
            try:
                async with asyncio.timeout(SECONDS_BETWEEN):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _round(self) -> None:
        await self._make_partitions()
        await self._schema.sweep_replicas()
        endpoints = await self._deliveries.endpoints_with_nothing_to_send()
        if endpoints:
            await self._repeat(
                "deliveries.cancelled",
                lambda: self._deliveries.cancel_of_endpoints(endpoints, SLICE_ROWS_MAX),
            )
        await self._repeat(
            "deliveries.hold_expired",
            lambda: self._deliveries.cancel_held(self._hold_seconds, SLICE_ROWS_MAX),
        )
        await self._repeat(
            "outbox.ids_deleted",
            lambda: self._outbox.forget_tombstones(self._idempotency_days, SLICE_ROWS_MAX),
        )
        await self._repeat(
            "traffic.deleted", lambda: self._statistics.forget(self._history_days, SLICE_ROWS_MAX)
        )
        await self._repeat(
            "jobs.deleted", lambda: self._jobs.forget(self._history_days, SLICE_ROWS_MAX)
        )
        await self._retention.round_if_due()

    async def _make_partitions(self) -> None:
        """Make the days ahead; a refusal (a DDL freeze) keeps nothing else of a round from being done."""
        try:
            made = await self._schema.make_partitions(self._partitions_ahead_days)
        except (SchemaError, StoreUnavailableError) as error:
            self._partitions_outage.began(error)
            return
        self._partitions_outage.ended()
        if made:
            _log.info("partitions.created", count=made)

    async def _repeat(self, event_name: str, step: "UpkeepStep") -> None:
        """Repeat a step until its slice is not full."""
        total = 0
        while not self._stopping:
            count = await step()
            total += count
            if count < SLICE_ROWS_MAX:
                break
        if total:
            _log.info(event_name, count=total)


class UpkeepStep(Protocol):
    """One slice; return how many rows it took."""

    async def __call__(self) -> int:
        """Process one slice."""
        ...
