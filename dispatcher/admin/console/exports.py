"""A list of deliveries as a file: CSV for spreadsheets, JSON for programs.

The rows are written page by page as Postgres returns them, so that an export takes the memory of one
page. A value that a spreadsheet could take for a formula begins with an apostrophe, because labels,
types and names come from outside.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from dispatcher.admin.console.labels import business_key
from dispatcher.admin.resources.delivery import Attempt, Delivery

Row = Mapping[str, object]

COLUMNS: Final = (
    "created_at", "key", "event_type", "event_id", "webhook", "endpoint_id", "tenant", "state", "reason",
    "response_code", "outcome", "attempt_count", "latency_seconds", "next_attempt_at", "finished_at", "test",
    "labels", "id",
)  # fmt: skip
_FORMULA: Final = tuple("=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
                        "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
BOM: Final = "\ufeff"
"""Without it, a common spreadsheet reads UTF-8 as the encoding of its own country."""


def rows_of(
    deliveries: Sequence[tuple[Delivery, Attempt | None]], names: Mapping[str, str]
) -> list[Row]:
    """Return the rows of a page of deliveries, by column."""
    return [
        {
            "created_at": one.created_at,
            "key": business_key(one.labels),
            "event_type": one.event_type,
            "event_id": one.event_id,
            "webhook": names.get(one.endpoint_id),
            "endpoint_id": one.endpoint_id,
            "tenant": one.tenant,
            "state": one.state,
            "reason": one.reason,
            "response_code": None if attempt is None else attempt.response_code,
            "outcome": None if attempt is None else attempt.outcome,
            "attempt_count": one.attempt_count,
            "latency_seconds": None if attempt is None else attempt.latency_seconds,
            "next_attempt_at": one.next_attempt_at,
            "finished_at": one.finished_at,
            "test": one.test,
            "labels": one.labels,
            "id": one.id,
        }
        for one, attempt in deliveries
    ]


def csv_text(rows: Sequence[Row], *, is_first: bool) -> str:
    """Return rows as CSV, the first ones below the names of the columns."""
    file = io.StringIO()
    writer = csv.writer(file)
    if is_first:
        file.write(BOM)
        writer.writerow(COLUMNS)
    writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
    return file.getvalue()


def json_text(rows: Sequence[Row], *, is_first: bool) -> str:
    """Return rows as members of the JSON list that `json_end` closes."""
    text = ",\n".join(orjson.dumps(row).decode() for row in rows)
    if is_first:
        return '{"items": [\n' + text
    return ",\n" + text if text else ""


def json_end(*, is_complete: bool) -> str:
    """Return the end of a JSON file; it is not complete if more deliveries match than an export holds."""
    return '\n], "is_complete": ' + ("true" if is_complete else "false") + "}\n"


def csv_end(note: str, *, is_complete: bool) -> str:
    """Return the last row of a CSV file, which exists only if more deliveries match."""
    return (
        ""
        if is_complete
        else csv_text([{**dict.fromkeys(COLUMNS), "created_at": note}], is_first=False)
    )


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case dict():
            text = orjson.dumps(value).decode() if value else ""
        case _:
            text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
