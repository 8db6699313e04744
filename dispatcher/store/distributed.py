"""Statements for a database whose history is distributed over Citus workers by event id.

Citus rejects most statements that join history with tables of the coordinator. Each of them therefore first
reads the rows of history that it needs, through functions (`history_functions.sql`), and the rest of it is
ordinary SQL on the coordinator:

    WITH event_read AS MATERIALIZED (SELECT * FROM dispatcher.read_event('SELECT ... WHERE day = ...'))
    SELECT ... FROM event_read AS e JOIN dispatcher.endpoint ...

`distributed_reads.toml` has the rows that each statement needs. Rows are
written through the views `event_write`, `body_write`, `delivery_done_write` and `attempt_write`, or copied into
the tables. The few statements that change or lock rows of history are in `sql_distributed/`, under the same names.

The texts are replaced in the connection, so that an ordinary database has neither a flag in its statements nor a cost.
"""

import contextlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

import asyncpg

from dispatcher.store import statements
from dispatcher.store.typed_connection import TypedConnection

TABLES: Final = {
    "event": "id",
    "body": "event_id",
    "delivery_done": "event_id",
    "attempt": "event_id",
}
"""The tables of history, with the column that has the event's id."""
_VIEWS: Final = {"delivery_row": {"delivery_done"}, "attempt_row": {"attempt", "delivery_done"}}
"""The views over them that statements read."""
_ARGUMENT: Final = re.compile(
    r"(?:\$(?P<number>\d+)|\{(?P<expression>[^{}]+)\})::(?P<type>[a-z]+(?:\[\])?)"
)
_VIOLATION: Final = re.compile(r'violates (\w+) constraint "([^"]+)"')
_VIOLATIONS: Final = {"check": asyncpg.CheckViolationError, "unique": asyncpg.UniqueViolationError}
_INSERTED: Final = re.compile(rf"\bINTO dispatcher\.({'|'.join(TABLES)})\b")
_HISTORY: Final = re.compile(rf"\bdispatcher\.({'|'.join((*TABLES, *_VIEWS))})\b")


class DistributedConnection(TypedConnection):
    """A connection that runs the distributed form of each statement that has one."""

    __slots__ = ()
    keeps_plans = False
    """The days of a distributed form are among the values that it sends to the workers."""

    async def execute(self, query: str, *args: object, **options: Any) -> str:  # noqa: ANN401 -- the driver's own
        """Run a statement and return its command tag."""
        with _row_errors():
            return await super().execute(texts().get(query, query), *args, **options)

    async def fetch(self, query: str, *args: object, **options: Any) -> Any:  # noqa: ANN401 -- the driver's own
        """Run a statement and return its rows."""
        with _row_errors():
            return await super().fetch(texts().get(query, query), *args, **options)

    async def fetchrow(self, query: str, *args: object, **options: Any) -> Any:  # noqa: ANN401 -- the driver's own
        """Run a statement and return its first row."""
        with _row_errors():
            return await super().fetchrow(texts().get(query, query), *args, **options)

    async def fetchval(self, query: str, *args: object, **options: Any) -> Any:  # noqa: ANN401 -- the driver's own
        """Run a statement and return a column of its first row."""
        with _row_errors():
            return await super().fetchval(texts().get(query, query), *args, **options)

    async def copy_records_to_table(self, table_name: str, **options: Any) -> str:  # noqa: ANN401 -- the driver's own
        """Copy rows into a table."""
        with _row_errors():
            return await super().copy_records_to_table(table_name, **options)


@contextlib.contextmanager
def _row_errors() -> Iterator[None]:
    """Raise violated constraints as the errors that one server reports: COPY to workers loses their code."""
    try:
        yield
    except asyncpg.InternalServerError as error:
        found = _VIOLATION.search(str(error))
        if found is None:
            raise
        kind = _VIOLATIONS.get(found[1], asyncpg.IntegrityConstraintViolationError)
        violation = kind(str(error))
        violation.constraint_name = found[2]
        raise violation from error


@cache
def texts() -> Mapping[str, str]:
    """Return the distributed forms of statements, by their ordinary text."""
    own = {
        entry.name.removesuffix(".sql"): entry.read_text(encoding="utf-8")
        for entry in resources.files("dispatcher.store").joinpath("sql_distributed").iterdir()
        if entry.name.endswith(".sql")
    }
    known = reads()
    found = {}
    for name in statements.names():
        if name.startswith("history_"):  # about the distribution itself
            continue
        text = statements.statement(name)
        changed = own.get(name, text)
        for old, new in edits().get(name, ()):
            if old not in changed:
                raise KeyError(f"distributed_reads.toml: {name} has no text {old!r}")
            changed = changed.replace(old, new)
        distributed = _distributed(changed, known.get(name, {}))
        if distributed != text:
            found[text] = distributed
    return found


@cache
def _entries() -> Mapping[str, Mapping[str, Any]]:
    text = resources.files("dispatcher.store").joinpath("distributed_reads.toml").read_text("utf-8")
    return tomllib.loads(text)


@cache
def edits() -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return the parts of each statement that are replaced, with their replacements."""
    return {
        name: [tuple(one) for one in entry.get("edit", ())] for name, entry in _entries().items()
    }


@cache
def reads() -> Mapping[str, Mapping[str, str]]:
    """Return the rows of history that each statement needs: a SELECT for each table."""
    found: dict[str, dict[str, str]] = {}
    for name, entry in _entries().items():
        rows = {table: _select(table, entry[table]) for table in entry if table in TABLES}
        if "like" in entry:
            rows = dict(found[entry["like"]])
        for old, new in entry.get("replace", ()):
            rows = {table: select.replace(old, new) for table, select in rows.items()}
        found[name] = rows
    return found


def _select(table: str, rows: str) -> str:
    is_whole = rows.lstrip().startswith(("SELECT", "(SELECT"))
    return rows if is_whole else f"SELECT * FROM dispatcher.{table} WHERE {rows}"  # noqa: S608 -- our own files


def _distributed(text: str, rows: Mapping[str, str]) -> str:
    text = _outside_quotes(text, lambda part: _INSERTED.sub(r"INTO dispatcher.\1_write", part))
    if not rows:
        return text
    code = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE)
    ctes: list[str] = []
    for table, select in rows.items():
        ctes.append(f"{table}_read AS MATERIALIZED (\n{_call(table, select)})")
        for view, sources in _VIEWS.items():
            if table in sources and sources <= {one.partition("_read ")[0] for one in ctes}:
                ctes.append(f"{view}_read AS NOT MATERIALIZED (\n{_read_names(_query_of(view))})")
    code = _read_names(code)
    code = (
        re.sub(r"\bWITH (?=\w+ AS)", ",\n", code, count=1)
        if code.lstrip().startswith("WITH ")
        else "\n" + code
    )
    return "WITH " + ",\n".join(ctes) + code


def _read_names(sql: str) -> str:
    return _outside_quotes(sql, lambda part: _HISTORY.sub(r"\1_read", part))


def _outside_quotes(sql: str, change: Callable[[str], str]) -> str:
    """Change a statement, but not its comments and strings: what they name is for the workers, or no table."""
    parts = re.split(r"(--.*|'(?:[^']|'')*')", sql)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


def report_views() -> list[str]:
    """Return statements that make the views for reports read history through functions, all of it at a time."""

    def read(found: "re.Match[str]") -> str:
        is_table = found[1] in TABLES
        return f"dispatcher.read_{found[1]}('SELECT * FROM {found[0]}')" if is_table else found[0]  # noqa: S608 -- our own files

    return [
        f"CREATE OR REPLACE VIEW dispatcher.{name} AS\n{_HISTORY.sub(read, _query_of(name))}"
        for name in ("delivery_row", "attempt_row", "event_all", "delivery")
    ]


@cache
def _query_of(view: str) -> str:
    """Return the query of a view, as the first migration has it."""
    folder = resources.files("dispatcher.store").joinpath("migrations")
    text = folder.joinpath("0001_pre_schema.sql").read_text("utf-8")
    found = re.search(rf"CREATE VIEW dispatcher\.{view} AS\n(.*?);", text, re.DOTALL)
    assert found is not None, view  # noqa: S101 -- a slip
    return found[1]


def _call(table: str, select: str) -> str:
    arguments: list[str] = []

    def argument(found: "re.Match[str]") -> str:
        value = f"${found['number']}" if found["number"] else f"({found['expression']})"
        arguments.append(f"{value}::{found['type']}")
        return f"%L::{found['type']}"

    template = _ARGUMENT.sub(argument, select.replace("%", "%%"))
    given = "".join(f", {one}" for one in arguments)
    return f"SELECT * FROM dispatcher.read_{table}(format($read${template}$read${given}))"  # noqa: S608 -- our own files
