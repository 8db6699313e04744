"""What every recorded attempt tells the outside: one wide log line, and the metrics.

Both are written once results are committed, in batches, so that what is told has happened.
"""

from datetime import timedelta

from dispatcher.core.model import DeliveryId, DeliveryState, Outcome
from dispatcher.delivery.stages import AttemptResult
from dispatcher.delivery.tally import Tally
from dispatcher.telemetry import logs
from dispatcher.telemetry.metrics import Metrics

_FINAL = frozenset({DeliveryState.SUCCEEDED, DeliveryState.FAILED})


class Outcomes:
    """Turns results into counts and lines."""

    def __init__(self, metrics: Metrics, tally: Tally, *, replica: str, per_endpoint: bool) -> None:
        self._metrics = metrics
        self._tally = tally
        self._replica = replica
        self._per_endpoint = per_endpoint

    def tell(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Counts and logs a committed batch; what was fenced off is only counted as such."""
        metrics = self._metrics
        for result in results:
            delivery, endpoint, answer, decision = (
                result.delivery,
                result.endpoint,
                result.answer,
                result.decision,
            )
            if delivery.id in fenced:
                metrics.results_fenced.add()
                logs.wide("result.fenced", {"delivery_id": delivery.id, "endpoint_id": endpoint.id})
                continue
            self._tally.add(result)
            metrics.attempts.add(endpoint.profile_name, answer.outcome)
            metrics.attempt_duration.observe(result.latency_seconds)
            if self._per_endpoint:
                metrics.endpoint_attempts.add(endpoint.id, answer.outcome)
            if decision.state in _FINAL and delivery.state is not decision.state:
                metrics.deliveries.add(endpoint.profile_name, decision.state)
                if answer.outcome is Outcome.OK:
                    latency = (
                        result.attempted_at
                        + timedelta(seconds=result.latency_seconds)
                        - delivery.inserted_at
                    )
                    metrics.delivery_latency.observe(max(0.0, latency.total_seconds()))
            logs.wide("delivery.attempted", self._fields(result))

    def _fields(self, result: AttemptResult) -> dict[str, object]:
        delivery, endpoint, answer, decision = (
            result.delivery,
            result.endpoint,
            result.answer,
            result.decision,
        )
        fields = {
            "delivery_id": delivery.id,
            "event_id": delivery.event_id,
            "event_type": delivery.event_type,
            "endpoint_id": endpoint.id,
            "tenant": endpoint.tenant,
            "profile": endpoint.profile_name,
            "attempt_number": result.attempt_number,
            "trigger": delivery.trigger,
            "outcome": answer.outcome,
            "http.response.status_code": answer.status,
            "duration_seconds": round(result.latency_seconds, 6),
            "server.address": endpoint.host_key[0] if endpoint.host_key else None,
            "state": decision.state,
            "schedule_position": decision.schedule_position,
            "reused": answer.reused,
            "replica": self._replica,
        }
        if answer.outcome is not Outcome.OK:
            fields["error.type"] = answer.outcome
            fields["error.message"] = answer.error
            fields["next_attempt_in_seconds"] = decision.next_delay_seconds
            fields["reason"] = decision.reason
            fields["breaker"] = result.lane.breaker.state
        if answer.flags:
            fields["flags"] = answer.flags
        return fields
