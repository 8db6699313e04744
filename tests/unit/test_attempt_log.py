"""What attempts tell: the quick lines of successes say what the careful ones say, and nothing breaks out of them."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from dispatcher.core.model import DeliveryState, Outcome
from dispatcher.delivery.reporting.attempt_log import AttemptLog
from dispatcher.delivery.reporting.traffic_counts import TrafficCounts
from dispatcher.delivery.types import AttemptResult
from dispatcher.runtime.clock import SystemClock
from dispatcher.telemetry import logs
from dispatcher.telemetry.metrics import Metrics
from tests.support.deliveries import make_delivery, make_result


class Log:
    """The log of this test, read back."""

    def __init__(self, form: str, level: str = "info") -> None:
        self._reader, self._writer = os.pipe()
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        logs.configure(form=form, level=level, version="9", descriptor=self._writer)

    def _read(self) -> None:
        while data := os.read(self._reader, 65_536):
            self._parts.append(data)

    def lines(self) -> list[str]:
        logs.shut_down()
        os.close(self._writer)
        self._thread.join(5)
        os.close(self._reader)
        return b"".join(self._parts).decode().split("\n")[:-1]


@pytest.fixture(autouse=True)
def _shut_down() -> Iterator[None]:
    yield
    logs.shut_down()


def make_log(replica: str = "one") -> tuple[AttemptLog, Metrics]:
    metrics = Metrics(version="9", profiles=["standard"])
    traffic = TrafficCounts(
        None,  # type: ignore[arg-type]  # nothing is flushed here
        incarnation="i",
        breakers=dict,
        figures=dict,
        clock=SystemClock(),
    )
    return AttemptLog(metrics, traffic, replica=replica, per_endpoint=False), metrics


def success(name: str, **changes: Any) -> AttemptResult:
    return make_result(make_delivery(name)._replace(**changes))


def failure(name: str) -> AttemptResult:
    return make_result(make_delivery(name), outcome=Outcome.HTTP_ERROR)


def test_a_quick_line_has_the_members_of_a_careful_one_in_their_order():
    log_writer, _ = make_log()
    result = success("wh_a")
    log = Log("json")
    log_writer.write([result], frozenset())
    [line] = log.lines()
    record = orjson.loads(line)
    assert record["event.name"] == "delivery.attempted"
    wanted = orjson.loads(orjson.dumps(log_writer._fields(result)))
    assert list(record.items())[4:] == list(wanted.items())


def test_lines_that_nobody_wants_are_not_made(monkeypatch):
    log_writer, metrics = make_log()
    log = Log("json", "warning")
    monkeypatch.setattr(log_writer, "_fields", lambda result: pytest.fail(f"made one of {result}"))
    log_writer.write([success("a"), failure("b")], frozenset())
    assert log.lines() == []
    assert b'outcome="ok"' in metrics.render()


def test_lines_stand_in_the_order_in_which_attempts_ended():
    log_writer, _ = make_log()
    log = Log("json")
    log_writer.write([success("a"), failure("b"), success("c"), success("d")], frozenset())
    records = [orjson.loads(line) for line in log.lines()]
    assert [(r["delivery_id"], r["outcome"]) for r in records] == [
        ("a", "ok"),
        ("b", "http_error"),
        ("c", "ok"),
        ("d", "ok"),
    ]


@pytest.mark.parametrize(
    ("replica", "changes"),
    [
        ("one", {"event_id": 'a","outcome":"forged'}),
        ("one", {"event_type": "a\\"}),
        ('"two"', {}),
        ("three\u2028", {}),
        ("สี่", {}),
    ],
)
def test_no_value_breaks_out_of_its_line(replica: str, changes: dict[str, str]):
    log_writer, _ = make_log(replica)
    log = Log("json")
    log_writer.write([success("a", **changes), success("b")], frozenset())
    text = log.lines()
    assert [len(line.splitlines()) for line in text] == [1, 1]
    records = [orjson.loads(line) for line in text]
    assert [r["delivery_id"] for r in records] == ["a", "b"]
    assert {r["replica"] for r in records} == {replica}
    assert {key: records[0][key] for key in changes} == changes


def test_people_get_their_own_form():
    log_writer, _ = make_log()
    log = Log("console")
    log_writer.write([success("wh_a")], frozenset())
    [line] = log.lines()
    assert "delivery.attempted" in line
    assert "delivery_id=wh_a" in line


def test_a_batch_is_counted_as_its_results_one_by_one():
    together, metrics = make_log()
    one_by_one, other = make_log()
    results = [success("a"), failure("b"), success("c"), success("d")]
    together.write(results, frozenset(["d"]))  # type: ignore[list-item]  # an id
    for result in results:
        one_by_one.write([result], frozenset(["d"]))  # type: ignore[list-item]  # an id
    assert metrics.render() == other.render()
    value = metrics.registry.get_sample_value
    standard = {"profile": "standard"}
    assert value("dispatcher_attempts_total", {**standard, "outcome": Outcome.OK}) == 2
    assert value("dispatcher_deliveries_total", {**standard, "state": DeliveryState.SUCCEEDED}) == 2
    assert value("dispatcher_results_fenced_total") == 1


def test_the_queue_is_bounded_by_lines_not_by_batches():
    reader, descriptor = os.pipe()
    writer = logs.Writer(descriptor, lines_max=10)
    writer._closed.set()  # its thread takes what is queued and rests no more
    writer._queue.put(None)
    writer._thread.join(5)
    writer._closed.clear()
    writer.write(b"line\n" * 9, 9)
    writer.write(b"line\n" * 9, 9)  # there was room for one line, so for one batch more
    writer.write(b"line\n" * 9, 9)
    assert writer.dropped == 9
    os.close(reader)
    os.close(descriptor)
