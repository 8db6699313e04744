"""What one tenant may configure, on the real database: endpoints, headers, labels, event types."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import ConflictError, InvalidRequestError
from dispatcher.store.pool import Database
from tests.support.endpoints import create_endpoint, update_endpoint

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
GOOD = {"url": "https://example.com/hooks", "event_types": ["order.*"]}


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    settings = load_settings(
        None,
        {
            "DISPATCHER_DATABASE_URL": database,
            "DISPATCHER_SECRET_KEYS": "k1:" + "QUJD" * 10 + "QUI=",
            "DISPATCHER_LIMITS__ENDPOINTS_PER_TENANT": "3",
            "DISPATCHER_LIMITS__EVENT_TYPES_PER_ENDPOINT": "2",
            "DISPATCHER_LIMITS__LABELS_PER_ENDPOINT": "1",
            "DISPATCHER_LIMITS__HEADER_BYTES_PER_ENDPOINT": "40",
        },
    )
    pool = Database(database, connections_max=8)
    await pool.open()
    yield deployment_of(settings, pool)
    await pool.close()


async def test_a_tenant_has_at_most_so_many_endpoints(deployment: Deployment):
    endpoints = Endpoints(deployment)
    made = [
        await create_endpoint(endpoints, ALL, {**GOOD, "name": f"e{number}", "tenant": "a"})
        for number in range(3)
    ]
    with pytest.raises(ConflictError, match=r"tenant a has 3 .*limits\.endpoints_per_tenant"):
        await create_endpoint(endpoints, ALL, {**GOOD, "name": "e3", "tenant": "a"})
    await create_endpoint(endpoints, ALL, {**GOOD, "name": "e3", "tenant": "b"})
    await endpoints.delete(ALL, made[0].id)
    await create_endpoint(endpoints, ALL, {**GOOD, "name": "e3", "tenant": "a"})


async def test_simultaneous_creations_do_not_pass_the_limit(deployment: Deployment):
    endpoints = Endpoints(deployment)

    async def create(number: int) -> bool:
        try:
            await create_endpoint(endpoints, ALL, {**GOOD, "name": f"e{number}", "tenant": "a"})
        except ConflictError:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(create(number)) for number in range(8)]
    assert sum(task.result() for task in tasks) == 3


@pytest.mark.parametrize(
    ("field", "given", "values"),
    [
        (
            "event_types",
            ["a.a", "b.b", "c.c"],
            (3, "limits.event_types_per_endpoint", 2),
        ),
        (
            "labels",
            {"a": "1", "b": "2"},
            (2, "limits.labels_per_endpoint", 1),
        ),
        (
            "headers",
            {"X-Api-Key": "x" * 30},
            (43, "limits.header_bytes_per_endpoint", 40),
        ),
    ],
)
async def test_an_endpoint_beyond_a_limit_is_refused(
    deployment: Deployment, field: str, given: object, values: tuple[int, str, int]
):
    endpoints = Endpoints(deployment)
    with pytest.raises(InvalidRequestError) as caught:
        await create_endpoint(endpoints, ALL, {**GOOD, "name": "e", field: given})
    (one,) = caught.value.problems
    assert (one.field, one.code) == (field, "limit_exceeded")
    assert tuple(one.values[name] for name in ("count", "setting", "maximum")) == values
    made = await create_endpoint(endpoints, ALL, {**GOOD, "name": "e"})
    with pytest.raises(InvalidRequestError):
        await update_endpoint(endpoints, ALL, made.id, {field: given})
