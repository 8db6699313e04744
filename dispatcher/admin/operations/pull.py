"""Deliveries that receivers fetch, for those that no request from outside can reach.

    poll ──▶ leases (Postgres) ──▶ the receiver ── settle ──▶ attempt, state and next due time, as after a push
                 │ expired
                 └──▶ `run` ──▶ a failed attempt (timeout)

Invariants: the state is in Postgres alone. A poll leases what it returns, so no other poll gets it, whichever replica
serves it. A lease that ends unsettled is a failed attempt, and the endpoint's schedule decides on the next one. At
most `POLLS_MAX` polls wait in a process and `POLLS_PER_ENDPOINT_MAX` per endpoint. A response has about
`BYTES_MAX` bytes.

A crash of this process after a claim leaves leases that expire. A crash between the end of a lease and its recording
leaves no attempt, and the delivery is returned again at the time at which the lease would have ended. While Postgres is
unavailable a poll fails, and the receiver tries again.
"""

import asyncio
import random
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal

import structlog

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import found
from dispatcher.admin.operations.request_preview import ANY_PORT, request_template
from dispatcher.admin.resources.pull import (
    LeaseResult,
    LeaseResults,
    PollQuery,
    PulledDelivery,
    PulledPage,
    SettledLease,
    SettledLeases,
)
from dispatcher.admin.resources.serialization import time_text
from dispatcher.config.database_url import UrlSource
from dispatcher.core import histogram
from dispatcher.core.errors import (
    BatchRefusedError,
    ConflictError,
    DataFaultError,
    EncodingError,
    StoreUnavailableError,
    TooManyError,
)
from dispatcher.core.model import DeliveryState, EndpointState, Outcome, Trigger
from dispatcher.core.outcome import Decision, RetryPolicy, decide, honours_retry_after, judge_status
from dispatcher.core.problems import problem
from dispatcher.core.request import RequestTemplate
from dispatcher.core.url import canonical_url
from dispatcher.late_bodies import LateBodies
from dispatcher.runtime import probe
from dispatcher.runtime.backoff import Outage
from dispatcher.store import endpoints as store
from dispatcher.store.attempts import AttemptRow
from dispatcher.store.bodies import Bodies
from dispatcher.store.deliveries import MoveRow
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.pull_leases import (
    LeasedRow,
    PulledEndpoint,
    PulledListener,
    PullLeases,
    TakenLease,
)
from dispatcher.store.routing import routed_row
from dispatcher.store.secrets import SealedSecret, load_secrets
from dispatcher.store.statistics import Statistics, TrafficRow, tenant_subject

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
REREAD_SECONDS_MIN: Final = 0.05
EXPIRED_AT_ONCE: Final = 100
EXPIRE_SECONDS: Final = 1.0
_FRAMING: Final = frozenset({"host", "content-length", "accept-encoding"})
_LEASE_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Pull:
    """Polls of endpoints with `delivery: pull`; `run` and `listen` are tasks of the daemon."""

    def __init__(self, deployment: Deployment, listen_url: str | UrlSource | None = None) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._leases = PullLeases(deployment.database)
        self._statistics = Statistics(deployment.database)
        self._bodies = LateBodies(Bodies(deployment.database), deployment.profiles.get)
        self._listener = None if listen_url is None else PulledListener(listen_url, self.wake)
        self._waiting: dict[int, set[asyncio.Event]] = {}
        self._has_polls = asyncio.Event()
        self._outage = Outage(_log, "pull.stalled", "pull.resumed")

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
        row, number, sealed = await self._endpoint(actor, endpoint_id)
        template = self._template(row, sealed)
        items = await self._claim(row, number, template, query)
        if items or not query.wait_seconds:
            return PulledPage(items=items)
        waiting = self._waiting.setdefault(number, set())
        polls_count = sum(map(len, self._waiting.values()))
        if polls_count >= POLLS_MAX or len(waiting) >= POLLS_PER_ENDPOINT_MAX:
            raise TooManyError(problem("id", "too_many_polls", maximum=POLLS_PER_ENDPOINT_MAX), 1.0)
        woken = asyncio.Event()
        waiting.add(woken)
        self._has_polls.set()
        try:
            while not items and (left := ends_at - monotonic()) > 0:
                due_in = await self._leases.next_due(number)
                reread = REREAD_SECONDS if not self._is_listening else REREAD_SECONDS_MAX
                pause = min(left, reread)
                if due_in is not None:
                    pause = min(pause, max(REREAD_SECONDS_MIN, due_in))
                try:
                    async with asyncio.timeout(pause):
                        await woken.wait()
                except TimeoutError:
                    pass
                woken.clear()
                # It may have been paused, deleted or signed with another secret meanwhile.
                row, number, sealed = await self._endpoint(actor, endpoint_id)
                items = await self._claim(row, number, self._template(row, sealed), query)
        finally:
            waiting.discard(woken)
            if not waiting:
                self._waiting.pop(number, None)
            if not self._waiting:
                self._has_polls.clear()
        return PulledPage(items=items)

    async def _endpoint(
        self, actor: Actor, endpoint_id: str
    ) -> tuple[EndpointDetail, int, list[SealedSecret]]:
        async with self._database.transaction() as connection:
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant), endpoint_id
            )
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
        self, row: EndpointDetail, number: int, template: RequestTemplate, query: PollQuery
    ) -> list[PulledDelivery]:
        items: list[PulledDelivery] = []
        bytes_count = 0
        while len(items) < query.limit and bytes_count < BYTES_MAX:
            rows_max = min(CLAIMED_AT_ONCE, query.limit - len(items))
            leased = await self._leases.claim(number, rows_max, query.lease_seconds)
            for one in leased:
                item = await self._item(row, template, one)
                if item is not None:
                    items.append(item)
                    bytes_count += len(item.body)
            if len(leased) < rows_max:
                break
        probe.hit("pull.claimed", deliveries=len(items))
        return items

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
            headers={name: value for name, _, value in pairs if name.lower() not in _FRAMING},
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
            found(await store.load_endpoint(connection, endpoint_id, actor.tenant), endpoint_id)
            number = await store.endpoint_number(connection, endpoint_id)
        given = {one.lease_id: one for one in results.results if _LEASE_ID.fullmatch(one.lease_id)}
        taken = await self._leases.take(number, list(given)) if given else []
        await self._record([(lease, given[lease.lease_id]) for lease in taken])
        recorded = {lease.lease_id for lease in taken}

        def status(lease_id: str) -> Literal["recorded", "expired"]:
            return "recorded" if lease_id in recorded else "expired"

        return SettledLeases(
            items=[
                SettledLease(lease_id=one.lease_id, status=status(one.lease_id))
                for one in results.results
            ]
        )

    async def expire(self) -> int:
        """Record the leases that have expired as failed attempts; return how many there were."""
        taken = await self._leases.take_expired(EXPIRED_AT_ONCE)
        if taken:
            still_open = await self._leases.still_open(taken)
            # A delivery that was cancelled meanwhile gets no attempt.
            lost = [
                one
                for one in taken
                if one.delivery_id in still_open or one.trigger is Trigger.MANUAL
            ]
            await self._record([(lease, None) for lease in lost])
        return len(taken)

    async def _record(self, pairs: Sequence[tuple[TakenLease, LeaseResult | None]]) -> None:
        """Record attempts, and count them for the charts; None: the lease expired."""
        if not pairs:
            return
        leases = [lease for lease, _ in pairs]
        endpoints = await self._leases.endpoints([one.endpoint_no for one in leases])
        types = await self._leases.event_types(leases)
        now = self._deployment.clock.now()
        moves: list[MoveRow] = []
        attempts: list[AttemptRow] = []
        traffic: list[TrafficRow] = []
        for lease, result in pairs:
            endpoint = endpoints.get(lease.endpoint_no)
            event_type = types.get((lease.day, lease.event_id))
            if endpoint is None or event_type is None:
                continue  # retention has deleted the event
            outcome = Outcome.TIMEOUT if result is None else judge_status(result.response_code)
            decision = self._decision(endpoint, lease, outcome, result)
            moves.append(
                MoveRow(
                    endpoint.shard, lease.delivery_id, lease.attempt_count + 1, decision.state,
                    decision.reason, decision.schedule_position, decision.next_delay_seconds,
                )
            )  # fmt: skip
            attempt = _attempt(lease, event_type, outcome, result, now)
            attempts.append(attempt)
            traffic += _traffic(endpoint, lease, attempt, decision)
        await self._leases.record(moves, attempts)
        manual = [
            (one.delivery_id, one.attempted_at, one.outcome == Outcome.OK)
            for one in attempts
            if one.trigger == Trigger.MANUAL
        ]
        if manual:
            await self._leases.settle_resends(manual)
        for attempt, move in zip(attempts, moves, strict=True):
            _log.info(
                "delivery.attempted",
                delivery_id=attempt.delivery_id,
                event_id=attempt.event_id,
                event_type=attempt.event_type,
                endpoint_id=endpoints[attempt.endpoint_no].id,
                attempt_number=attempt.attempt_number,
                trigger=attempt.trigger,
                outcome=attempt.outcome,
                state=move.state,
                schedule_position=move.schedule_position,
            )
        try:
            await self._statistics.add(_added_up(traffic))
        except (StoreUnavailableError, BatchRefusedError, DataFaultError) as error:
            self._outage.began(error)  # counts of the charts: no reason to fail what is recorded
        probe.hit("pull.recorded", attempts=len(attempts))

    def _decision(
        self,
        endpoint: PulledEndpoint,
        lease: TakenLease,
        outcome: Outcome,
        result: LeaseResult | None,
    ) -> Decision:
        policy = RetryPolicy.of(
            self._deployment.profiles.get(endpoint.profile), endpoint.retry_schedule_seconds
        )
        after = None
        if result is not None and honours_retry_after(result.response_code):
            after = result.retry_after_seconds
        return decide(
            outcome=outcome,
            trigger=lease.trigger,
            state=lease.state,
            reason=lease.reason,
            schedule_position=lease.schedule_position,
            policy=policy,
            jitter=random.random(),  # noqa: S311 -- spreads load, guards nothing
            retry_after_seconds=after,
        )

    # --- tasks ---

    async def run(self) -> None:
        """Record expired leases every second, until cancelled."""
        while True:
            try:
                while await self.expire() == EXPIRED_AT_ONCE:
                    pass
                self._outage.ended()
            except (StoreUnavailableError, DataFaultError) as error:
                self._outage.began(error)
            await asyncio.sleep(EXPIRE_SECONDS)

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


def _attempt(
    lease: TakenLease, event_type: str, outcome: Outcome, result: LeaseResult | None, now: datetime
) -> AttemptRow:
    seconds = max(0.0, (now - lease.leased_at).total_seconds())
    error = None if result is None else result.error
    if result is None:
        error = "the lease ended before the receiver returned a result"
    return AttemptRow(
        lease.day, lease.event_id, event_type, lease.endpoint_no, lease.delivery_id, lease.attempt_count + 1,
        lease.trigger, outcome, None, lease.leased_at, seconds, None, None, None, None, False, None, lease.revision,
        None if result is None else result.response_code, None, error, None,
    )  # fmt: skip


def _traffic(
    endpoint: PulledEndpoint, lease: TakenLease, attempt: AttemptRow, decision: Decision
) -> list[TrafficRow]:
    """Return the counts of one attempt, of its endpoint, of its tenant and of all."""
    is_ok, is_timeout = attempt.outcome == Outcome.OK, attempt.outcome == Outcome.TIMEOUT
    ends = decision.state is not lease.state
    latency = [0] * histogram.COUNTS
    latency[histogram.place(attempt.latency_seconds)] = 1
    subjects = (endpoint.id, tenant_subject(endpoint.tenant), tenant_subject(None))
    return [
        TrafficRow(
            subject, int(is_ok), int(not is_ok and not is_timeout), int(is_timeout), 0,
            int(ends and decision.state is DeliveryState.SUCCEEDED),
            int(ends and decision.state is DeliveryState.FAILED),
            "{" + ",".join(map(str, latency)) + "}", attempt.attempted_at, attempt.outcome,
            attempt.response_code, attempt.error,
        )
        for subject in subjects
    ]  # fmt: skip


def _added_up(rows: Sequence[TrafficRow]) -> list[TrafficRow]:
    """Return one row for each subject, sorted, as one statement requires."""
    sums: dict[str, TrafficRow] = {}
    for row in rows:
        before = sums.get(row.subject)
        if before is None:
            sums[row.subject] = row
            continue
        latency = histogram.add_up(
            [int(count) for count in one.latency_counts[1:-1].split(",")] for one in (before, row)
        )
        sums[row.subject] = row._replace(
            ok_count=before.ok_count + row.ok_count,
            refused_count=before.refused_count + row.refused_count,
            timeout_count=before.timeout_count + row.timeout_count,
            succeeded_count=before.succeeded_count + row.succeeded_count,
            failed_count=before.failed_count + row.failed_count,
            latency_counts="{" + ",".join(map(str, latency)) + "}",
        )
    return sorted(sums.values())
