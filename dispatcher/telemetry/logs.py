"""Configures structlog: one JSON object or one human-readable line per record, written by a thread.

```
log.info(...)   ─┐                                  bounded queue           thread "log-writer"
logging (libs)  ─┼▶ processors ─▶ one line of bytes ─────────────▶ batches ────────────────▶ descriptor
write_members() ─┘                                  full: dropped, counted
```

structlog filters by level, renders and hands over the bytes. Invariants of our own processors:

* The event loop never writes. A terminal, pipe or journal that is not read stops the thread
  alone. The queue fills, further lines are dropped and counted (`Writer.dropped`), deliveries go on.
* One record is one line. Control characters and Unicode line separators are escaped.
* Secrets are masked by type: `SecretStr` and every object with a `reveal` method, however deep it is
  nested. Request and response bodies are not logged at all; that is the callers' duty.
* A record that cannot be rendered still becomes a line, which reports that. Logging raises nothing.
* A warning or error repeated with the same event, error type and endpoint is written once per
  window. The next line reports how many were left out.

Names follow OpenTelemetry: `timestamp`, `severity_text`, `event.name`, `service.version`,
`error.type`, `http.response.status_code`, `server.address`, `url.full`. Event names are
`<thing>.<past participle>`, as in `delivery.attempted`. On exit `Writer.close` waits a bounded
time.
"""

import logging
import os
import queue
import re
import select
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, NamedTuple, cast

import orjson
import structlog
from structlog.typing import Processor

from dispatcher.telemetry.log_rendering import Record, console_renderer, json_renderer, json_text

QUEUE_LINES_MAX: Final = 10_000
"""About 5 MB of attempt lines, some seconds of a busy daemon."""
BATCH_SECONDS: Final = 0.1
"""The thread rests after each batch, so that it interrupts the loop at most ten times per second."""
REPEAT_SECONDS: Final = 10.0
REPEAT_KEYS_MAX: Final = 1024
WRITE_BYTES_MAX: Final = 64 * 1024
_ENOUGH: Final = (b"", 0)
"""No entry: the batch is full."""

_SEVERITIES: Final = {
    "debug": "DEBUG",
    "warning": "WARN",
    "error": "ERROR",
    "exception": "ERROR",
    "critical": "FATAL",
    "fatal": "FATAL",
}
"""OpenTelemetry's names of structlog's methods; any other is INFO."""
LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_REPEATABLE: Final = frozenset({"WARN", "ERROR", "FATAL"})
_REPEAT_FIELDS: Final = (
    "severity_text",
    "event.name",
    "error.type",
    "error.message",
    "error",
    "problems",
    "endpoint_id",
    "delivery_id",
    "event_id",
    "task",
)
_LISTS: Final = (list, tuple)
# Up to what may follow in a text of several errors: a hint, a traceback, the next error's line.
_QUOTED_ROWS: Final = re.compile(
    r"\n?(?:DETAIL|CONTEXT):.*?(?=\nHINT:|\n\n|\nTraceback|\nasyncpg\.|\Z)", re.DOTALL
)


class Writer:
    """Writes lines to a descriptor from a thread of its own; structlog's logger takes it for a file.

    `_queue` is filled by any thread and emptied by the writer's; `dropped` is written by the thread that
    drops and only grows.
    """

    def __init__(self, descriptor: int, lines_max: int = QUEUE_LINES_MAX) -> None:
        self.dropped = 0
        """Lines that were not written: the queue was full or the descriptor failed."""
        self._descriptor = descriptor
        self._lines_max = lines_max
        self._queue: queue.SimpleQueue[tuple[bytes, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_count = 0
        """Lines in the queue, which has fewer entries; guarded by the lock."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, data: bytes, lines_count: int = 1) -> None:
        """Queue whole lines, including their newlines, or drop them; never wait.

        Lines of one call stay together, so one batch at most exceeds the queue's bound.
        """
        with self._lock:
            if self._queued_count >= self._lines_max or self._closed.is_set():
                self.dropped += lines_count
                return
            self._queued_count += lines_count
        self._queue.put((data, lines_count))

    def flush(self) -> None:
        """Return at once: the thread writes."""

    def close(self, timeout_seconds: float = 2.0) -> bool:
        """Write the queued lines for at most that long; return whether all were written."""
        if not self._closed.is_set():
            self._closed.set()
            self._queue.put(None)
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            self.dropped += self._queued_count
            return False
        return True

    def _run(self) -> None:
        ending = False
        while not ending:
            parts, lines_count, ending = self._take()
            try:
                self._write_all(b"".join(parts))
            except OSError:
                self.dropped += lines_count
            if not ending:
                self._closed.wait(BATCH_SECONDS)

    def _take(self) -> tuple[list[bytes], int, bool]:
        """Return the queued parts, at least one, their number of lines, and whether they are the last."""
        parts: list[bytes] = []
        lines_count = size = 0
        entry = self._queue.get()
        while entry is not None:
            parts.append(entry[0])
            lines_count += entry[1]
            size += len(entry[0])
            try:
                entry = self._queue.get_nowait() if size < WRITE_BYTES_MAX else _ENOUGH
            except queue.Empty:
                entry = _ENOUGH
            if entry is _ENOUGH:
                break
        with self._lock:
            self._queued_count -= lines_count
        return parts, lines_count, entry is None

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Another program made the shared terminal non-blocking.
                select.select([], [self._descriptor], [], 1.0)


class _Origin:
    """Begins each record with its time, severity, name and version."""

    def __init__(self, version: str) -> None:
        self._version = version

    def __call__(self, _: object, method: str, event: Record) -> Record:
        return {**self.lead(method, str(event.pop("event", ""))), **event}

    def lead(self, method: str, name: str) -> Record:
        """Return the first members of a record."""
        return {
            "timestamp": _now(),
            "severity_text": _SEVERITIES.get(method, "INFO"),
            "event.name": name,
            "service.version": self._version,
        }


def _now() -> datetime:
    # The wall clock of a log line is read here and not through a Clock: a line carries the time at which it was
    # written, whatever a test does to the program's time.
    return datetime.fromtimestamp(time.time_ns() / 1e9, UTC)


def _describe_error(_: object, __: str, record: Record) -> Record:
    """Replace `exc_info` by the error's type, message and frames."""
    error = record.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        record["error.type"] = type(error).__name__
        record["error.message"] = str(error)
        # Frames, not values: a frame's locals could hold a secret.
        record["error.stack"] = "".join(traceback.format_exception(error, limit=30))[:16_384]
    return record


def _drop_rows(_: object, __: str, record: Record) -> Record:
    """Drop Postgres's DETAIL and CONTEXT from a record: they quote the row, which is a tenant's data."""
    for name, value in record.items():
        if isinstance(value, str):
            if "DETAIL:" in value or "CONTEXT:" in value:
                record[name] = _QUOTED_ROWS.sub("", value)
        elif isinstance(value, BaseException):
            record[name] = _QUOTED_ROWS.sub("", f"{type(value).__name__}: {value}")
        elif isinstance(value, _LISTS):
            record[name] = [_QUOTED_ROWS.sub("", v) if isinstance(v, str) else v for v in value]
    return record


class _RepeatFilter:
    """Drop a warning or error that was written within the window, and count it."""

    def __init__(self) -> None:
        self._written: dict[tuple[str, ...], tuple[float, int]] = {}

    def __call__(self, _: object, __: str, record: Record) -> Record:
        if record["severity_text"] not in _REPEATABLE:
            return record
        key = tuple(str(record.get(name, "")) for name in _REPEAT_FIELDS)
        now = time.monotonic()
        since, count = self._written.get(key, (-REPEAT_SECONDS, 0))
        if now - since < REPEAT_SECONDS:
            self._written[key] = (since, count + 1)
            raise structlog.DropEvent
        if len(self._written) >= REPEAT_KEYS_MAX:
            self._written.clear()
        self._written[key] = (now, 0)
        if count:
            record["suppressed_count"] = count
        return record


class _Chain:
    """Runs the processors; an error in one of them becomes a line that reports it."""

    def __init__(self, *processors: Processor) -> None:
        self._processors = processors

    def __call__(self, logger: object, method: str, event: Record) -> bytes:
        result: Any = event
        try:
            for processor in self._processors:
                result = processor(logger, method, result)
        except structlog.DropEvent:
            raise
        except Exception as error:  # noqa: BLE001 -- a log call raises nothing
            lead = {"severity_text": "ERROR", "event.name": "log.unrenderable"}
            return orjson.dumps({**lead, "error.type": type(error).__name__})
        return cast("bytes", result)


class _Bridge(logging.Handler):
    """Passes the records of libraries from standard logging to structlog, asyncio's included."""

    _log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record as `library.logged`."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        level = max((level for level in LEVELS.values() if level <= record.levelno), default=10)
        self._log.log(
            level, "library.logged", logger=record.name, message=message, exc_info=record.exc_info
        )


class _State(NamedTuple):
    """Where lines go now; replaced as a whole by `configure`."""

    writer: Writer
    level: int
    origin: _Origin
    is_json: bool


_state: _State | None = None


def writes_info() -> bool:
    """Return whether a line of level INFO would be written."""
    return _state is not None and _state.level <= LEVELS["info"]


def writes_members() -> bool:
    """Return whether `write_members` may be called: lines are JSON, and INFO is written."""
    return _state is not None and _state.is_json and writes_info()


def members(fields: Record) -> str:
    """Return fields as rendered JSON members, for `write_members`; secrets are masked."""
    return json_text(fields)[1:-1]


def write_members(event_name: str, lines: Sequence[str]) -> None:
    """Write one INFO line for each element, which consists of rendered JSON members.

    For thousands of lines per second: a line costs its caller one format, and this function only
    its share of a join (ADR 0055). The caller guarantees members on one line, escaped as JSON requires.
    """
    state = _state
    if state is None or not lines:
        return
    lead = json_text(state.origin.lead("info", event_name))[:-1] + ","
    text = lead + ("}\n" + lead).join(lines) + "}\n"
    state.writer.write(text.encode(), len(lines))


def configure(
    *,
    form: str,
    level: str,
    version: str,
    descriptor: int = 2,
    environ: Mapping[str, str] | None = None,
) -> Writer:
    """Send every further line to `descriptor`; return the writer, which must be closed at the end.

    `form` is `json`, `console` or `auto` (console on a terminal); `level` is `debug`, `info`,
    `warning` or `error`. Colours are used on a terminal unless NO_COLOR is set in `environ`.
    A second call replaces the writer and closes the former one.
    """
    global _state  # noqa: PLW0603 -- one process has one log
    terminal = os.isatty(descriptor)
    is_json = form == "json" or (form == "auto" and not terminal)
    colour = terminal and not (environ or os.environ).get("NO_COLOR")
    former, writer, origin = _state, Writer(descriptor), _Origin(version)
    _state = _State(writer, LEVELS[level], origin, is_json)
    logger = structlog.BytesLogger(cast("BinaryIO", writer))
    structlog.configure(
        processors=[
            _Chain(
                origin,
                _describe_error,
                _drop_rows,
                _RepeatFilter(),
                json_renderer() if is_json else console_renderer(colour=colour),
            )
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    # Libraries log much at INFO that our own lines report better.
    root.setLevel(max(LEVELS[level], logging.WARNING))
    if former is not None:
        former.writer.close()
    return writer


def shut_down(timeout_seconds: float = 2.0) -> bool:
    """Write the queued lines for at most that long, and end logging; return whether all were written."""
    global _state
    former, _state = _state, None
    return former is None or former.writer.close(timeout_seconds)
