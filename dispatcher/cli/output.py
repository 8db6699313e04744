"""The output of commands: data on standard output, as a table, JSON or YAML; everything else on stderr.

External text (names, URLs, responses of receivers) may contain control characters that would control
a terminal; it is printed escaped. A stream that cannot encode a character gets its escape as well
(`tolerate_encodings`): an output in Latin-1 is no reason to fail.

A table fits the terminal: if it is too wide, the least important column is left out, and long cells end in an ellipsis,
ids and times never. An output that is not a terminal, and `-o wide`, have the whole values. Colours are only used on a
terminal, without NO_COLOR.
"""

import dataclasses
import io
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol, TextIO, TypeVar

from dispatcher.core.printable import escape, escape_json

CELL_CHARACTERS_MAX: Final = 60
CELL_CHARACTERS_MIN: Final = 8
"""A cell is not cut further than this, however narrow the terminal is."""
LEFT_OUT_CELLS: Final = 12
LIVE_CELL_CHARACTERS: Final = 20
"""The room that a table which goes on keeps for longer values to come."""
_GAP: Final = "  "
_GREEN, _YELLOW, _RED, _GREY = "32", "33", "31", "90"
_COLOURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("active", "healthy", "succeeded", "completed", "ok"), _GREEN),
    **dict.fromkeys(("paused", "degraded", "recovering", "retrying", "running"), _YELLOW),
    **dict.fromkeys(("disabled", "down", "failed"), _RED),
    **dict.fromkeys(("cancelled", "pending"), _GREY),
}
"""The colours of states, health and outcomes."""
_UNITS: Final = ((365 * 86_400, "y"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_UNITS_MIN: Final = 2
"""From here on hours and years are shown as such: `119m`, `2h`, and `700d`, `2y`."""
_Resource = TypeVar("_Resource")


class Output(StrEnum):
    """How a command prints its objects."""

    TABLE = "table"
    WIDE = "wide"
    """A table with all of its columns and whole values."""
    JSON = "json"
    """The API's object or page."""
    YAML = "yaml"

    @property
    def is_data(self) -> bool:
        """Return whether programs read it."""
        return self in {Output.JSON, Output.YAML}


class Column(NamedTuple):
    """A column of a table."""

    head: str
    read: str | Callable[[Any], object]
    """The attribute of a row, or a function of the row."""
    is_wide: bool = False
    """Shown by `-o wide` only."""
    can_be_cut: bool = False
    """Whether its cells end in an ellipsis if the table is too wide."""
    is_cut_last: bool = False
    """Whether it is cut only if the other columns are as narrow as they can be, as the first column is."""
    can_be_left_out: bool = False
    """Whether the table is shown without it if fewer than `LEFT_OUT_CELLS` would be left for it."""
    is_state: bool = False
    """Whether its words have colours."""
    if_different: bool = False
    """Shown only if the rows differ in it, or by `-o wide`."""

    def value(self, row: object) -> object:
        """Return the value of a row."""
        return getattr(row, self.read) if isinstance(self.read, str) else self.read(row)


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


def say_file(text: str) -> None:
    """Print a part of a file: as it is to a file or a pipe, escaped on a terminal."""
    if sys.stdout.isatty():
        sys.stdout.write("\n".join(escape(line) for line in text.split("\n")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode())


def tell(text: str) -> None:
    """Print a message on standard error."""
    sys.stderr.write("\n".join(escape(line) for line in text.split("\n")) + "\n")
    sys.stderr.flush()


def fail(text: str) -> None:
    """Print an error on standard error."""
    sys.stderr.write(painted("dispatcher:", _RED, sys.stderr) + " ")
    tell(text)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    sys.stderr.write(painted("warning:", _YELLOW, sys.stderr) + " ")
    tell(text)


def painted(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return the text in a colour if the stream is a terminal that has colours; standard output by default."""
    stream = stream or sys.stdout
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if is_plain or not stream.isatty() else f"\x1b[{colour}m{text}\x1b[0m"


def say_data(value: object, output: Output) -> None:
    """Print an object as JSON or YAML; an event's data keep their digits."""
    if output is Output.YAML:
        from dispatcher.cli.yaml import write_yaml  # noqa: PLC0415 -- --help does not need it

        sys.stdout.write(write_yaml(_json_of(value)))
    else:
        say_json(value)


def say_json(value: object, *, indent: bool = True) -> None:
    """Print an object as JSON; an event's data keep their bytes."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    text = escape_json(_json_of(value, indent=indent), ascii_only=encoding != "utf8")
    sys.stdout.write(text + "\n")


def _json_of(value: object, *, indent: bool = True) -> str:
    from dispatcher.admin.resources.serialization import (  # noqa: PLC0415 -- --help does not need it
        write_json,
    )

    return write_json(value, indent=indent).decode()


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
        return f"PEM, {len(text)} characters (whole with -o json)"
    return escape(text)


def fields_of(value: object) -> Mapping[str, Any]:
    """Return the fields of a resource by name; a mapping is returned as it is."""
    if isinstance(value, Mapping):
        return value
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}  # type: ignore[arg-type]  # a resource


def age(at: str | datetime | None, now: datetime) -> str:
    """Return how long ago a time was, as `3m`, or in how long it comes, as `in 2h`; `-` if there is none."""
    if at is None:
        return "-"
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    seconds = (now - moment).total_seconds()
    return duration(seconds) if seconds >= 0 else f"in {duration(-seconds)}"


def duration(seconds: float) -> str:
    """Return a duration in one unit: `45s`, `3m`, `2h`, `5d`."""
    for size, unit in _UNITS:
        minimum = _UNITS_MIN if unit in {"h", "y"} else 1
        if seconds >= minimum * size:
            return f"{int(seconds // size)}{unit}"
    return "0s"


def age_column(field: str = "created_at", head: str = "AGE") -> Column:
    """Return the column of the age of a time of each row."""
    from dispatcher.runtime.clock import SystemClock  # noqa: PLC0415 -- --help needs no clock

    now = SystemClock.now()
    return Column(head, lambda row: age(getattr(row, field), now))


def say_table(
    rows: Sequence[object],
    columns: Sequence[Column],
    empty: str,
    output: Output = Output.TABLE,
    *,
    widths: list[int] | None = None,
) -> None:
    """Print rows under headings; see the module for the width.

    `widths` are those of a table that goes on: they are kept, and the headings are printed only if it is empty.
    """
    if not rows:
        tell(empty)
        return
    from rich.cells import cell_len  # noqa: PLC0415 -- --help prints no table

    is_wide = output is Output.WIDE
    goes_on = widths is not None
    shown = [one for one in columns if is_wide or _is_shown(one, rows, all_rows=not goes_on)]
    if widths and len(widths) < len(shown):
        shown = [one for one in shown if not one.can_be_left_out]
    cells = [[cell(column.value(row)) for column in shown] for row in rows]
    if not is_wide:
        cells = [
            [
                cut(text, CELL_CHARACTERS_MAX) if column.can_be_cut else text
                for text, column in zip(line, shown, strict=True)
            ]
            for line in cells
        ]
    heads = [column.head for column in shown]
    widths = [] if widths is None else widths
    lines = cells if widths else [heads, *cells]
    width = None if is_wide else table_width()
    if not widths:
        widths += [max(cell_len(line[at]) for line in lines) for at in range(len(shown))]
        if goes_on:
            widths[:] = [
                max(size, LIVE_CELL_CHARACTERS) if column.can_be_cut else size
                for size, column in zip(widths, shown, strict=True)
            ]
        if width is not None:
            wanted = list(widths)
            _shrink(widths, shown, width)
            if any(
                column.can_be_left_out and size < min(room, LEFT_OUT_CELLS)
                for column, size, room in zip(shown, widths, wanted, strict=True)
            ):
                widths.clear()
                rest = [one for one in columns if not one.can_be_left_out]
                say_table(rows, rest, empty, output, widths=widths if goes_on else None)
                return
    for line in lines:
        texts = []
        for text, column, size in zip(line, shown, widths, strict=True):
            fitting = text if width is None or not column.can_be_cut else cut(text, size)
            colour = _COLOURS.get(fitting) if column.is_state else None
            padding = " " * (size - cell_len(fitting))
            texts.append((painted(fitting, colour) if colour else fitting) + padding)
        sys.stdout.write(_GAP.join(texts).rstrip() + "\n")


def table_width() -> int | None:
    """Return the columns of the terminal, or of COLUMNS; None if standard output is not a terminal."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    return None


def _is_shown(column: Column, rows: Sequence[object], *, all_rows: bool) -> bool:
    """Return whether a narrow table has the column; of a table that goes on, not all rows are known."""
    if column.is_wide:
        return False
    if not column.if_different:
        return True
    return not all_rows or len({cell(column.value(row)) for row in rows}) > 1


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def _shrink(widths: list[int], columns: Sequence[Column], width: int) -> None:
    """Make the widest columns that can be cut narrower, until the table fits."""
    minima = {
        at: max(CELL_CHARACTERS_MIN, len(column.head))
        for at, column in enumerate(columns)
        if column.can_be_cut
    }
    # The first column, which has the name, is cut last.
    last = {at for at in minima if at == 0 or columns[at].is_cut_last}
    order = [[at for at in minima if at not in last], sorted(last)]
    while _width(widths) > width:
        candidates = next(
            (
                found
                for group in order
                if (found := [at for at in group if widths[at] > minima[at]])
            ),
            None,
        )
        if candidates is None:
            return
        widths[max(candidates, key=widths.__getitem__)] -= 1


def cut(text: str, cells: int) -> str:
    """Return the text in at most so many cells of a terminal, with an ellipsis if it is longer."""
    from rich.cells import cell_len  # noqa: PLC0415 -- --help prints no table

    if cell_len(text) <= cells:
        return text
    room, kept = cells - 1, []
    for character in text:
        room -= cell_len(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def say_fields(value: object, *, leave_out: Sequence[str] = ()) -> None:
    """Print a resource, one field per line."""
    shown = {name: one for name, one in fields_of(value).items() if name not in leave_out}
    size = max((len(name) for name in shown), default=0)
    for name, one in shown.items():
        text = cell(one)
        colour = _COLOURS.get(text) if name in {"state", "health", "outcome"} else None
        sys.stdout.write(f"{name.ljust(size)}  {painted(text, colour) if colour else text}\n")


def say_page(page: "Page", columns: Sequence[Column], *, output: Output, empty: str) -> None:
    """Print a page as data, or as a table with the cursor of the next page on stderr."""
    if output.is_data:
        say_data(page, output)
        return
    say_table(page.items, columns, empty, output)
    searched_back_to = getattr(page, "searched_back_to", None)
    if searched_back_to is not None:
        tell(f"ids, names, types, labels and payloads were searched back to {searched_back_to}")
    if page.next_cursor is not None:
        tell(f"more: --cursor {page.next_cursor}")


def say_object(
    value: _Resource, *, output: Output, human: Callable[[_Resource], None] = say_fields
) -> None:
    """Print one resource, as data or human-readable."""
    if output.is_data:
        say_data(value, output)
    else:
        human(value)
