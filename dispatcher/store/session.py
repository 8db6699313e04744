"""What a session of our own is set to before its second statement: names resolve in pg_catalog alone."""

from typing import TYPE_CHECKING

from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_PIN = statement("connection_pin")


async def pin_session(connection: "Connection[Record]") -> bool:
    """Set the session's path; return False, and set nothing, if a pooler stands between."""
    return bool(await connection.fetchval(_PIN, connection.get_server_pid()))
