"""A list of deliveries as a file: CSV for spreadsheets, JSON for programs.

`export_text` yields the file in parts, one for each page that Postgres returns, so that an export takes the
memory of one page. A value that a spreadsheet could take for a formula begins with an apostrophe, because labels,
types and names come from outside.
"""

import csv
import dataclasses
import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Final

import orjson

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.operations.deliveries import EXPORT_ROWS_MAX, DeliveryOperations
from dispatcher.admin.operations.endpoint_reader import EndpointReader
from dispatcher.admin.resources.delivery import Attempt, Delivery, ExportedDelivery, ExportQuery
from dispatcher.core.business_key import business_key

COLUMNS: Final = tuple(one.name for one in dataclasses.fields(ExportedDelivery))
_FORMULA: Final = tuple("=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
                        "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}")  # fmt: skip
NOTE: Final = (
    f"More deliveries match. An export has the newest {EXPORT_ROWS_MAX:,}. Narrow the filter."
)
MEDIA_TYPES: Final = {"csv": "text/csv", "json": "application/json"}
BOM: Final = "\ufeff"
"""Without it, a common spreadsheet reads UTF-8 as the encoding of its own country."""


async def export_text(
    deliveries: DeliveryOperations,
    endpoints: EndpointReader,
    actor: Actor,
    query: ExportQuery,
    note: str = NOTE,
) -> AsyncGenerator[str, None]:
    """Yield the file of a filter; `note` is the last row of a CSV file if more deliveries match.

    Raises:
        As `DeliveryOperations.export`, with the first part.
    """
    write = csv_text if query.format == "csv" else json_text
    pages = deliveries.export(actor, query.page_query())
    is_first, is_end = True, False
    try:
        async for page in pages:
            rows = await endpoints.names(actor, {one.endpoint_id for one, _ in page.rows})
            names = {one: row.name for one, row in rows.items()}
            yield write(rows_of(page.rows, names), is_first=is_first)
            is_first, is_end = False, page.is_end
    finally:
        await pages.aclose()
    yield (
        csv_end(note, is_complete=is_end) if query.format == "csv" else json_end(is_complete=is_end)
    )


def file_name(query: ExportQuery, at: datetime) -> str:
    """Return the name of the file of an export that begins at this time."""
    return f"deliveries-{at:%Y%m%d-%H%M%S}.{query.format}"


def rows_of(
    deliveries: Sequence[tuple[Delivery, Attempt | None]], names: Mapping[str, str]
) -> list[ExportedDelivery]:
    """Return the rows of a page of deliveries."""
    return [
        ExportedDelivery(
            created_at=one.created_at,
            key=business_key(one.labels),
            event_type=one.event_type,
            event_id=one.event_id,
            endpoint_name=names.get(one.endpoint_id),
            endpoint_id=one.endpoint_id,
            tenant=one.tenant,
            state=one.state,
            reason=one.reason,
            response_code=None if attempt is None else attempt.response_code,
            outcome=None if attempt is None else attempt.outcome,
            attempt_count=one.attempt_count,
            latency_seconds=None if attempt is None else attempt.latency_seconds,
            next_attempt_at=one.next_attempt_at,
            finished_at=one.finished_at,
            test=one.test,
            labels=one.labels,
            id=one.id,
        )
        for one, attempt in deliveries
    ]


def csv_text(rows: Sequence[ExportedDelivery], *, is_first: bool) -> str:
    """Return rows as CSV, the first ones below the names of the columns."""
    file = io.StringIO()
    writer = csv.writer(file)
    if is_first:
        file.write(BOM)
        writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(row, name)) for name in COLUMNS] for row in rows)
    return file.getvalue()


def json_text(rows: Sequence[ExportedDelivery], *, is_first: bool) -> str:
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
    if is_complete:
        return ""
    file = io.StringIO()
    csv.writer(file).writerow([_cell(note), *("" for _ in COLUMNS[1:])])
    return file.getvalue()


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
