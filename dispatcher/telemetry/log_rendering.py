"""A log record as one line: JSON, or human-readable for a terminal.

Secrets are masked by type, what JSON cannot represent becomes text, control characters are escaped, and a long record
is cut. Nothing here raises for the contents of a record.
"""

import dataclasses
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from enum import Enum
from typing import Any, Final

import orjson
from pydantic import SecretBytes, SecretStr
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter
from structlog.processors import JSONRenderer
from structlog.typing import Processor

from dispatcher.core.printable import escape, escape_json, escape_lines

Record = MutableMapping[str, Any]
MASK: Final = "********"
LINE_BYTES_MAX: Final = 64 * 1024
"""A longer record is cut, because one line must not fill a pipe."""
_OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_UTC_Z
)
_COLOURS: Final = {
    "DEBUG": "\x1b[2m",
    "INFO": "\x1b[32m",
    "WARN": "\x1b[33m",
    "ERROR": "\x1b[31m",
    "FATAL": "\x1b[31;1m",
}


def _plain(value: Any) -> Any:  # noqa: ANN401 -- a log call accepts any value
    """Return a JSON value for an object that JSON cannot represent; secrets are masked by type."""
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
    """Return the value with `_plain` applied at every depth, for records that orjson rejects."""
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


def _dumps(record: Record, **options: Any) -> bytes:  # noqa: ANN401 -- orjson's options
    """Return JSON of at most `LINE_BYTES_MAX` bytes without characters that steer a terminal."""
    try:
        line = orjson.dumps(record, **options)
    except (TypeError, ValueError, RecursionError):
        line = orjson.dumps(_deep_plain(dict(record)))
    if len(line) > LINE_BYTES_MAX:
        line = orjson.dumps(_cut(record))
    if not line.isascii() or b"\x7f" in line:
        # JSON allows DEL, C1, bidirectional and separator characters; terminals obey some of them.
        line = escape_json(line.decode()).encode()
    return line


def _cut(record: Record) -> dict[str, Any]:
    """Return the head of each field, so that the line fits and still describes the event."""
    plain = _deep_plain(dict(record))
    short = {str(key)[:64]: _head(value) for key, value in list(plain.items())[:50]}
    return {**short, "log.cut": True}


def _head(value: Any) -> Any:  # noqa: ANN401 -- any field's value
    if value is None or isinstance(value, bool | int | float):
        return value
    return _text(value)[:200]


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def json_text(record: Record) -> str:
    """Return a record as one line of JSON; secrets are masked by type."""
    return _dumps(record, default=_plain, option=_OPTIONS).decode()


def json_renderer() -> Processor:
    """Return structlog's JSON renderer, which masks secrets by type."""
    return JSONRenderer(_dumps, default=_plain, option=_OPTIONS)


def console_renderer(*, colour: bool) -> Processor:
    """Return structlog's console renderer with our columns, for records of plain, escaped values."""
    styles = ConsoleRenderer.get_default_column_styles(colors=False)
    levels, reset = (_COLOURS, "\x1b[0m") if colour else (dict.fromkeys(_COLOURS, ""), "")
    plain = KeyValueColumnFormatter(None, "", "", str)
    render = ConsoleRenderer(
        columns=[
            Column("timestamp", plain),
            Column("severity_text", LogLevelColumnFormatter(levels, reset)),
            Column("event.name", plain),
            Column("", KeyValueColumnFormatter(styles.kv_key, styles.kv_value, styles.reset, str)),
        ],
        sort_keys=False,
    )

    def render_line(logger: object, method: str, record: Record) -> bytes:
        at, stack = record.pop("timestamp"), record.pop("error.stack", None)
        record.pop("service.version", None)
        fields = _deep_plain(dict(record))
        shown = {escape(name): escape(_text(value)) for name, value in fields.items()}
        shown["timestamp"] = at.astimezone().strftime("%H:%M:%S.%f")[:-3]
        if stack:
            lines = escape_lines(stack).rstrip().splitlines()
            shown["exception"] = "\n".join(f"    {line}" for line in lines)
        text = render(logger, method, shown)
        return text.encode("utf-8", "backslashreplace")[:LINE_BYTES_MAX]

    return render_line
