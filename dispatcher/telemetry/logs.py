"""Log lines: one JSON object each, or a line for people; never a secret, never a wait.

```
log.info(...)  ─┐                     bounded queue           thread "log-writer"
wide(...)       ├─▶ one line of bytes ─────────────▶ batches ─────────────────────▶ descriptor
logging (libs) ─┘                     full: dropped, counted
```

What is always true:

* The event loop never writes. A terminal, pipe or journal that is not read stops the thread
  alone; the queue fills, more lines are dropped and counted (`Writer.dropped`), deliveries go on.
* One record is one line: control characters and Unicode line separators are escaped.
* Secrets are masked by type: `SecretStr` and whatever has a `reveal` method, however deep it lies.
  Request and response bodies are not logged at all; that is the callers' duty.
* A record that cannot be rendered still becomes a line, which reports that. Logging raises nothing.
* A warning or error repeated with the same event, error type and endpoint is written once per
  window; the next line reports how many were left out.

Names follow OpenTelemetry: `timestamp`, `severity_text`, `event.name`, `service.version`,
`error.type`, `http.response.status_code`, `server.address`, `url.full`. Event names are
`<thing>.<past participle>`, as in `delivery.attempted`. On exit `Writer.close` waits a bounded
time.
"""

import dataclasses
import logging
import os
import queue
import re
import select
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import orjson
import structlog
from pydantic import SecretBytes, SecretStr

from dispatcher.core.printable import escape, escape_json, escape_lines

MASK: Final = "********"
QUEUE_LINES_MAX: Final = 10_000
"""About 5 MB of attempt lines, some seconds of a busy daemon."""
LINE_BYTES_MAX: Final = 64 * 1024
"""A longer record is cut: no line may fill a pipe alone."""
BATCH_SECONDS: Final = 0.02
"""The thread rests after each batch, so that a busy loop is disturbed 50 times a second at most."""
REPEAT_SECONDS: Final = 10.0
REPEAT_KEYS_MAX: Final = 1024
WRITE_BYTES_MAX: Final = 64 * 1024
_ENOUGH: Final = (b"", 0)
"""No entry: the writer has enough for now."""

_SEVERITIES: Final = {
    "debug": (logging.DEBUG, "DEBUG"),
    "info": (logging.INFO, "INFO"),
    "warning": (logging.WARNING, "WARN"),
    "error": (logging.ERROR, "ERROR"),
    "exception": (logging.ERROR, "ERROR"),
    "critical": (logging.CRITICAL, "FATAL"),
}
_OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_UTC_Z
)
_COLOURS: Final = {"DEBUG": "2", "INFO": "32", "WARN": "33", "ERROR": "31", "FATAL": "31;1"}

Record = MutableMapping[str, Any]
# Up to what may follow in a text of several errors: a hint, a traceback, the next error's line.
_QUOTED_ROWS: Final = re.compile(
    r"\n?(?:DETAIL|CONTEXT):.*?(?=\nHINT:|\n\n|\nTraceback|\nasyncpg\.|\Z)", re.DOTALL
)


class Writer:
    """Writes lines to a descriptor from a thread of its own.

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
        """Queues whole lines, their newlines included, or drops them; never waits.

        Lines that come together go together: the queue's bound is passed by one batch at most.
        """
        with self._lock:
            if self._queued_count >= self._lines_max or self._closed.is_set():
                self.dropped += lines_count
                return
            self._queued_count += lines_count
        self._queue.put((data, lines_count))

    def close(self, timeout_seconds: float = 2.0) -> bool:
        """Writes what is queued, for at most that long; return whether all of it was written."""
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
        """Returns what is queued now, waiting for the first, how many lines, and whether they are the last."""
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


def _plain(value: Any) -> Any:  # noqa: ANN401 -- anything may be handed to a log call
    """Turns what JSON has no form for into something it has, masking secrets by their type."""
    if isinstance(value, SecretStr | SecretBytes) or hasattr(value, "reveal"):
        return MASK
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[:256]).decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return list(value)
    return str(value)


def _deep_plain(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 -- as in _plain
    """Does what `_plain` does to the very bottom, for values that orjson refuses to look at."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if type(value) is str:
        return value.encode("utf-8", "backslashreplace").decode()
    if depth > 8:  # noqa: PLR2004 -- deep enough for a record, shallow enough for a circle
        return "..."
    if type(value) is dict:
        return {_deep_plain(str(key)): _deep_plain(item, depth + 1) for key, item in value.items()}
    if type(value) is list:
        return [_deep_plain(item, depth + 1) for item in value]
    return _deep_plain(_plain(value), depth + 1)


def _json_line(record: Record) -> bytes:
    try:
        line = orjson.dumps(record, _plain, _OPTIONS)
    except (TypeError, ValueError, RecursionError):
        line = orjson.dumps(_deep_plain(dict(record)))
    if len(line) > LINE_BYTES_MAX:
        line = orjson.dumps(_cut(record))
    if not line.isascii() or b"\x7f" in line:
        # JSON lets DEL, C1, bidirectional and separator characters stand; terminals obey some of them.
        line = escape_json(line.decode()).encode()
    return line + b"\n"


def _cut(record: Record) -> dict[str, Any]:
    """Keeps the head of each field, so that the line fits and still describes the event."""
    plain = _deep_plain(dict(record))
    short = {str(key)[:64]: _head(value) for key, value in list(plain.items())[:50]}
    return {**short, "log.cut": True}


def _head(value: Any) -> Any:  # noqa: ANN401 -- any field's value
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text[:200]


def _human_line(record: Record, *, colour: bool) -> bytes:
    plain = _deep_plain(dict(record))
    severity = plain.pop("severity_text")
    at = datetime.fromisoformat(plain.pop("timestamp")).astimezone()
    trace = plain.pop("error.stack", None)
    plain.pop("service.version", None)
    name = plain.pop("event.name")
    words = "".join(
        f" {key}={value if isinstance(value, str) else orjson.dumps(value).decode()}"
        for key, value in plain.items()
    )
    text = escape(f"{name}{words}")
    label = f"{severity:<5}"
    if colour:
        label = f"\x1b[{_COLOURS[severity]}m{label}\x1b[0m"
    line = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {label} {text}\n"
    if trace:
        lines = escape_lines(trace).rstrip().splitlines()
        line += "".join(f"    {part}\n" for part in lines)
    return line.encode("utf-8", "backslashreplace")[:LINE_BYTES_MAX]


class _State:
    """Where lines go now; replaced as a whole by `configure`."""

    __slots__ = ("level", "render", "repeats", "version", "writer")

    def __init__(
        self, writer: Writer, level: int, render: Callable[[Record], bytes], version: str
    ) -> None:
        self.writer = writer
        self.level = level
        self.render = render
        self.version = version
        self.repeats: dict[tuple[str, ...], tuple[float, int]] = {}

    def emit(self, record: Record) -> None:
        """Renders and queues; the last resort is a line that reports that rendering failed."""
        try:
            line = self.render(record)
        except Exception as error:  # noqa: BLE001 -- a log call raises nothing
            text = {"severity_text": "ERROR", "event.name": "log.unrenderable"}
            line = orjson.dumps({**text, "error.type": type(error).__name__}) + b"\n"
        self.writer.write(line)

    def suppressed(self, key: tuple[str, ...]) -> int | None:
        """Returns how many like it were left out since the last one, or None to leave this out."""
        now = time.monotonic()
        since, count = self.repeats.get(key, (-REPEAT_SECONDS, 0))
        if now - since < REPEAT_SECONDS:
            self.repeats[key] = (since, count + 1)
            return None
        if len(self.repeats) >= REPEAT_KEYS_MAX:
            self.repeats.clear()
        self.repeats[key] = (now, 0)
        return count


_state: _State | None = None


def _now() -> datetime:
    # The wall clock of a log line is read here and not through a Clock: a line carries the time at which it was
    # written, whatever a test does to the program's time.
    return datetime.fromtimestamp(time.time_ns() / 1e9, UTC)


def wide(event_name: str, fields: dict[str, Any]) -> None:
    """Writes one INFO line of many fields, the fast way; made for `delivery.attempted`."""
    state = _state
    if state is None or state.level > logging.INFO:
        return
    state.emit(
        {
            "timestamp": _now(),
            "severity_text": "INFO",
            "event.name": event_name,
            "service.version": state.version,
            **fields,
        }
    )


def takes_wide() -> bool:
    """Return whether `wide` would write anything: INFO is wanted."""
    state = _state
    return state is not None and state.level <= logging.INFO


def takes_members() -> bool:
    """Return whether `wide_members` may take the place of `wide`: lines are JSON, and INFO is wanted."""
    state = _state
    return state is not None and state.render is _json_line and takes_wide()


def wide_members(event_name: str, lines: Sequence[str]) -> None:
    """Writes one INFO line for each element, which is JSON members ready made; ask `takes_members` first.

    For thousands of lines a second: a line costs its caller one format, and nothing here but its
    share of a join. The caller answers for every value: printable ASCII, escaped as JSON wants it.
    """
    state = _state
    if state is None or not lines:
        return
    record = {
        "timestamp": _now(),
        "severity_text": "INFO",
        "event.name": event_name,
        "service.version": state.version,
    }
    lead = _json_line(record)[: -len(b"}\n")].decode() + ","
    text = lead + ("}\n" + lead).join(lines) + "}\n"
    state.writer.write(text.encode(), len(lines))


def _emit_structlog(_: object, method: str, event: MutableMapping[str, Any]) -> str:
    state = _state
    if state is None:
        raise structlog.DropEvent
    number, severity = _SEVERITIES.get(method, (logging.INFO, "INFO"))
    name = str(event.pop("event", ""))
    error = event.pop("exc_info", None)
    record: Record = {
        "timestamp": _now(),
        "severity_text": severity,
        "event.name": name,
        "service.version": state.version,
        **event,
    }
    _describe_error(record, error)
    _without_rows(record)
    if number >= logging.WARNING and not _count_repeat(state, record):
        raise structlog.DropEvent
    state.emit(record)
    raise structlog.DropEvent  # Written: nothing is left for structlog to do.


def _count_repeat(state: _State, record: Record) -> bool:
    names = (
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
    count = state.suppressed(tuple(str(record.get(name, "")) for name in names))
    if count:
        record["suppressed_count"] = count
    return count is not None


def _describe_error(record: Record, error: object) -> None:
    if error is True:
        error = _current_error()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        record["error.type"] = type(error).__name__
        record["error.message"] = str(error)
        # Frames, not values: a frame's locals could hold a secret.
        record["error.stack"] = "".join(traceback.format_exception(error, limit=30))[:16_384]


def _without_rows(record: Record) -> None:
    """Drop Postgres's DETAIL and CONTEXT from a record: they quote the row, which is a tenant's data."""
    for name, value in record.items():
        match value:
            case str():
                record[name] = _without_quotes(value)
            case BaseException():
                record[name] = _without_quotes(f"{type(value).__name__}: {value}")
            case list() | tuple():
                record[name] = [_without_quotes(v) if isinstance(v, str) else v for v in value]
            case _:
                pass


def _without_quotes(text: str) -> str:
    if "DETAIL:" in text or "CONTEXT:" in text:
        return _QUOTED_ROWS.sub("", text)
    return text


def _current_error() -> BaseException | None:
    import sys  # noqa: PLC0415 -- needed for the rare case of exc_info=True alone

    return sys.exc_info()[1]


class _Bridge(logging.Handler):
    """Takes the log records of libraries from standard logging, asyncio's reports included."""

    def emit(self, record: logging.LogRecord) -> None:
        state = _state
        if state is None:
            return
        severity = _SEVERITIES.get(record.levelname.lower(), (0, "INFO"))[1]
        try:
            message = record.getMessage()
        except (TypeError, ValueError):
            message = str(record.msg)
        line: Record = {
            "timestamp": _now(),
            "severity_text": severity,
            "event.name": "library.logged",
            "service.version": state.version,
            "logger": record.name,
            "message": message,
        }
        _describe_error(line, record.exc_info)
        line.setdefault("error.message", message)
        _without_rows(line)
        if record.levelno < logging.WARNING or _count_repeat(state, line):
            if line["error.message"] == message:
                del line["error.message"]
            state.emit(line)


def configure(
    *,
    form: str,
    level: str,
    version: str,
    descriptor: int = 2,
    environ: Mapping[str, str] | None = None,
) -> Writer:
    """Sends every line from now on to `descriptor` and returns the writer, to be closed at the end.

    `form` is `json`, `console` or `auto` (console on a terminal); `level` is `debug`, `info`,
    `warning` or `error`. Colours are used on a terminal unless NO_COLOR is set in `environ`.
    Called again it replaces the writer and closes the former one.
    """
    global _state  # noqa: PLW0603 -- one process has one log
    terminal = os.isatty(descriptor)
    render: Callable[[Record], bytes] = _json_line
    if form == "console" or (form == "auto" and terminal):
        colour = terminal and not (environ or os.environ).get("NO_COLOR")

        def render(record: Record) -> bytes:
            return _human_line(
                {**record, "timestamp": record["timestamp"].isoformat()}, colour=colour
            )

    number = _SEVERITIES[level][0]
    former = _state
    _state = _State(Writer(descriptor), number, render, version)
    structlog.configure(
        processors=[_emit_structlog],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(_Bridge())
    # Libraries log much at INFO that our own lines report better.
    root.setLevel(max(number, logging.WARNING))
    if former is not None:
        former.writer.close()
    return _state.writer


def shut_down(timeout_seconds: float = 2.0) -> bool:
    """Writes what is queued, for so long at most, and end logging; return whether it could."""
    global _state
    former, _state = _state, None
    return former is None or former.writer.close(timeout_seconds)
