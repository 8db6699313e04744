"""A connection that reads the row types of our statements with a query of its own.

asyncpg asks Postgres about each type that it does not know when a connection first prepares a statement with it. Its
query serves any type. It is recursive and scans `pg_class`, which grows with the partitions: 23 ms of the server's
CPU on a new connection, for which an event waited. This one takes 7 ms (ADR 127). It serves base types, rows of
built-in types, and arrays of both, also when one statement has all of them; other types are left to asyncpg.
"""

from typing import Any, Final

import asyncpg

from dispatcher.store.statements import statement

_TYPES: Final = statement("connection_types")
_BUILT_IN_MAX: Final = 16_383
"""The highest id of an object that belongs to Postgres (FirstNormalObjectId - 1)."""


class TypedConnection(asyncpg.Connection):
    """A connection whose row types are read quickly."""

    __slots__ = ()
    keeps_plans = True
    """Whether the plan of a statement fits its next run as well (store/kept_plans.py)."""

    async def _introspect_types(self, typeoids: Any, timeout: float | None) -> Any:  # noqa: ANN401, ASYNC109 -- the driver's own
        """Return the descriptions of types, and the statement that read them."""
        # The driver has no public way to describe a type. Without cached statements, a pooler may send each
        # statement to another session.
        driver: Any = self
        if driver._stmt_cache_enabled:  # noqa: SLF001 -- not public
            execute = driver._Connection__execute  # noqa: SLF001 -- not public
            read = await execute(_TYPES, (list(typeoids),), 0, timeout)
            if all(map(_is_plain, read[0])):
                return read
        inherited: Any = super()
        return await inherited._introspect_types(typeoids, timeout)  # noqa: SLF001 -- not public


def _is_plain(row: "asyncpg.Record") -> bool:
    if row["kind"] == b"c":
        return all(oid <= _BUILT_IN_MAX for oid in row["attrtypoids"])
    # A base type, or an array, whose elements' type is a row of its own.
    return bool(row["kind"] == b"b")
