"""Refuses statements that read history under a plan for any day.

Postgres locks each partition that a plan names, also those that it then leaves out; a plan for any values names all of
them, and with years of history the table of locks is full, for producers as well (ADR 0035). So each statement that
reads a table with a partition for each day runs where plans are made for its values. `install` makes every connection
of the product in this process fail a statement that does not; tests that reach such a statement then fail.
"""

import re
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import asyncpg
import pytest

from dispatcher.store.statements import names, statement
from dispatcher.store.typed_connection import TypedConnection

_READS_HISTORY: Final = re.compile(
    r"\b(?:FROM|JOIN|UPDATE|USING)\s+dispatcher\.(?:event|body|attempt|delivery|delivery_done|delivery_row)\b"
)
_BEGINS: Final = re.compile(r"(?m)^\s*BEGIN\b")
_PLANS: Final = "force_custom_plan"
_COMMENT: Final = re.compile(r"--.*")


class UnplannedStatementError(Exception):
    """A statement that reads history, outside of a transaction that plans for its values."""


class _Plans(NamedTuple):
    """Whether plans are made for the values: now, and from the beginning of the transaction."""

    are_for_values: bool = False
    were_at_begin: bool = False


_plans: WeakKeyDictionary[TypedConnection, _Plans] = WeakKeyDictionary()


def reads_history(sql: str) -> bool:
    """Return whether a statement reads a table that has partitions."""
    return bool(_READS_HISTORY.search(_COMMENT.sub("", sql)))


HISTORY: Final = frozenset(
    statement(name) for name in names() if reads_history(statement(name)) and "CREATE " not in statement(name)
)  # fmt: skip


def _after(plans: _Plans, sql: str) -> _Plans:
    """Return what holds after a statement without parameters."""
    if _BEGINS.search(_COMMENT.sub("", sql)):
        return _Plans(_PLANS in sql, _PLANS in sql)
    if _PLANS in sql:
        return plans._replace(are_for_values=True)
    if sql.startswith("ROLLBACK TO"):
        return plans._replace(are_for_values=plans.were_at_begin)
    if sql.startswith(("COMMIT", "ROLLBACK")):
        return _Plans()
    return plans


def _require_plan(connection: TypedConnection, sql: str) -> None:
    plans = _plans.get(connection, _Plans())
    if sql in HISTORY and not plans.are_for_values:
        raise UnplannedStatementError(sql.partition("\n")[0])
    _plans[connection] = _after(plans, sql)


def install(patch: pytest.MonkeyPatch) -> None:
    """Watch the connections of this process until `patch` is undone."""
    for name in ("execute", "fetch", "fetchrow", "fetchval"):
        given: Any = getattr(asyncpg.Connection, name)

        async def watched(
            self: TypedConnection,
            query: str,
            *parameters: object,
            _given: Any = given,
            **options: Any,
        ) -> object:
            _require_plan(self, query)
            return await _given(self, query, *parameters, **options)

        patch.setattr(TypedConnection, name, watched, raising=False)
