"""Sends: a permit and a delivery in, one complete result out.

    start(entry) ── sign, build the head ──▶ send ──▶ response ──▶ recorder.add, then `ended`: permit back

An attempt is complete or does not exist. What the receiver did, whatever it was, is an
`AttemptResult` with every field; what we could not do (no file descriptors left, our own shutdown)
is no attempt and spends none. No task is made and nothing is awaited for an attempt on a pooled
connection: `start` writes, a callback of the event loop reads.
"""

import asyncio
import random
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog

from dispatcher.core.errors import EncodingError
from dispatcher.core.model import HttpResponse, Outcome, made
from dispatcher.core.outcome import Decision, decide, decide_success, honours_retry_after
from dispatcher.core.retry import parse_retry_after
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.recorder import Recorder
from dispatcher.delivery.types import AttemptResult, Delivery, Entry
from dispatcher.outbound.pool import Connections, Exchange, NotAttempted
from dispatcher.runtime.clock import Clock

_log = structlog.get_logger("dispatcher.delivery.sender")

STAMP_SECONDS = 0.0005
"""Attempts that begin within this of each other get one wall-clock time: reading it takes 1 µs."""


class Ended(Protocol):
    """What `start` calls when the attempt has ended; None: no attempt was made."""

    def __call__(self, entry: Entry, endpoint: Endpoint, succeeded: bool | None) -> None:
        """Take the permit back."""
        ...


class Sender:
    """Attempts in flight; written on the event loop's thread only."""

    def __init__(self, connections: Connections, recorder: Recorder, *, clock: Clock) -> None:
        self._connections = connections
        self.recorder = recorder
        self._clock = clock
        self.idle = asyncio.Event()
        """Set while nothing is in flight."""
        self.idle.set()
        self._exchanges: dict[Entry, tuple[Exchange, Endpoint, Ended]] = {}
        self._stamp = clock.now()
        self._stamp_timestamp = 0
        self._stamp_until = float("-inf")

    def start(self, entry: Entry, delivery: Delivery, ended: Ended) -> None:
        """Make an attempt; `ended` is called when it is over, perhaps before this returns."""
        lane = entry.lane
        endpoint = lane.endpoint
        started = self._clock.monotonic()
        if started >= self._stamp_until:
            self._stamp = self._clock.now()
            self._stamp_timestamp = int(self._stamp.timestamp())
            self._stamp_until = started + STAMP_SECONDS
        attempted_at = self._stamp
        done = partial(
            self._done, entry, delivery, endpoint, lane.token, attempted_at, started, ended
        )
        if endpoint.problem is not None or endpoint.template is None or endpoint.target is None:
            # Only a resend gets here: the lane of an unusable endpoint sends nothing on schedule.
            error = endpoint.problem_detail or "the endpoint cannot be sent to"
            done(HttpResponse(Outcome.BLOCKED_ADDRESS, error=f"nothing was sent: {error}"))
            return
        try:
            head = endpoint.template.head(
                event_id=delivery.event_id,
                delivery_id=delivery.id,
                event_type=delivery.event_type,
                timestamp=self._stamp_timestamp,
                body=delivery.body,
                traceparent=delivery.traceparent,
            )
        except EncodingError as error:
            done(
                HttpResponse(Outcome.PROTOCOL_ERROR, error=f"the request cannot be built: {error}")
            )
            return
        if not self._exchanges:
            self.idle.clear()
        self._exchanges[entry] = (
            self._connections.send(
                endpoint.target, head, delivery.body, endpoint.timeout_seconds, done
            ),
            endpoint,
            ended,
        )

    def _done(
        self,
        entry: Entry,
        delivery: Delivery,
        endpoint: Endpoint,
        token: int,
        attempted_at: datetime,
        started: float,
        ended: Ended,
        response: HttpResponse | NotAttempted,
    ) -> None:
        if self._exchanges.pop(entry, None) is not None and not self._exchanges:
            self.idle.set()
        if isinstance(response, NotAttempted):
            _log.warning("delivery.not_attempted", endpoint_id=endpoint.id, reason=response.reason)
            ended(entry, endpoint, None)
            return
        finished = self._clock.monotonic()
        succeeded = response.outcome is Outcome.OK
        if succeeded:
            decision = decide_success(delivery.trigger, delivery.schedule_position)
        else:
            decision = self._decide_failure(endpoint, delivery, response)
        self.recorder.add(
            made(
                AttemptResult,
                (
                    entry,
                    delivery,
                    endpoint,
                    token,
                    delivery.attempt_count + 1,
                    attempted_at,
                    finished - started,
                    finished,
                    response,
                    decision,
                ),
            )
        )
        ended(entry, endpoint, succeeded)

    def _decide_failure(
        self, endpoint: Endpoint, delivery: Delivery, response: HttpResponse
    ) -> Decision:
        return decide(
            outcome=response.outcome,
            trigger=delivery.trigger,
            state=delivery.state,
            reason=delivery.reason,
            schedule_position=delivery.schedule_position,
            policy=endpoint.retry_policy,
            jitter=random.random(),  # noqa: S311 -- spreads load, guards nothing
            retry_after_seconds=(
                parse_retry_after(response.retry_after, self._clock.now())
                if response.retry_after is not None
                and response.status is not None
                and honours_retry_after(response.status)
                else None
            ),
        )

    def cancel_all(self) -> int:
        """End every attempt in flight without a result (the drain's grace is over); return how many."""
        cancelled = list(self._exchanges.items())
        self._exchanges.clear()
        self.idle.set()
        for entry, (exchange, endpoint, ended) in cancelled:
            exchange.cancel()
            ended(entry, endpoint, None)
        return len(cancelled)

    def __len__(self) -> int:
        return len(self._exchanges)
