"""Traces: the producer's goes on to the receiver and to a collector; without a setting nothing is imported."""

import signal
import subprocess
import sys

import pytest

from tests.support.collector import collecting
from tests.support.daemon import STANDARD_SECRET, add_endpoint, quiet

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


async def publish(sql, event_id: str, traceparent: str | None) -> None:
    await sql.execute(
        "INSERT INTO dispatcher.outbox (id, type, data, traceparent) VALUES ($1, 'a.b', '{}', $2)",
        event_id,
        traceparent,
    )


async def test_a_sampled_trace_goes_on_through_fan_out_and_every_attempt(bench, sql):
    bench.receiver.behave(hook={"secret": STANDARD_SECRET, "statuses": [500, 200]})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"), retry_schedule_seconds=[0.1])
    with collecting() as collector:
        daemon = await bench.daemon(TRACING__OTLP_URL=collector.url).started(30)
        await publish(sql, "traced", f"00-{TRACE}-{PARENT}-01")
        await publish(sql, "not-sampled", f"00-{TRACE[::-1]}-{PARENT}-00")
        await publish(sql, "without", None)
        await quiet(bench.url, seconds=15)
        daemon.kill(signal.SIGTERM)
        assert await daemon.ended(20) == 0
    spans = collector.spans
    assert {(span["trace_id"], span["parent_id"]) for span in spans} == {(TRACE, PARENT)}
    fan_out, *attempts = sorted(spans, key=lambda span: span["name"] == "POST")
    assert fan_out["name"] == "fan out a.b"
    assert fan_out["dispatcher.event.id"] == "traced"
    assert all(span["resource"]["service.name"] == "dispatcher" for span in spans)
    told = {
        (span["http.request.resend_count"], span["http.response.status_code"], span["is_error"])
        for span in attempts
    }
    count = await sql.fetchval(
        "SELECT attempt_count FROM dispatcher.delivery WHERE event_id = 'traced'"
    )
    assert len(attempts) == count
    assert (count - 1, 200, False) in told
    assert all(is_error == (status != 200) for _, status, is_error in told)
    assert all(0 <= span["seconds"] < 10 for span in spans)
    assert all(span["dispatcher.endpoint.id"] == "ep_x" for span in attempts)


async def test_traces_collector_away_delays_no_delivery_and_the_end_a_little(bench, sql):
    bench.receiver.behave(hook={"secret": STANDARD_SECRET})
    await add_endpoint(sql, "ep_x", bench.receiver.url("/hook"))
    daemon = await bench.daemon(TRACING__OTLP_URL="http://127.0.0.1:9/v1/traces").started(30)
    await publish(sql, "traced", f"00-{TRACE}-{PARENT}-01")
    await quiet(bench.url, seconds=15)
    daemon.kill(signal.SIGTERM)
    assert await daemon.ended(20) == 0


def test_off_imports_nothing_of_it():
    code = (
        "import sys, dispatcher.app.daemon, dispatcher.cli.program;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_traces_without_the_extra_are_a_configuration_error():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from dispatcher.core.errors import ConfigurationError\n"
        "from dispatcher.telemetry.tracing import require_libraries\n"
        "try:\n    require_libraries()\n"
        "except ConfigurationError as error:\n    sys.exit(0 if 'dispatcher[otel]' in str(error) else 1)\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
