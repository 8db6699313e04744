"""Log lines: one record is one line, secrets never show, and nobody waits for a reader."""

import contextlib
import dataclasses
import fcntl
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from dispatcher.core.model import Outcome
from dispatcher.telemetry import log_rendering, logs

CANARY = "whsec_canary_geheim"
Open = Callable[..., logs.Writer]


class Sink:
    """A pipe and a thread that reads it."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        self._parts = io.BytesIO()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := os.read(self._reader, 65_536):
            self._parts.write(data)

    def text(self) -> str:
        """Ends logging and returns all that was written."""
        logs.shut_down()
        os.close(self.writer)
        self._thread.join(5)
        os.close(self._reader)
        return self._parts.getvalue().decode()

    def records(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.text().split("\n")[:-1]]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    configuration = structlog.get_config()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logs.shut_down()
    structlog.configure(**configuration)
    root.handlers[:] = handlers
    root.setLevel(level)


def open_log(sink: Sink, *, form: str = "json", level: str = "info") -> Any:
    logs.configure(form=form, level=level, version="9.9", descriptor=sink.writer)
    return structlog.get_logger()


class Revealing:
    def reveal(self) -> str:
        return CANARY

    def __repr__(self) -> str:
        return CANARY

    __str__ = __repr__


class RevealingText(str):
    __slots__ = ()

    def reveal(self) -> str:
        return CANARY


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    name: str
    secret: Revealing | SecretStr


@dataclasses.dataclass(frozen=True)
class RevealingData:
    text: str = CANARY

    def reveal(self) -> str:
        return self.text


def test_a_record_has_the_promised_names():
    sink = Sink()
    open_log(sink).info("endpoint.saved", **{"endpoint.id": "ep_1", "outcome": Outcome.OK})
    [record] = sink.records()
    assert record["timestamp"].endswith("Z")
    assert (
        record.items()
        >= {
            "severity_text": "INFO",
            "event.name": "endpoint.saved",
            "service.version": "9.9",
            "endpoint.id": "ep_1",
            "outcome": "ok",
        }.items()
    )


def test_members_are_written_under_the_same_names():
    sink = Sink()
    open_log(sink)
    secret = {"a": 2, "b": Revealing()}
    logs.write_members("delivery.attempted", ['"a":1', logs.members(secret)])
    records = sink.records()
    for record in records:
        assert list(record)[:4] == ["timestamp", "severity_text", "event.name", "service.version"]
        assert record["event.name"] == "delivery.attempted"
    assert [list(record.items())[4:] for record in records] == [
        [("a", 1)],
        [("a", 2), ("b", log_rendering.MASK)],
    ]


def test_members_are_not_written_without_a_log():
    logs.write_members("delivery.attempted", ['"a":1'])
    assert not logs.writes_info()
    assert not logs.writes_members()


@pytest.mark.parametrize(
    ("form", "level", "info", "members"),
    [
        ("json", "info", True, True),
        ("json", "warning", False, False),
        ("console", "debug", True, False),
    ],
)
def test_callers_learn_what_would_be_written(form: str, level: str, info: bool, members: bool):
    sink = Sink()
    open_log(sink, form=form, level=level)
    assert (logs.writes_info(), logs.writes_members()) == (info, members)
    assert sink.text() == ""


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "value",
    [
        SecretStr(CANARY),
        Revealing(),
        RevealingText(CANARY),
        RevealingData(),
        [Revealing()],
        {"deep": {"er": (Revealing(), RevealingText(CANARY))}},
        Holder(name="n", secret=Revealing()),
        [Holder(name="\ud800", secret=SecretStr(CANARY)), 2**80],
    ],
)
def test_secrets_are_masked_by_type_wherever_they_lie(form: str, value: object):
    sink = Sink()
    open_log(sink, form=form).warning("some.event", value=value)
    text = sink.text()
    assert CANARY not in text
    assert "********" in text


HOSTILE = st.recursive(
    st.none()
    | st.integers()
    | st.floats()
    | st.binary(max_size=20)
    | st.text(
        st.characters(codec=None) | st.sampled_from("\r\n\x00\x1b\x7f\x85\u2028\u2029\ud800"),
        max_size=30,
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(value=HOSTILE)
def test_whatever_is_logged_one_record_is_one_line(value: object):
    record = {
        "timestamp": logs._now(),
        "severity_text": "INFO",
        "event.name": "a.b",
        "value": value,
    }
    line = log_rendering.json_renderer()(None, "info", dict(record))
    assert isinstance(line, bytes)
    assert line.decode().splitlines() == [line.decode()]
    assert orjson.loads(line)["event.name"] == "a.b"
    human = log_rendering.console_renderer(colour=False)(None, "info", dict(record))
    assert isinstance(human, bytes)
    assert len(human.decode().splitlines()) == 1
    assert not any(character < " " for character in human.decode())


def test_a_huge_record_is_cut_and_says_so():
    sink = Sink()
    open_log(sink).info("big.one", text="x" * 1_000_000, number=7)
    [record] = sink.records()
    assert record["log.cut"] is True
    assert record["number"] == 7
    assert len(record["text"]) <= 200


def test_what_cannot_be_rendered_is_still_a_line():
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError(CANARY)

    class UnprintableError(Exception):
        __str__ = Broken.__str__

    circle: list[object] = []
    circle.append(circle)
    sink = Sink()
    log = open_log(sink)
    log.info("a.b", value=Broken())
    log.info("c.d", value=circle)
    log.error("e.f", exc_info=UnprintableError())
    names = [record["event.name"] for record in sink.records()]
    assert names == ["log.unrenderable", "c.d", "log.unrenderable"]


def test_an_error_tells_type_message_and_frames():
    sink = Sink()
    log = open_log(sink)
    try:
        int("no good")
    except ValueError:
        log.exception("thing.failed")
    [record] = sink.records()
    assert record["error.type"] == "ValueError"
    assert record["error.message"].endswith("'no good'")
    assert "test_logs.py" in record["error.stack"]


def test_repeated_warnings_are_written_once_and_counted(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sink = Sink()
    log = open_log(sink)
    for _ in range(5):
        log.warning("store.lost", endpoint_id="ep_1")
    log.warning("store.lost", endpoint_id="ep_2")
    now[0] += logs.REPEAT_SECONDS
    log.warning("store.lost", endpoint_id="ep_1")
    for _ in range(3):
        log.info("all.well")
    records = sink.records()
    warned = [(r["endpoint_id"], r.get("suppressed_count")) for r in records if "endpoint_id" in r]
    assert warned == [("ep_1", None), ("ep_2", None), ("ep_1", 4)]
    assert sum(record["event.name"] == "all.well" for record in records) == 3


def test_libraries_speak_through_the_same_log():
    sink = Sink()
    open_log(sink)
    logging.getLogger("aiohttp.server").info("chatter")
    logging.getLogger("asyncio").error("Task was destroyed: %s", "x\ny")
    [record] = sink.records()
    assert record["event.name"] == "library.logged"
    assert (record["logger"], record["severity_text"]) == ("asyncio", "ERROR")
    assert record["message"] == "Task was destroyed: x\ny"


def test_console_is_for_people_and_keeps_a_trace_readable():
    sink = Sink()
    log = open_log(sink, form="console")
    log.info("endpoint.saved", name="ไทย\x1b[31m\n")
    log.error("thing.failed", exc_info=KeyError("k"))
    first, second, *trace = sink.text().splitlines()
    assert first.endswith(" [INFO ] endpoint.saved name=ไทย\\x1b[31m\\x0a")
    assert " [ERROR] thing.failed error.type=KeyError" in second
    assert trace == ["    KeyError: 'k'"]


def test_a_stream_that_nobody_reads_stops_nothing_and_lines_are_counted():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    log = logs.Writer(writer, lines_max=50)
    try:
        for _ in range(2_000):
            log.write(b"x" * 1_023 + b"\n")
        assert log.dropped >= 2_000 - 50 - 2 * logs.WRITE_BYTES_MAX // 1_024
        assert log.close(timeout_seconds=0.05) is False
    finally:
        os.close(reader)  # The blocked write ends with EPIPE, and so does the thread.
        log._thread.join(5)
        os.close(writer)
    assert not log._thread.is_alive()


def test_control_log_written_to_the_stream_blocks_with_it():
    """F5, counted in lines: two thousand are handed over at once, or as many as the pipe holds and no more."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    handed_over = 0

    def straight() -> None:
        nonlocal handed_over
        with contextlib.suppress(BrokenPipeError):
            for _ in range(2_000):
                os.write(writer, b"x" * 1_023 + b"\n")
                handed_over += 1

    thread = threading.Thread(target=straight)
    thread.start()
    try:
        thread.join(0.2)
        assert thread.is_alive()
        assert handed_over == 4
    finally:
        os.close(reader)
        thread.join(5)
        os.close(writer)


def test_every_line_is_written_or_counted_when_the_reader_goes_away():
    reader, writer = os.pipe()
    log = logs.Writer(writer)
    os.close(reader)
    for _ in range(10):
        log.write(b"lost\n")
    assert log.close(5) is True
    os.close(writer)
    log.write(b"late\n")
    assert log.dropped == 11


def test_close_writes_what_is_queued_in_order():
    sink = Sink()
    log = logs.Writer(sink.writer)
    for number in range(3_000):
        log.write(b"%d\n" % number)
    assert log.close(5) is True
    assert sink.text().split() == [str(number) for number in range(3_000)]
