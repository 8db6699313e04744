"""Deliveries that receivers fetch, for those that no request from outside can reach.

    poll ──▶ leases (Postgres) ──▶ the receiver ── settle ──▶ pull_results.py

Invariants: the state is in Postgres alone. A poll leases what it returns, so no other poll gets it, whichever replica
serves it. With an order, only the first delivery of a line is leased. At most `POLLS_MAX` polls wait in a process and
`POLLS_PER_ENDPOINT_MAX` per endpoint. A response has about `BYTES_MAX` bytes.

A waiting poll is woken by a notification, by the due time of the next delivery, and after `REREAD_SECONDS_MAX`. A crash
of this process after a claim leaves leases that expire. While Postgres is unavailable a poll fails, and the receiver
tries again.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.pull_results import PullResults
from dispatcher.admin.operations.request_preview import ANY_PORT, FRAMING, request_template
from dispatcher.admin.resources.pull import (
    LeaseResults,
    PollQuery,
    PulledDelivery,
    PulledPage,
    SettledLeases,
)
from dispatcher.admin.resources.serialization import time_text
from dispatcher.config.database_url import UrlSource
from dispatcher.core.errors import ConflictError, EncodingError, TooManyError
from dispatcher.core.model import EndpointState
from dispatcher.core.order import Ordering
from dispatcher.core.problems import problem
from dispatcher.core.request import RequestTemplate
from dispatcher.core.url import canonical_url
from dispatcher.late_bodies import LateBodies
from dispatcher.runtime import probe
from dispatcher.store import endpoints as store
from dispatcher.store.bodies import Bodies
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.pull_leases import FIRST_KEY, LeasedRow, PullLeases
from dispatcher.store.pulled_listener import PulledListener
from dispatcher.store.routing import routed_row
from dispatcher.store.secrets import SealedSecret, load_secrets
from dispatcher.telemetry.metrics import Metrics

_log = structlog.get_logger("dispatcher.admin.pull")

POLLS_MAX: Final = 200
POLLS_PER_ENDPOINT_MAX: Final = 20
CLAIMED_AT_ONCE: Final = 8
"""Deliveries that one statement leases: a body has some 2 MiB at most."""
BYTES_MAX: Final = 4 * 1024 * 1024
"""A poll leases no more once its bodies have as many bytes."""
REREAD_SECONDS: Final = 1.0
"""How often a poll reads again without a connection that listens."""
REREAD_SECONDS_MAX: Final = 5.0
"""How long a poll relies on notifications; a resend that a person requests sends none."""
REREAD_SECONDS_MIN: Final = 0.01
HELD_SECONDS: Final = 0.25
"""When a poll reads again if a due delivery cannot be leased yet: another poll locks it, or an earlier event of its
line is still in the outbox."""


class Pull:
    """Polls of endpoints with `delivery: pull`; `run` and `listen` are tasks of the daemon."""

    def __init__(
        self,
        deployment: Deployment,
        listen_url: str | UrlSource | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Count attempts in `metrics`, if there are any."""
        self._deployment = deployment
        self._database = deployment.database
        self._leases = PullLeases(deployment.database)
        self._results = PullResults(deployment, self._leases, metrics)
        self._bodies = LateBodies(Bodies(deployment.database), deployment.profiles.get)
        self._listener = None if listen_url is None else PulledListener(listen_url, self.wake)
        self._waiting: dict[int, set[asyncio.Event]] = {}
        self._has_polls = asyncio.Event()
        self._swept: dict[int, int] = {}
        """Endpoints with an order whose lines are swept in slices, and the key after which the next slice begins."""

    # --- polls ---

    async def poll(self, actor: Actor, endpoint_id: str, query: PollQuery) -> PulledPage:
        """Lease the next due deliveries of an endpoint and return them; wait for one on request.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such endpoint. ConflictError: it is not pulled, not active,
            or unusable. TooManyError: too many polls wait.
        """
        actor.require(Role.OPERATOR)
        monotonic = self._deployment.clock.monotonic
        ends_at = monotonic() + query.wait_seconds
        turn = await self._turn(actor, endpoint_id, query)
        if turn.items or not query.wait_seconds:
            return PulledPage(items=turn.items)
        number = turn.number
        waiting = self._waiting.setdefault(number, set())
        polls_count = sum(map(len, self._waiting.values()))
        if polls_count >= POLLS_MAX or len(waiting) >= POLLS_PER_ENDPOINT_MAX:
            raise TooManyError(problem("id", "too_many_polls", maximum=POLLS_PER_ENDPOINT_MAX), 1.0)
        woken = asyncio.Event()
        waiting.add(woken)
        self._has_polls.set()
        try:
            while not turn.items and (left := ends_at - monotonic()) > 0:
                pause = min(left, await self._pause(turn))
                try:
                    async with asyncio.timeout(pause):
                        await woken.wait()
                except TimeoutError:
                    pass
                woken.clear()
                # It may have been paused, deleted or signed with another secret meanwhile.
                turn = await self._turn(actor, endpoint_id, query)
        finally:
            waiting.discard(woken)
            if not waiting:
                self._waiting.pop(number, None)
                self._swept.pop(number, None)
            if not self._waiting:
                self._has_polls.clear()
        return PulledPage(items=turn.items)

    async def _turn(self, actor: Actor, endpoint_id: str, query: PollQuery) -> "_Turn":
        """Lease due deliveries. With an order and without any, sweep lines whose first delivery is shelved."""
        row, number, sealed = await self._endpoint(actor, endpoint_id)
        template = self._template(row, sealed)
        is_ordered = row.ordering != Ordering.NONE
        items, is_held = await self._claim(row, number, template, query, is_ordered=is_ordered)
        if not items and is_ordered:
            swept = await self._leases.sweep(number, self._swept.get(number, FIRST_KEY))
            if swept.last_key is None:
                self._swept.pop(number, None)
            else:
                self._swept[number] = swept.last_key
            if swept.woken_count:
                items, is_held = await self._claim(
                    row, number, template, query, is_ordered=is_ordered
                )
        return _Turn(number, items, is_held)

    async def _pause(self, turn: "_Turn") -> float:
        """Return how long to wait for a notification before Postgres is read again."""
        if turn.is_held or turn.number in self._swept:
            return HELD_SECONDS
        pause = REREAD_SECONDS_MAX if self._is_listening else REREAD_SECONDS
        due_in = await self._leases.next_due(turn.number)
        if due_in is None:
            return pause
        return min(pause, HELD_SECONDS if due_in <= 0 else max(REREAD_SECONDS_MIN, due_in))

    async def _endpoint(
        self, actor: Actor, endpoint_id: str
    ) -> tuple[EndpointDetail, int, list[SealedSecret]]:
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant)
            if row.delivery != "pull":
                raise ConflictError(problem("id", "endpoint_not_pulled"))
            if row.state != EndpointState.ACTIVE:
                raise ConflictError(problem("state", f"endpoint_{row.state}"))
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
            number = await store.endpoint_number(connection, endpoint_id)
        return row, number, sealed

    def _template(self, row: EndpointDetail, sealed: Sequence[SealedSecret]) -> RequestTemplate:
        unusable = self._deployment.problem_of(routed_row(row, sealed))
        profile = self._deployment.profiles.get(row.profile)
        if unusable is not None or profile is None:
            detail = "its profile is missing" if unusable is None else unusable.detail
            raise ConflictError(problem("id", "endpoint_unusable", detail=detail))
        url = canonical_url(row.url, https_only=False, allow_ports=ANY_PORT)
        return request_template(self._deployment, row, profile, url, sealed)

    async def _claim(
        self,
        row: EndpointDetail,
        number: int,
        template: RequestTemplate,
        query: PollQuery,
        *,
        is_ordered: bool,
    ) -> tuple[list[PulledDelivery], bool]:
        """Lease due deliveries; return them, and whether one waits for an earlier event in the outbox."""
        items: list[PulledDelivery] = []
        bytes_count, has_more, is_held = 0, True, False
        while has_more and len(items) < query.limit and bytes_count < BYTES_MAX:
            rows_max = min(CLAIMED_AT_ONCE, query.limit - len(items))
            leases, has_more, is_held = await self._leases.claim(
                number, rows_max, query.lease_seconds, is_ordered=is_ordered
            )
            for one in leases:
                item = await self._item(row, template, one)
                if item is not None:
                    items.append(item)
                    bytes_count += len(item.body)
        probe.hit("pull.claimed", deliveries=len(items))
        return items, is_held

    async def _item(
        self, row: EndpointDetail, template: RequestTemplate, leased: LeasedRow
    ) -> PulledDelivery | None:
        """Return the request of a leased delivery; None: there is no body for it, and its lease expires."""
        body = leased.body
        if body is None and await self._bodies.make([(leased.delivery_id, leased.day)]):
            body = await self._leases.body_of(leased)
        if body is None:
            return None
        try:
            head = template.head(
                event_id=leased.event_id,
                delivery_id=leased.delivery_id,
                event_type=leased.event_type,
                timestamp=int(self._deployment.clock.now().timestamp()),
                body=body,
                traceparent=leased.traceparent,
            )
        except EncodingError as error:
            _log.warning("delivery.not_attempted", endpoint_id=row.id, reason=str(error))
            return None
        lines = head.decode("latin-1").split("\r\n")[1:-2]
        pairs = (line.partition(": ") for line in lines)
        return PulledDelivery(
            lease_id=leased.lease_id,
            leased_until=time_text(leased.leased_until),
            delivery_id=leased.delivery_id,
            event_id=leased.event_id,
            event_type=leased.event_type,
            attempt_number=leased.attempt_number,
            headers={name: value for name, _, value in pairs if name.lower() not in FRAMING},
            body=body.decode(),
        )

    # --- results ---

    async def settle(self, actor: Actor, endpoint_id: str, results: LeaseResults) -> SettledLeases:
        """Record what became of leased deliveries.

        A lease that has expired is not recorded, because its failure is, and its delivery is returned again.

        Raises:
            ForbiddenError: no operator. NotFoundError: no such endpoint. StoreUnavailableError: nothing is
            recorded, and the deliveries are returned again.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            await store.load_endpoint(connection, endpoint_id, actor.tenant)
            number = await store.endpoint_number(connection, endpoint_id)
        return await self._results.settle(number, results)

    async def run(self) -> None:
        """Record expired leases every second, until cancelled."""
        await self._results.run()

    async def listen(self) -> None:
        """Wake polls when deliveries arrive, until cancelled; it connects with the first poll that waits."""
        await self._has_polls.wait()
        if self._listener is not None:
            await self._listener.run()

    @property
    def _is_listening(self) -> bool:
        return self._listener is not None and self._listener.is_up

    def wake(self, endpoint_nos: str) -> None:
        """Let the polls of these endpoints read again; empty: all polls. Any role can notify, so it is a prompt."""
        numbers = [int(one) for one in endpoint_nos.split(",") if one.isdecimal()]
        for number in numbers if endpoint_nos else list(self._waiting):
            for woken in self._waiting.get(number, ()):
                woken.set()


class _Turn(NamedTuple):
    """What one reading of Postgres came to."""

    number: int
    items: list[PulledDelivery]
    is_held: bool
