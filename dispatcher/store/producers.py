"""The rights of the producers' role, `dispatcher_producer`."""

from typing import TYPE_CHECKING

import asyncpg

from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_PRODUCER_EXCESS = statement("producer_excess")
_PRODUCER_ROLE_SET = statement("producer_role_set")
_PRODUCER_TRIAL = statement("producer_trial")


async def producer_excess(connection: "Reach") -> list[str]:
    """Return the rights that the producers' role has beyond what it needs."""
    return [row["excess"] for row in await connection.fetch(_PRODUCER_EXCESS)]


async def may_act_as_producer(connection: "Reach") -> bool:
    """Return whether the connected user can become a producer, as `producer_insert_problem` does."""
    return bool(await connection.fetchval(_PRODUCER_ROLE_SET))


async def producer_insert_problem(connection: "Reach") -> str | None:
    """Insert events as `dispatcher_producer` and roll back; return why that fails, None if it works."""
    transaction = connection.transaction()  # a savepoint, where the caller has a transaction
    await transaction.start()
    try:
        await connection.execute(_PRODUCER_TRIAL)
    except asyncpg.PostgresError as error:
        return str(error)
    finally:
        await transaction.rollback()
    return None
