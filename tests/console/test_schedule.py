"""The console's schedule and Retry now: what is shown, counted, asked and changed, without scripts."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from dispatcher.admin.operations.context import Deployment
from tests.console.conftest import ALL, Client, Served
from tests.support.story import Story

pytestmark = pytest.mark.postgres

HOSTILE = "<img src=x onerror=run()>"


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def waiting(
    deployment: Deployment, connection: asyncpg.Connection
) -> tuple[str, list[str], asyncpg.Connection]:
    """An endpoint with three deliveries that wait for a retry in an hour."""
    story = Story(deployment, connection)
    endpoint_id = await story.endpoint(HOSTILE)
    made = [await story.delivery(endpoint_id, f"e{number}", "retrying") for number in range(3)]
    await connection.execute(
        "UPDATE dispatcher.delivery_open SET next_attempt_at = now() + interval '1 h'"
    )
    return endpoint_id, made, connection


async def test_schedule_page_counts_confirms_and_changes_what_is_chosen(
    admin: Client, waiting: tuple[str, list[str], asyncpg.Connection]
) -> None:
    endpoint_id, made, connection = waiting
    page = await admin.get("/schedule")
    assert all(one in page.text for one in made)
    assert HOSTILE not in page.text
    assert "Selected deliveries" in page.text
    assert "All deliveries that match" not in page.text, "without a filter there is no such button"
    assert "ไม่มีอะไร" not in (await admin.get("/schedule", Accept_Language="th")).text
    filtered = await admin.get(f"/schedule?endpoint_id={endpoint_id}")
    assert f"/schedule/cancel?endpoint_id={endpoint_id}" in filtered.text
    path = f"/schedule/postpone?ids={made[0]}&ids={made[1]}"
    asked = await admin.get(path)
    assert "2 deliveries" in asked.text
    wrong = await admin.submit(path, {"by_minutes": "soon", "due_at": ""})
    assert wrong.status == 422
    done = await admin.submit(path, {"by_minutes": "60", "due_at": ""})
    assert (done.status, done.headers["Location"]) == (303, "/schedule")
    rows = await connection.fetch(
        "SELECT id FROM dispatcher.delivery WHERE next_attempt_at > now() + interval '110 min'"
    )
    assert {row["id"] for row in rows} == set(made[:2])
    assert (await admin.submit(f"/schedule/retry?ids={made[2]}", {})).status == 303
    assert (await admin.submit(f"/schedule/cancel?endpoint_id={endpoint_id}", {})).status == 303
    assert await connection.fetchval("SELECT count(*) FROM dispatcher.delivery_open") == 0
    assert "No deliveries are waiting" in (await admin.get("/schedule")).text
    assert (await admin.get("/schedule/cancel")).status == 422, "a filter without a condition"


async def test_schedule_page_gives_a_viewer_no_buttons(
    served: Served, waiting: tuple[str, list[str], asyncpg.Connection]
) -> None:
    endpoint_id, made, _ = waiting
    viewer = await served.as_role("viewer")
    page = await viewer.get(f"/schedule?endpoint_id={endpoint_id}")
    assert made[0] in page.text
    assert 'name="ids"' not in page.text
    assert f"/schedule/cancel?endpoint_id={endpoint_id}" not in page.text
    assert (await viewer.get(f"/schedule/cancel?endpoint_id={endpoint_id}")).status == 403
    assert "Retry now" not in (await viewer.get(f"/webhooks/{endpoint_id}")).text
    csrf = (await viewer.get("/preferences")).hidden("csrf")
    refused = await viewer.post(f"/webhooks/{endpoint_id}/retry", {"csrf": csrf})
    assert refused.status == 403


async def test_retry_now_is_on_the_webhook_and_beside_it_on_home(
    admin: Client, waiting: tuple[str, list[str], asyncpg.Connection], served: Served
) -> None:
    endpoint_id, made, connection = waiting
    await connection.execute(
        "INSERT INTO dispatcher.endpoint_status (endpoint_id, health, since) VALUES ($1, 'down', now())",
        endpoint_id,
    )
    path = f"/webhooks/{endpoint_id}/retry"
    assert f"/problems/{endpoint_id}/retry" in (await admin.get("/")).text
    shown = await admin.submit(path, {}, page=f"/webhooks/{endpoint_id}")
    assert shown.status == 200
    assert "The retry is requested" in shown.text
    assert made[0] in shown.text
    await served.operations.endpoints.pause(ALL, endpoint_id)
    assert path not in (await admin.get(f"/webhooks/{endpoint_id}")).text
    refused = await admin.submit(path, {}, page=f"/webhooks/{endpoint_id}/test")
    assert refused.status == 409
    assert "paused" in refused.text
