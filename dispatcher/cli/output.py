"""The output of commands: data on standard output, as a table or JSON; everything else on stderr.

External text (names, URLs, responses of receivers) may contain control characters that would control
a terminal; it is printed escaped. A stream that cannot encode a character gets its escape as well
(`tolerate_encodings`): an output in Latin-1 is no reason to fail.
"""

import dataclasses
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from dispatcher.core.printable import escape, escape_json

CELL_CHARACTERS_MAX: Final = 60
_Resource = TypeVar("_Resource")


class Page(Protocol):
    """A page of resources."""

    @property
    def items(self) -> Sequence[object]:
        """Return its resources."""

    @property
    def next_cursor(self) -> str | None:
        """Return the cursor of the next page, if there is one."""


def tolerate_encodings() -> None:
    """Make standard output and error escape what their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """Print a line of data, escaped."""
    sys.stdout.write("\n".join(escape(line) for line in text.split("\n")) + "\n")


def tell(text: str) -> None:
    """Print a message on standard error."""
    sys.stderr.write("\n".join(escape(line) for line in text.split("\n")) + "\n")
    sys.stderr.flush()


def fail(text: str) -> None:
    """Print an error on standard error."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    tell_raw = "\x1b[31mdispatcher:\x1b[0m " if colour else "dispatcher: "
    sys.stderr.write(tell_raw)
    tell(text)


def say_json(value: object, *, indent: bool = True) -> None:
    """Print an object as JSON; an event's data keep their bytes."""
    from dispatcher.admin.resources.serialization import (  # noqa: PLC0415 -- --help does not need it
        write_json,
    )

    text = write_json(value, indent=indent).decode()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    sys.stdout.write(escape_json(text, ascii_only=encoding != "utf8") + "\n")


def cell(value: object) -> str:
    """Return a value as one line of a table."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(cell(one) for one in value) or "-"
        case dict():
            return ", ".join(f"{name}={cell(one)}" for name, one in value.items()) or "-"
        case _ if dataclasses.is_dataclass(value):
            return cell(fields_of(value))
        case _:
            text = str(getattr(value, "text", value))  # An event's data is a `JsonText`.
    if text.startswith("-----BEGIN "):
        return f"PEM, {len(text)} characters (whole with --json)"
    return escape(text)


def fields_of(value: object) -> Mapping[str, Any]:
    """Return the fields of a resource by name; a mapping is returned as it is."""
    if isinstance(value, Mapping):
        return value
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}  # type: ignore[arg-type]  # a resource


def say_table(rows: Sequence[object], columns: Sequence[str], empty: str) -> None:
    """Print rows under headings; long cells are cut, except ids and times."""
    if not rows:
        tell(empty)
        return
    from rich.cells import cell_len  # noqa: PLC0415 -- --help prints no table

    cells = [[_cut(cell(getattr(row, column)), column) for column in columns] for row in rows]
    heads = [column.upper().replace("_", " ") for column in columns]
    widths = [
        max(cell_len(line[place]) for line in [heads, *cells]) for place in range(len(columns))
    ]
    for line in [heads, *cells]:
        padded = [
            one + " " * (size - cell_len(one)) for one, size in zip(line, widths, strict=True)
        ]
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def _cut(text: str, column: str) -> str:
    if column == "id" or column.endswith(("_id", "_at")) or len(text) <= CELL_CHARACTERS_MAX:
        return text
    return text[: CELL_CHARACTERS_MAX - 1] + "…"


def say_fields(value: object, *, leave_out: Sequence[str] = ()) -> None:
    """Print a resource, one field per line."""
    shown = {name: one for name, one in fields_of(value).items() if name not in leave_out}
    size = max((len(name) for name in shown), default=0)
    for name, one in shown.items():
        sys.stdout.write(f"{name.ljust(size)}  {cell(one)}\n")


def say_page(page: "Page", columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print a page: its JSON, or a table with the cursor of the next page on stderr."""
    if as_json:
        say_json(page)
        return
    say_table(page.items, columns, empty)
    searched_back_to = getattr(page, "searched_back_to", None)
    if searched_back_to is not None:
        tell(f"ids, names, types, labels and payloads were searched back to {searched_back_to}")
    if page.next_cursor is not None:
        tell(f"more: --cursor {page.next_cursor}")


def say_object(
    value: _Resource, *, as_json: bool, human: Callable[[_Resource], None] = say_fields
) -> None:
    """Print one resource, as JSON or human-readable."""
    if as_json:
        say_json(value)
    else:
        human(value)
