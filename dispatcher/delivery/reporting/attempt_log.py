"""Reports each recorded attempt: one wide log line, and the metrics.

Both are written in batches after the results are committed, so a report is never ahead of the database.
"""

from collections import Counter
from typing import Final

import orjson
import structlog

from dispatcher.core.model import DeliveryId, DeliveryState, Outcome
from dispatcher.delivery.endpoint import Endpoint
from dispatcher.delivery.reporting.traffic_counts import TrafficCounts
from dispatcher.delivery.types import AttemptResult
from dispatcher.telemetry import logs
from dispatcher.telemetry.metrics import Metrics

_log = structlog.get_logger("dispatcher.delivery")
_FINAL = frozenset({DeliveryState.SUCCEEDED, DeliveryState.FAILED})
_TEXTS_MAX: Final = 1_000
"""Endpoints, by version, whose part of a line is cached; beyond it the cache is cleared."""


class AttemptLog:
    """Counts and logs results, one committed batch at a time."""

    def __init__(
        self, metrics: Metrics, traffic: TrafficCounts, *, replica: str, per_endpoint: bool
    ) -> None:
        self._metrics = metrics
        self._traffic = traffic
        self._replica = replica
        self._per_endpoint = per_endpoint
        self._texts: dict[Endpoint, tuple[str, str] | None] = {}

    def write(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Count and log a committed batch; fenced results are only counted as such."""
        if fenced:
            for result in results:
                if result.delivery.id in fenced:
                    self._metrics.results_fenced.inc()
                    ids = {"delivery_id": result.delivery.id, "endpoint_id": result.endpoint.id}
                    _log.info("result.fenced", **ids)
            results = [result for result in results if result.delivery.id not in fenced]
        self._count(results)
        if not logs.writes_info():
            return
        if logs.writes_members():
            lines = [self._line(one) or logs.members(self._fields(one)) for one in results]
            logs.write_members("delivery.attempted", lines)
            return
        for result in results:
            _log.info("delivery.attempted", **self._fields(result))

    def _count(self, results: list[AttemptResult]) -> None:
        metrics = self._metrics
        self._traffic.add_all(results)
        # A list is counted in C, which costs half of what adding one by one does.
        attempts = Counter([(one.endpoint.profile_name, one.response.outcome) for one in results])
        durations = [one.latency_seconds for one in results]
        final: Counter[tuple[str, DeliveryState]] = Counter()
        latencies: list[float] = []
        for result in results:
            delivery, outcome, state = (
                result.delivery,
                result.response.outcome,
                result.decision.state,
            )
            if delivery.state is not state and state in _FINAL:
                final[result.endpoint.profile_name, state] += 1
                if outcome is Outcome.OK:
                    waited = (result.attempted_at - delivery.inserted_at).total_seconds()
                    latencies.append(max(0.0, waited + result.latency_seconds))
            if self._per_endpoint:
                metrics.endpoint_attempts.labels(result.endpoint.id, outcome).inc()
        for attempt, count in attempts.items():
            metrics.attempts.labels(*attempt).inc(count)
        for ended, count in final.items():
            metrics.deliveries.labels(*ended).inc(count)
        metrics.attempt_duration.observe_all(durations)
        metrics.delivery_latency.observe_all(latencies)

    def _line(self, result: AttemptResult) -> str | None:
        """Return the members of a plain success, as `_fields` has them; None for any other result."""
        delivery, endpoint, response = result.delivery, result.endpoint, result.response
        if response.outcome is not Outcome.OK or response.flags:
            return None
        delivery_id, event_id, event_type = delivery.id, delivery.event_id, delivery.event_type
        ids = f"{delivery_id}{event_id}{event_type}"
        # What was sent is printable ASCII (core/request.py); these two are all that JSON escapes of it.
        if '"' in ids or "\\" in ids:
            return None
        texts = self._texts[endpoint] if endpoint in self._texts else self._make_texts(endpoint)
        if texts is None:
            return None
        whose, rest = texts
        decision = result.decision
        return (
            f'"delivery_id":"{delivery_id}","event_id":"{event_id}","event_type":"{event_type}"{whose}'
            f',"attempt_number":{result.attempt_number},"trigger":"{delivery.trigger}","outcome":"ok"'
            f',"http.response.status_code":{response.status},"duration_seconds":{result.latency_seconds:.6f}'
            f',"state":"{decision.state}","schedule_position":{decision.schedule_position}'
            f',"reused":{"true" if response.reused else "false"}{rest}'
        )

    def _make_texts(self, endpoint: Endpoint) -> tuple[str, str] | None:
        """Render the constant parts of an endpoint's lines; None if they are not plain ASCII."""
        if len(self._texts) >= _TEXTS_MAX:
            self._texts.clear()
        whose = (
            f',"endpoint_id":{_json(endpoint.id)},"tenant":{_json(endpoint.tenant)}'
            f',"profile":{_json(endpoint.profile_name)}'
        )
        host = endpoint.host_key[0] if endpoint.host_key else None
        rest = f',"server.address":{_json(host)},"replica":{_json(self._replica)}'
        texts = (whose, rest) if (whose + rest).isascii() and (whose + rest).isprintable() else None
        self._texts[endpoint] = texts
        return texts

    def _fields(self, result: AttemptResult) -> dict[str, object]:
        delivery, endpoint, response, decision = (
            result.delivery,
            result.endpoint,
            result.response,
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
            "outcome": response.outcome,
            "http.response.status_code": response.status,
            "duration_seconds": round(result.latency_seconds, 6),
            "state": decision.state,
            "schedule_position": decision.schedule_position,
            "reused": response.reused,
            "server.address": endpoint.host_key[0] if endpoint.host_key else None,
            "replica": self._replica,
        }
        if response.outcome is not Outcome.OK:
            fields["error.type"] = response.outcome
            fields["error.message"] = response.error
            fields["network.peer.address"] = response.peer
            fields["next_attempt_in_seconds"] = decision.next_delay_seconds
            fields["reason"] = decision.reason
            fields["breaker"] = result.entry.lane.breaker.state
        if response.flags:
            fields["flags"] = response.flags
        return fields


def _json(value: str | None) -> str:
    return orjson.dumps(value).decode()
