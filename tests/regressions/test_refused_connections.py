"""A database that refuses connections (a closed database, a locked role) once ended the daemon."""

import asyncpg
import pytest

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.store.pool import Database

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [
        (
            "ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            "ALTER DATABASE {name} ALLOW_CONNECTIONS true",
        ),
        ("ALTER DATABASE {name} CONNECTION LIMIT 0", "ALTER DATABASE {name} CONNECTION LIMIT -1"),
        (
            "ALTER DATABASE {name} RENAME TO {name}_away",
            "ALTER DATABASE {name}_away RENAME TO {name}",
        ),
    ],
)
async def test_whatever_refuses_a_connection_is_waited_for(cluster, make_database, refuse, allow):
    url = make_database()
    name = url.partition("@/")[2].partition("?")[0]
    role = "guest"
    admin = await asyncpg.connect(cluster.dsn_for("postgres"))
    try:
        if not await admin.fetchval(
            "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role
        ):
            await admin.execute(f"CREATE ROLE {role} LOGIN")  # not a superuser: limits bind it
        await admin.execute(refuse.format(name=name))
        database = Database(url.replace("dispatcher@", f"{role}@"), connections_max=1)
        await database.open()
        with pytest.raises(StoreUnavailableError):
            await database.fetch_value("SELECT 1")
        await admin.execute(allow.format(name=name))
        assert await database.fetch_value("SELECT 1") == 1
        await database.close()
    finally:
        await admin.close()
