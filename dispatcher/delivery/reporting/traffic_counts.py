"""Counts the outcomes of attempts, and writes the counts to Postgres every few seconds.

    outcomes ── add_all ▶ counts, per endpoint ── every 5 s, one statement ──▶ traffic (an hour and subject)
                              └─ of endpoints that failed in the last minutes ─▶ endpoint_recent (a minute)
    lanes ── present state in memory ───────── when it changed ───────────▶ endpoint_breaker, replica_figures

Invariants: `add_all` is some increments (0.4 µs each) and never waits. Delivery does not read the rows written
here. While Postgres is unavailable, counts are kept (one entry per endpoint, therefore bounded) and
added later. A crash loses the counts of the last seconds. A COMMIT without a response may add the counts
of one flush twice, or (on shutdown) not at all. Statistics tolerate that, and a second record of every
attempt would cost as much as the first one.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

import structlog

from dispatcher.core import histogram
from dispatcher.core.breaker import BreakerState
from dispatcher.core.errors import BatchRefusedError, StoreUnavailableError
from dispatcher.core.failing import SHARE_SECONDS
from dispatcher.core.model import DeliveryState, EndpointId, Outcome
from dispatcher.delivery.ports import StatisticsStore
from dispatcher.delivery.types import AttemptResult
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage
from dispatcher.runtime.clock import Clock
from dispatcher.store.statistics import BreakerRow, RecentRow, TrafficRow, tenant_subject

_log = structlog.get_logger("dispatcher.delivery.reporting.traffic_counts")

FLUSH_SECONDS: Final = 5.0
PROMPTED_SECONDS_MIN: Final = 0.5
"""Minimum interval of prompted flushes, because any role can notify as often as it likes."""
FIGURES_SECONDS_MAX: Final = 30.0
"""Unchanged figures are published again after this time, to show that their replica is alive."""
ERROR_CHARACTERS_MAX: Final = 300

OK, REFUSED, TIMED_OUT, UNREACHABLE = range(4)
NONE: Final = (None, None)
GROUPS: Final[Mapping[Outcome, int]] = {
    Outcome.OK: OK,
    Outcome.HTTP_ERROR: REFUSED,
    Outcome.GONE: REFUSED,
    Outcome.THROTTLED: REFUSED,
    Outcome.TIMEOUT: TIMED_OUT,
    Outcome.CONNECT_ERROR: UNREACHABLE,
    Outcome.DNS_ERROR: UNREACHABLE,
    Outcome.TLS_ERROR: UNREACHABLE,
    Outcome.PROTOCOL_ERROR: UNREACHABLE,
    Outcome.BLOCKED_ADDRESS: UNREACHABLE,
}


OpenBreakers = Mapping[EndpointId, tuple[BreakerState, float | None]]
"""The breakers that are not closed: state, and the monotonic time of the next probe (None: under way)."""


class Counts:
    """The outcomes of one endpoint's attempts since the last flush; only `TrafficCounts` writes them."""

    __slots__ = (
        "failed_count",
        "groups",
        "last_at",
        "last_failure",
        "last_response",
        "latency",
        "succeeded_count",
        "tenant",
    )

    def __init__(self, first: AttemptResult) -> None:
        self.tenant = first.endpoint.tenant
        self.groups = [0, 0, 0, 0]
        self.latency = [0] * histogram.COUNTS
        self.succeeded_count = 0
        self.failed_count = 0
        # Not the result itself, because its delivery holds the body: up to a mebibyte per endpoint
        # would stay in memory.
        self.last_at = first.attempted_at
        self.last_response = first.response
        self.last_failure: tuple[str, int | None] | None = None


class TrafficCounts:
    """Collects the counts and writes them periodically; all on the event loop's thread."""

    def __init__(
        self,
        store: StatisticsStore,
        *,
        incarnation: str,
        breakers: Callable[[], OpenBreakers],
        figures: Callable[[], dict[str, object]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._incarnation = incarnation
        self._breakers = breakers
        self._figures = figures
        self.tested: Callable[[EndpointId], object] = lambda _: None
        """Called with an endpoint whose breaker is open and for which a test event has succeeded."""
        self._clock = clock
        self._counts: dict[EndpointId, Counts] = {}
        self._failed_at: dict[EndpointId, float] = {}
        """When each endpoint that failed in the last minutes failed last; only those are written by minute."""
        self._published: OpenBreakers = {}
        self._shown: dict[str, object] = {}
        self._shown_at = float("-inf")
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._outage = Outage(_log, "traffic.stalled", "traffic.resumed")
        self.ended = asyncio.Event()
        """Set once `run` has made its last flush."""

    def add_all(self, results: Sequence[AttemptResult]) -> None:
        """Count committed attempts."""
        counts_of, place = self._counts, histogram.place
        for result in results:
            endpoint_id = result.endpoint.id
            counts = counts_of.get(endpoint_id)
            if counts is None:
                counts = counts_of[endpoint_id] = Counts(result)
            response = result.response
            group = GROUPS[response.outcome]
            counts.groups[group] += 1
            if group:
                counts.last_failure = (response.outcome, response.status)
            counts.latency[place(result.latency_seconds)] += 1
            counts.last_at = result.attempted_at
            counts.last_response = response
            state = result.decision.state
            if state is not result.delivery.state:
                if state is DeliveryState.SUCCEEDED:
                    counts.succeeded_count += 1
                elif state is DeliveryState.FAILED:
                    counts.failed_count += 1

    def stop(self) -> None:
        """Let `run` end after a last flush."""
        self._is_stopping = True
        self._woken.set()

    def poll_now(self) -> None:
        """Flush soon, because a test event may have succeeded. A hint; the next flush reads it anyway."""
        self._woken.set()

    async def run(self) -> None:
        """Flush every few seconds until stopped; retry a failed flush the next time."""
        try:
            stopping = False
            flushed_at = float("-inf")
            while not stopping:
                try:
                    async with asyncio.timeout(FLUSH_SECONDS):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                early_seconds = flushed_at + PROMPTED_SECONDS_MIN - self._clock.monotonic()
                if early_seconds > 0 and not self._is_stopping:
                    await asyncio.sleep(early_seconds)
                self._woken.clear()
                stopping = self._is_stopping
                flushed_at = self._clock.monotonic()
                try:
                    await self.flush()
                    self._outage.ended()
                except StoreUnavailableError as error:
                    self._outage.began(error)
                except BatchRefusedError as error:
                    _log.error("traffic.rejected", error=str(error))
        finally:
            self.ended.set()

    async def flush(self) -> None:
        """Write the counts, and the breakers and figures that have changed.

        Raises:
            StoreUnavailableError: the counts are kept for the next flush.
            BatchRefusedError: the counts are dropped, because they would be refused again.
        """
        counts, self._counts = self._counts, {}
        if counts:
            try:
                await self._store.add(rows_of(counts))
            except StoreUnavailableError:
                self._keep(counts)
                raise
        recent = self._recent(counts)
        if recent:
            await self._store.add_recent(recent)
        if self._published:
            for endpoint_id in await self._store.take_tested(self._incarnation):
                self.tested(endpoint_id)
        breakers, figures, now = self._breakers(), self._figures(), self._clock.monotonic()
        if breakers != self._published:
            rows = [
                BreakerRow(i, state, None if probe_at is None else probe_at - now)
                for i, (state, probe_at) in sorted(breakers.items())
            ]
            await self._store.publish_breakers(self._incarnation, rows)
            self._published = breakers
        if figures != self._shown or now - self._shown_at >= FIGURES_SECONDS_MAX:
            await self._store.publish_figures(self._incarnation, figures)
            self._shown, self._shown_at = figures, now
        probe.hit("traffic.flushed")

    def _recent(self, counts: Mapping[EndpointId, Counts]) -> list[RecentRow]:
        """Return the counts of endpoints that failed in the last minutes, sorted by endpoint."""
        now = self._clock.monotonic()
        for endpoint_id, one in counts.items():
            if one.last_failure is not None:
                self._failed_at[endpoint_id] = now
        if not self._failed_at:
            return []
        for endpoint_id in [i for i, at in self._failed_at.items() if at <= now - SHARE_SECONDS]:
            del self._failed_at[endpoint_id]
        return sorted(
            RecentRow(i, one.groups[OK], sum(one.groups[OK + 1 :]), *(one.last_failure or NONE))
            for i, one in counts.items()
            if i in self._failed_at
        )

    def _keep(self, counts: Mapping[EndpointId, Counts]) -> None:
        """Merge counts that were not written into those counted meanwhile."""
        for endpoint_id, had in counts.items():
            now = self._counts.setdefault(endpoint_id, had)
            if now is not had:
                merge(now, had)


def merge(into: Counts, more: Counts) -> None:
    """Add the counts of `more` to `into`, which keeps its own last attempt."""
    into.groups = [a + b for a, b in zip(into.groups, more.groups, strict=True)]
    into.latency = [a + b for a, b in zip(into.latency, more.latency, strict=True)]
    into.succeeded_count += more.succeeded_count
    into.failed_count += more.failed_count
    into.last_failure = into.last_failure or more.last_failure


def rows_of(counts: Mapping[EndpointId, Counts]) -> list[TrafficRow]:
    """Return the rows to add, per endpoint, per tenant and in total, sorted by subject."""
    by_tenant: dict[str | None, list[Counts]] = {None: list(counts.values())}
    for one in counts.values():
        by_tenant.setdefault(one.tenant, []).append(one)
    rows = [_row(endpoint_id, [one]) for endpoint_id, one in counts.items()]
    rows += [_row(tenant_subject(tenant), many) for tenant, many in by_tenant.items()]
    return sorted(rows)


def _row(subject: str, many: Sequence[Counts]) -> TrafficRow:
    groups = [sum(values) for values in zip(*(one.groups for one in many), strict=True)]
    latency = _array_text(histogram.add_up(one.latency for one in many))
    last = max(many, key=_last_at)
    response = last.last_response
    return TrafficRow(
        subject,
        groups[OK],
        groups[REFUSED],
        groups[TIMED_OUT],
        groups[UNREACHABLE],
        sum(one.succeeded_count for one in many),
        sum(one.failed_count for one in many),
        latency,
        last.last_at,
        response.outcome,
        response.status,
        None if response.error is None else _storable(response.error),
    )


def _storable(text: str) -> str:
    """Return a receiver's text as Postgres can store it: valid UTF-8 without NUL, shortened."""
    whole = text.encode("utf-8", "replace").decode()
    return whole.replace("\0", "\N{REPLACEMENT CHARACTER}")[:ERROR_CHARACTERS_MAX]


def _last_at(counts: Counts) -> datetime:
    return counts.last_at


def _array_text(counts: Iterable[int]) -> str:
    return "{" + ",".join(map(str, counts)) + "}"
