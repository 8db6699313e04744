"""Traces, where they are wanted: a producer's trace goes on through fan-out and every attempt.

An event whose `traceparent` has the sampled flag gets a span from its insert to its fan-out, and one for each
attempt, both children of the producer's span; the receiver's own are its children too, since the
header is passed on as it came. Events without one, or not sampled, make no span: whether a trace is
kept was decided where it began.

What is always true: nothing is imported while `tracing.otlp_url` is empty. Spans are made once what
they describe has committed, from times taken anyway, so no attempt waits for one. They go out from
the library's own thread, in batches of bounded number; a collector that is slow or away loses spans
(the log reports it), and delays nothing but the end of the process, by up to `CLOSE_SECONDS_MAX`.
"""

# ruff: noqa: PLC0415 -- the libraries cost 130 ms and are an extra, so they are imported where they are used

import threading
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from dispatcher.core.errors import ConfigurationError
from dispatcher.core.model import Event

if TYPE_CHECKING:
    from opentelemetry.context import Context

QUEUE_SPANS_MAX: Final = 8_192
BATCH_SPANS_MAX: Final = 512
EXPORT_SECONDS_MAX: Final = 5.0
CLOSE_SECONDS_MAX: Final = 6.0
_NANOSECONDS: Final = 1_000_000_000

Attributes = Mapping[str, str | int | bool]


def require_libraries() -> None:
    """Check that the extra is installed.

    Raises:
        ConfigurationError: it is not; the message explains how to install it.
    """
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 -- only whether they are there
    except ImportError as error:
        raise ConfigurationError(
            [f"tracing.otlp_url: needs the extra `otel`: pip install 'dispatcher[otel]' ({error})"]
        ) from error


class Tracing:
    """Makes spans and sends them to one collector; used on the event loop."""

    def __init__(self, url: str, *, version: str, replica: str) -> None:
        """Prepares the exporter; connects when there is something to send.

        Raises:
            ConfigurationError: the extra is not installed.
        """
        require_libraries()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create(
            {
                "service.name": "dispatcher",
                "service.version": version,
                "service.instance.id": replica,
            }
        )
        # No span begins a trace: what has no sampled parent is left out.
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_OFF), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                OTLPSpanExporter(endpoint=url, timeout=EXPORT_SECONDS_MAX),
                max_queue_size=QUEUE_SPANS_MAX,
                max_export_batch_size=BATCH_SPANS_MAX,
            )
        )
        self._tracer = self._provider.get_tracer("dispatcher", version)
        self._propagator = TraceContextTextMapPropagator()
        self._consumer, self._client = SpanKind.CONSUMER, SpanKind.CLIENT
        self._failed = StatusCode.ERROR

    def fanned_out(self, events: Iterable[Event], at: datetime) -> None:
        """Create a span for each traced event, from its insert until now."""
        for event in events:
            if event.traceparent is not None:
                span = self._tracer.start_span(
                    f"fan out {event.type}",
                    context=self._parent(event.traceparent),
                    kind=self._consumer,
                    start_time=_nanoseconds(event.inserted_at),
                    attributes={
                        "dispatcher.event.id": event.id,
                        "dispatcher.event.type": event.type,
                        "dispatcher.tenant": event.tenant,
                    },
                )
                span.end(end_time=_nanoseconds(at))

    def attempted(
        self,
        traceparent: str,
        *,
        began_at: datetime,
        seconds: float,
        attributes: Attributes,
        error: str | None,
    ) -> None:
        """Create a span for one attempt; `error` is the name of the error."""
        began = _nanoseconds(began_at)
        span = self._tracer.start_span(
            "POST",
            context=self._parent(traceparent),
            kind=self._client,
            start_time=began,
            attributes=attributes,
        )
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(self._failed, error)
        span.end(end_time=began + int(seconds * _NANOSECONDS))

    def close(self) -> None:
        """Send the remaining spans, within its bound; to be called off the event loop."""
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS_MAX)

    def _parent(self, traceparent: str) -> "Context":
        return self._propagator.extract({"traceparent": traceparent})


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
