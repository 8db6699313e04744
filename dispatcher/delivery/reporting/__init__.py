"""Reports what was committed: log lines, counters and spans; nothing that delivers reads them."""

from collections import Counter
from collections.abc import Sequence

from dispatcher.core.model import DeliveryId, Event
from dispatcher.delivery.reporting.attempt_log import AttemptLog
from dispatcher.delivery.reporting.spans import Spans
from dispatcher.delivery.types import AttemptResult
from dispatcher.telemetry.metrics import Metrics


class Reporting:
    """Where fan-out and recorder report committed batches."""

    def __init__(
        self,
        metrics: Metrics,
        attempt_log: AttemptLog,
        spans: Spans | None,
        event_types: frozenset[str],
    ) -> None:
        self.metrics = metrics
        self._attempt_log = attempt_log
        self._spans = spans
        self._event_types = event_types

    def fanned_out(self, events: Sequence[Event], unmatched: Sequence[str] = ()) -> None:
        """Report events whose deliveries exist, and the types of those that no endpoint subscribes to."""
        self.metrics.events_fanned_out.inc(len(events))
        if self._spans is not None:
            self._spans.fanned_out(events)
        unknown = sum(event.type not in self._event_types for event in events)
        if unknown:
            self.metrics.events_unknown_type.inc(unknown)
        for event_type, count in Counter(unmatched).items():
            self.metrics.events_unmatched.labels(event_type).inc(count)

    def flushed(self, rows_count: int, seconds: float) -> None:
        """Report one commit of results."""
        self.metrics.recorder_batch_size.observe(rows_count)
        self.metrics.recorder_flush.observe(seconds)

    def recorded(self, results: list[AttemptResult], fenced: frozenset[DeliveryId]) -> None:
        """Report recorded attempts, and those that were fenced off."""
        self._attempt_log.write(results, fenced)
        if self._spans is not None:
            self._spans.attempted(results, fenced)
