"""The live tail: attempts as they are recorded, from one shared poll per second for all viewers.

    attempts' partitions ── poll, every second while there are viewers ──▶ each viewer's queue ──▶ next()

Invariants: without viewers there are no queries. With viewers, Postgres is polled once per second,
regardless of their number. A viewer's queue has at most `QUEUE_MAX` items; the oldest excess items are
dropped and counted (`dropped_count`). A viewer sees only its own tenant's deliveries. A poll reads at
most the newest `POLL_ROWS_MAX` attempts of a partition, so that on a busy system the tail is a sample and
is marked as one (`is_sample`). While Postgres is unavailable the tail is silent, and it resumes
afterwards. The tail shows attempts, so a delivery that waits without one (paused, rate-limited) is not
in it.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, timedelta
from typing import Final, NamedTuple

import structlog

from dispatcher.admin.operations.context import Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.delivery_filter import with_endpoint_id
from dispatcher.admin.operations.objects import attempt_of, delivery_of
from dispatcher.admin.resources.delivery import DeliveriesQuery, RecordedAttempt
from dispatcher.core.errors import DataFaultError, StoreUnavailableError, TooManyError
from dispatcher.core.matching import EVERYTHING, type_fits
from dispatcher.core.problems import problem
from dispatcher.core.response_classes import class_codes, is_wanted
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage
from dispatcher.store.delivery_details import NewAttempt, read_tail_attempts
from dispatcher.store.partitions import TailDay, read_tail_days

_log = structlog.get_logger("dispatcher.admin.tail")

VIEWERS_MAX: Final = 50
QUEUE_MAX: Final = 500
POLL_ROWS_MAX: Final = 200
POLL_SECONDS: Final = 1.0
SLACK_PAGES: Final = 64
"""Pages before the previous end that are read again, because two recorders fill pages out of order."""
BACK_SECONDS: Final = 20.0
"""Attempts older than this are not shown as new."""
DAYS_ALWAYS: Final = 3
"""The newest days are read in each poll, older ones only if their counter of rows has changed."""
SEEN_MAX: Final = 20_000


class Batch(NamedTuple):
    """The attempts since the previous batch."""

    items: list[RecordedAttempt]
    """The oldest attempt first."""
    dropped_count: int
    """Items before these that were dropped."""
    is_sample: bool
    """More attempts were recorded than a poll reads."""


class Viewer:
    """One viewer of the tail; `next` waits for new attempts."""

    def __init__(self, tenant: str | None, wanted: DeliveriesQuery, *, bodies: bool) -> None:
        self._tenant = tenant
        self._wanted = wanted
        self._states = None if wanted.state is None else wanted.state.split(",")
        classes = None if wanted.response is None else wanted.response.split(",")
        self._responses = None if classes is None else class_codes(classes)
        self._bodies = bodies
        self._items: deque[RecordedAttempt] = deque()
        self._dropped_count = 0
        self._is_sample = False
        self._filled = asyncio.Event()

    def wants(self, new: NewAttempt) -> bool:
        """Return whether the delivery of this attempt is for this viewer, whatever the attempt came to."""
        delivery, wanted = new.delivery, self._wanted
        return (
            (self._tenant is None or delivery.tenant == self._tenant)
            and wanted.endpoint_id in {None, delivery.endpoint_id}
            and wanted.event_id in {None, delivery.event_id}
            and wanted.test in {None, delivery.test}
            and type_fits(wanted.event_type or EVERYTHING, delivery.event_type)
            and set((wanted.label or {}).items()) <= set(delivery.labels.items())
            and (wanted.since is None or delivery.created_at >= wanted.since)
            and (wanted.until is None or delivery.created_at < wanted.until)
        )

    def fits(self, item: RecordedAttempt) -> bool:
        """Return whether the delivery has a state and a last response of the filter after this attempt."""
        delivery, attempt = item.delivery, item.attempt
        if self._states is not None and delivery.state not in self._states:
            return False
        return self._responses is None or is_wanted(
            self._responses, delivery.state, attempt.outcome, attempt.response_code
        )

    def put(self, item: RecordedAttempt) -> None:
        """Add an item, without its response body for the role VIEWER; a full queue drops its oldest item.

        An item that does not fit is kept as well, because a list may show its delivery from before.
        """
        if not self.fits(item):
            item = replace(item, fits=False)
        if not self._bodies:
            item = replace(
                item, attempt=replace(item.attempt, response_body=None, response_headers=[])
            )
        if len(self._items) >= QUEUE_MAX:
            self._items.popleft()
            self._dropped_count += 1
        self._items.append(item)
        self._filled.set()

    def sample(self) -> None:
        """Mark the next batch as a sample, because the poll did not read all attempts."""
        self._is_sample = True

    async def next(self, timeout_seconds: float) -> Batch:
        """Return the new attempts; an empty batch after `timeout_seconds` without any."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._filled.wait()
        except TimeoutError:
            pass
        batch = Batch(list(self._items), self._dropped_count, self._is_sample)
        self._items.clear()
        self._dropped_count, self._is_sample = 0, False
        self._filled.clear()
        return batch


class Tail:
    """The poll and its viewers; on one event loop. `run` is the poll's task."""

    def __init__(self, deployment: Deployment) -> None:
        self._database = deployment.database
        self._clock = deployment.clock
        self._viewers: set[Viewer] = set()
        self._watched = asyncio.Event()
        self._outage = Outage(_log, "tail.stalled", "tail.resumed")
        self._days: dict[tuple[str, date], TailDay] = {}
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()

    @asynccontextmanager
    async def watch(
        self,
        actor: Actor,
        wanted: DeliveriesQuery = DeliveriesQuery(),  # noqa: B008 -- frozen
    ) -> AsyncIterator[Viewer]:
        """Yield a viewer of the attempts of a filter that are recorded from now on.

        A text (`q`) and a request id are not compared: they need a look at the event.

        Raises:
            NotFoundError: the tenant is not the actor's, or no endpoint has the name. TooManyError: too many
            watch already.
        """
        tenant = allowed_tenant(actor, wanted.tenant)
        if wanted.endpoint_id is not None:
            async with self._database.reading() as connection:
                wanted = await with_endpoint_id(connection, tenant, wanted)
        viewer = Viewer(tenant, wanted, bodies=actor.may(Role.OPERATOR))
        if len(self._viewers) >= VIEWERS_MAX:
            raise TooManyError(problem("tail", "too_many_viewers", maximum=VIEWERS_MAX))
        self._viewers.add(viewer)
        self._watched.set()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._watched.clear()

    async def run(self) -> None:
        """Poll while there are viewers, until cancelled."""
        while True:
            if not self._viewers:
                self._days.clear()
                await self._watched.wait()
            try:
                await self._poll()
                self._outage.ended()
            except (StoreUnavailableError, DataFaultError) as error:
                self._outage.began(error)
            probe.hit("tail.polled")
            await asyncio.sleep(POLL_SECONDS)

    async def _poll(self) -> None:
        """Read the new attempts; the first poll after a pause only records the ends of the partitions."""
        since = self._clock.now() - timedelta(seconds=BACK_SECONDS)
        async with self._database.reading() as connection:
            days = await read_tail_days(connection)
            new: list[NewAttempt] = []
            always = self._clock.now().date() - timedelta(days=DAYS_ALWAYS - 1)
            for row in days:
                before = self._days.get((row.table, row.day), row)
                if row.day >= always or row.inserted_count != before.inserted_count:
                    page = max(0, before.pages - SLACK_PAGES)
                    new += await read_tail_attempts(
                        connection, row.table, row.day, page, since, POLL_ROWS_MAX
                    )
        is_first = not self._days
        self._days = {(row.table, row.day): row for row in days}
        unseen = self._unseen(new)
        if not is_first:
            self._give_out(unseen)

    def _unseen(self, new: list[NewAttempt]) -> list[NewAttempt]:
        """Return the attempts that no earlier poll has read, oldest first."""
        unseen = [one for one in new if _key(one) not in self._seen]
        self._seen.update(dict.fromkeys(map(_key, unseen)))
        while len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
        return sorted(unseen, key=lambda one: one.attempt.attempted_at)

    def _give_out(self, new: list[NewAttempt]) -> None:
        if len(new) >= POLL_ROWS_MAX:
            for viewer in self._viewers:
                viewer.sample()
        for one in new:
            item = RecordedAttempt(
                delivery=delivery_of(one.delivery), attempt=attempt_of(one.attempt, bodies=True)
            )
            for viewer in self._viewers:
                if viewer.wants(one):
                    viewer.put(item)


def _key(one: NewAttempt) -> tuple[str, int]:
    return one.delivery.id, one.attempt.attempt_number
