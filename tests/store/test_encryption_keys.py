"""Keys whose id has another value here: found before anything is encrypted, by every operation that encrypts."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.rekey import Rekey
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ConfigurationError
from dispatcher.core.sealing import Keyring
from dispatcher.runtime.tasks import TaskSet
from dispatcher.store.encryption_keys import missing_keys, register_keys, wrong_keys
from dispatcher.store.pool import Database
from tests.support.daemon import until
from tests.support.endpoints import create_endpoint, update_endpoint

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
ONE, TWO = Keyring({"k1": b"1" * 32}), Keyring({"k1": b"2" * 32})
FIELDS: dict[str, object] = {
    "name": "e",
    "url": "https://example.com/",
    "event_types": ["*"],
    "profile": "standard",
    "oauth_token_url": "https://example.com/token",
    "oauth_client_id": "c",
    "oauth_client_secret": "a client's secret",
}
TABLES = ("endpoint", "endpoint_secret", "endpoint_revision", "encryption_key", "audit")


def with_keys(pool: Database, database: str, **keys: bytes) -> Deployment:
    texts = [f"{key_id}:{base64.b64encode(value).decode()}" for key_id, value in keys.items()]
    environ = {"DISPATCHER_DATABASE_URL": database, "DISPATCHER_SECRET_KEYS": ",".join(texts)}
    return deployment_of(load_settings(None, environ), pool)


Encrypt = Callable[[Deployment, str], Awaitable[object]]
ENCRYPTING: dict[str, Encrypt] = {
    "create": lambda wrong, _: create_endpoint(Endpoints(wrong), ALL, {**FIELDS, "name": "other"}),
    "rotate": lambda wrong, endpoint_id: Rotation(wrong).rotate(ALL, endpoint_id),
    "credentials": lambda wrong, endpoint_id: update_endpoint(
        Endpoints(wrong), ALL, endpoint_id, {"oauth_client_secret": "another"}
    ),
    "rekey": lambda wrong, _: Rekey(wrong).run(ALL),
}


@pytest.mark.parametrize("operation", ENCRYPTING)
@pytest.mark.parametrize("position", ["first", "second"])
async def test_operation_with_another_value_of_a_key_changes_nothing(
    database, pool, sql, operation, position
):
    made = await create_endpoint(
        Endpoints(with_keys(pool, database, k1=b"1" * 32)), ALL, dict(FIELDS)
    )
    keys = {"k1": b"2" * 32} if position == "first" else {"k2": b"3" * 32, "k1": b"2" * 32}
    before = [await sql.fetch(f"TABLE dispatcher.{table}") for table in TABLES]
    with pytest.raises(ConfigurationError, match="key 'k1' has another value"):
        await ENCRYPTING[operation](with_keys(pool, database, **keys), made.id)
    assert [await sql.fetch(f"TABLE dispatcher.{table}") for table in TABLES] == before


async def test_first_of_two_at_once_registers_and_the_other_is_refused(pool, sql):
    async with TaskSet("test") as tasks:
        async with pool.transaction() as connection:
            await register_keys(connection, ONE)
            waiting = tasks.spawn("second", _refused(pool, TWO))
            await _blocked(sql)
        await waiting
    assert await wrong_keys(pool, ONE) == []


async def test_second_registers_if_the_first_rolls_back(pool, sql):
    async with TaskSet("test") as tasks:
        async with pool.connection() as connection:
            await connection.execute("BEGIN")
            await register_keys(connection, ONE)
            waiting = tasks.spawn("second", _register(pool, TWO))
            await _blocked(sql)
            await connection.execute("ROLLBACK")
        await waiting
    assert await wrong_keys(pool, TWO) == []
    assert len(await wrong_keys(pool, ONE)) == 1


async def test_replicas_with_one_value_register_together(pool, sql):
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(_register(pool, Keyring({"k2": b"2" * 32, "k1": b"1" * 32})))
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.encryption_key") == 2


async def test_secrets_without_a_proof_are_proof_enough(database, pool, sql):
    await create_endpoint(Endpoints(with_keys(pool, database, k1=b"1" * 32)), ALL, dict(FIELDS))
    await sql.execute("DELETE FROM dispatcher.encryption_key")
    assert len(await wrong_keys(pool, TWO)) == 1
    with pytest.raises(ConfigurationError, match="'k1' has another value"):
        async with pool.transaction() as connection:
            await register_keys(connection, TWO)
    assert await wrong_keys(pool, ONE) == []
    assert len(await missing_keys(pool, Keyring({"k2": b"2" * 32}))) == 1


async def _register(pool: Database, keyring: Keyring) -> None:
    async with pool.transaction() as connection:
        await register_keys(connection, keyring)


async def _refused(pool: Database, keyring: Keyring) -> None:
    with pytest.raises(ConfigurationError, match="'k1' has another value"):
        await _register(pool, keyring)


async def _blocked(sql) -> None:
    """Return once a session waits for another one's transaction."""
    count = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'transactionid'"
    )
    await until(lambda: sql.fetchval(count), seconds=10, what="a session that waits")
