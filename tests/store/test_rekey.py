"""Re-keying: everything sealed anew, nothing lost, cut off and run again, refused while a replica would go blind."""

import asyncio
import base64

import asyncpg
import pytest

from dispatcher.admin.operations import rekey as module
from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.rekey import Rekey
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.resources.maintenance import RekeyRun
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ConflictError, ForbiddenError, NotFoundError
from dispatcher.store.leases import Leases
from dispatcher.store.pool import Database
from dispatcher.store.secrets import Secrets
from tests.support.endpoints import create_endpoint

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
OLD, NEW = (f"{name}:" + base64.b64encode(name.encode() * 16).decode() for name in ("k1", "k2"))


def with_keys(pool: Database, database: str, *keys: str) -> Deployment:
    environ = {"DISPATCHER_DATABASE_URL": database, "DISPATCHER_SECRET_KEYS": ",".join(keys)}
    return deployment_of(load_settings(None, environ), pool)


async def make(deployment: Deployment, count: int) -> dict[str, str]:
    """Makes endpoints under the old key; returns their whole secrets by id."""
    made = {}
    for number in range(count):
        fields: dict[str, object] = {
            "name": f"e{number}",
            "url": "https://example.com/",
            "event_types": ["*"],
        }
        fields["profile"] = "standard"
        endpoint = await create_endpoint(Endpoints(deployment), ALL, fields)
        made[endpoint.id] = str(endpoint.secret)
    return made


async def keys_in_use(sql: asyncpg.Connection) -> dict[str, int]:
    rows = await sql.fetch("SELECT key_id, count(*) FROM dispatcher.endpoint_secret GROUP BY 1")
    return {row[0]: row[1] for row in rows}


async def test_every_secret_is_sealed_anew_and_opens_without_the_old_key(database, pool, sql):
    made = await make(with_keys(pool, database, OLD), 5)
    wms = await create_endpoint(
        Endpoints(with_keys(pool, database, OLD)),
        ALL,
        {"name": "w", "url": "https://x.test/", "event_types": ["*"], "profile": "wms"},
    )
    staged = await Rotation(with_keys(pool, database, OLD)).rotate(ALL, wms.id)
    heard: list[tuple[int, int]] = []
    answer = await Rekey(with_keys(pool, database, NEW, OLD)).run(
        ALL, progress=lambda done, total: heard.append((done, total))
    )
    assert answer == RekeyRun(key_id="k2", secrets=7, resealed=7, unreadable=[])
    assert heard == [(0, 7), (7, 7)]
    assert await keys_in_use(sql) == {"k2": 7}
    new_only = Rotation(with_keys(pool, database, NEW))
    for endpoint_id, secret in made.items():
        assert (await new_only.reveal(ALL, endpoint_id)).secret == secret
    assert (await new_only.reveal(ALL, wms.id)).staged_secret == staged.secret
    audit = await sql.fetchrow("SELECT detail FROM dispatcher.audit WHERE action = 'secrets.rekey'")
    assert all(secret not in audit["detail"] for secret in made.values())
    again = await Rekey(with_keys(pool, database, NEW, OLD)).run(ALL)
    assert again.resealed == 0


async def test_cut_off_it_goes_on_where_it_was(database, pool, sql, monkeypatch):
    await make(with_keys(pool, database, OLD), 5)
    monkeypatch.setattr(module, "SLICE_ROWS", 2)
    both = with_keys(pool, database, NEW, OLD)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Rekey(both).run(ALL, progress=stop)
    assert await keys_in_use(sql) == {"k1": 3, "k2": 2}
    assert (await Rekey(both).run(ALL)).resealed == 3


async def test_a_secret_that_no_key_opens_is_named_and_left(database, pool, sql):
    made = await make(with_keys(pool, database, OLD), 3)
    broken = next(iter(made))
    await sql.execute(
        "UPDATE dispatcher.endpoint_secret SET sealed = 'short' WHERE endpoint_id = $1", broken
    )
    answer = await Rekey(with_keys(pool, database, NEW, OLD)).run(ALL)
    assert (answer.resealed, answer.unreadable) == (2, [broken])
    assert await keys_in_use(sql) == {"k1": 1, "k2": 2}


async def test_a_rotation_in_the_same_moment_wins(database, pool, monkeypatch):
    made = await make(with_keys(pool, database, OLD), 1)
    (endpoint_id,) = made
    both = with_keys(pool, database, NEW, OLD)
    replace = Secrets.replace

    async def rotated_meanwhile(self, key_id, changes):
        monkeypatch.setattr(Secrets, "replace", replace)
        await Rotation(with_keys(pool, database, OLD)).rotate(
            ALL, endpoint_id, new_secret="whsec_" + "A" * 44, overlap_seconds=0
        )
        assert await replace(self, key_id, changes) == 0
        return 0

    monkeypatch.setattr(Secrets, "replace", rotated_meanwhile)
    assert (await Rekey(both).run(ALL)).resealed == 1  # the new one, found by the next slice
    revealed = await Rotation(with_keys(pool, database, NEW)).reveal(ALL, endpoint_id)
    assert revealed.secret == "whsec_" + "A" * 44


@pytest.mark.parametrize("key_ids", [["k1"], None])
async def test_it_is_refused_while_a_running_replica_could_not_read(database, pool, sql, key_ids):
    await make(with_keys(pool, database, OLD), 1)
    await Leases(pool, key_ids or ()).join("i", "blind-one", "1.0", 60.0)
    if key_ids is None:
        await sql.execute("UPDATE dispatcher.replica SET key_ids = NULL")
    both = with_keys(pool, database, NEW, OLD)
    with pytest.raises(ConflictError, match="blind-one"):
        await Rekey(both).run(ALL)
    assert await keys_in_use(sql) == {"k1": 1}
    assert (await Rekey(both).run(ALL, unchecked=True)).resealed == 1


async def test_only_an_admin_of_everything_may(database, pool):
    both = with_keys(pool, database, NEW, OLD)
    with pytest.raises(ForbiddenError):
        await Rekey(both).run(Actor(name="o", role=Role.OPERATOR))
    with pytest.raises(NotFoundError):
        await Rekey(both).run(Actor(name="t", tenant="acme"))
