"""Exports committed batches as spans, if tracing is enabled."""

from collections.abc import Sequence

from dispatcher.core.model import DeliveryId, Event, Outcome
from dispatcher.delivery.types import AttemptResult
from dispatcher.runtime.clock import Clock
from dispatcher.telemetry.tracing import Tracing


class Spans:
    """Turns events and results into spans; one without a traceparent costs one comparison."""

    def __init__(self, tracing: Tracing, clock: Clock) -> None:
        self._tracing = tracing
        self._clock = clock

    def fanned_out(self, events: Sequence[Event]) -> None:
        """Export spans of events whose deliveries exist."""
        self._tracing.fanned_out(events, self._clock.now())

    def attempted(self, results: Sequence[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Export spans of recorded attempts, except fenced ones, which were not recorded."""
        for result in results:
            delivery, response = result.delivery, result.response
            if delivery.traceparent is None or delivery.id in fenced:
                continue
            attributes: dict[str, str | int | bool] = {
                "http.request.method": "POST",
                "http.request.resend_count": result.attempt_number - 1,
                "dispatcher.event.id": delivery.event_id,
                "dispatcher.event.type": delivery.event_type,
                "dispatcher.delivery.id": delivery.id,
                "dispatcher.endpoint.id": result.endpoint.id,
                "dispatcher.profile": result.endpoint.profile_name,
                "dispatcher.tenant": result.endpoint.tenant,
                "dispatcher.trigger": delivery.trigger,
                "dispatcher.outcome": response.outcome,
                "dispatcher.connection.reused": response.reused,
            }
            if result.endpoint.host_key is not None:
                attributes["server.address"], attributes["server.port"] = result.endpoint.host_key
            if response.status is not None:
                attributes["http.response.status_code"] = response.status
            self._tracing.attempted(
                delivery.traceparent,
                began_at=result.attempted_at,
                seconds=result.latency_seconds,
                attributes=attributes,
                error=None if response.outcome is Outcome.OK else response.outcome,
            )
