"""Upkeep: partitions ahead and dropped, ids forgotten when they may be, deliveries cancelled that will never be sent.

Every replica runs it; each step is a short statement over a slice, with rows that others hold
skipped, so that two of them do no harm to each other and none holds a lock that delivery waits for.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from dispatcher.core.errors import SchemaError, StoreUnavailableError
from dispatcher.maintenance.retention import Retention
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.jobs import Jobs
from dispatcher.store.outbox import Outbox
from dispatcher.store.schema import Schema
from dispatcher.store.statistics import Statistics

_log = structlog.get_logger("dispatcher.maintenance.upkeep")

SECONDS_BETWEEN = 30.0
SLICE_ROWS_MAX = 1000


class Upkeep:
    """One loop; `soon` makes it go round at once."""

    def __init__(
        self,
        deliveries: Deliveries,
        outbox: Outbox,
        schema: Schema,
        retention: Retention,
        statistics: Statistics,
        jobs: Jobs,
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

    async def _repeat(self, event_name: str, step: Callable[[], Awaitable[int]]) -> None:
        """Repeat a step, which processes a slice and returns its rows, until a slice is not full."""
        total = 0
        while not self._stopping:
            count = await step()
            total += count
            if count < SLICE_ROWS_MAX:
                break
        if total:
            _log.info(event_name, count=total)
