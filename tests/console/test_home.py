"""Home: the state, the problems with their actions, the ranges, and the first steps."""

import re
from html import unescape
from typing import Any

import pytest

from dispatcher.admin.operations.context import Deployment
from dispatcher.store.leases import Leases
from tests.console.conftest import ADMIN_TOKEN, Client, Served
from tests.support.story import Story

pytestmark = pytest.mark.postgres


async def down(sql: Any, endpoint_id: str) -> None:
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_status VALUES ($1, 'down', now(), 'http_error', 503)",
        endpoint_id,
    )


async def act(client: Client, endpoint_id: str, name: str, *, in_place: bool = True) -> Any:
    shown = await client.get("/problems")
    hidden = {name: shown.hidden(name) for name in ("csrf", "form_id")}
    headers = {"HX_Request": "true"} if in_place else {}
    return await client.post(f"/problems/{endpoint_id}/{name}", hidden, **headers)


async def test_problems_are_cards_with_counts_and_actions(
    admin: Client, served: Served, deployment: Deployment, story: Story, sql: Any
) -> None:
    endpoint = await story.endpoint("erp")
    await story.delivery(endpoint, "evt_1")
    await story.delivery(endpoint, "evt_2", "failed")
    await sql.execute(
        "UPDATE dispatcher.delivery_open SET next_attempt_at = now() + interval '1 h'"
    )
    await down(sql, endpoint)
    assert "2 problems need attention" in (await admin.get("/")).text, "no dispatcher is running"
    await Leases(deployment.database).join("alive", "one", "1.0", 60.0)
    home = (await admin.get("/")).text
    assert "erp: No attempt succeeds." in home
    card = home[home.index(f'id="problem-{endpoint}"') :]
    card = card[: card.index("</li>")]
    for text in ("Down", "503", f"/schedule?endpoint_id={endpoint}", "state=failed"):
        assert text in card
    for name in ("retry", "resend", "test", "pause"):
        assert f'action="/problems/{endpoint}/{name}"' in card
    viewer = await served.as_role("viewer")
    assert f"/problems/{endpoint}/" not in (await viewer.get("/")).text
    csrf = (await viewer.get("/preferences")).hidden("csrf")
    refused = await viewer.post(f"/problems/{endpoint}/pause", {"csrf": csrf})
    assert refused.status == 403
    other = await served.as_role("operator", "acme")
    assert "erp" not in (await other.get("/problems")).text
    csrf = (await other.get("/preferences")).hidden("csrf")
    assert (await other.post(f"/problems/{endpoint}/pause", {"csrf": csrf})).status == 404


async def test_an_action_shows_its_outcome_in_place_or_as_a_page(
    admin: Client, story: Story, sql: Any
) -> None:
    endpoint = await story.endpoint("erp", url="https://127.0.0.1/")
    await story.delivery(endpoint, "evt_1", "failed")
    await down(sql, endpoint)
    resent = await act(admin, endpoint, "resend")
    assert resent.status == 200
    assert "<html" not in resent.text
    job = re.search(r'href="/jobs/([^"]+)"', resent.text)
    assert job is not None
    row = await sql.fetchrow("SELECT kind, filter FROM dispatcher.job WHERE id = $1", job[1])
    assert row["kind"] == "resend"
    assert endpoint in row["filter"]
    assert "failed" in row["filter"]
    tested = await act(admin, endpoint, "test")
    assert "The receiver did not accept it" in tested.text
    assert "notice bad" in tested.text
    paused = await act(admin, endpoint, "pause", in_place=False)
    assert "<html" in paused.text
    assert "Paused" in paused.text
    assert await sql.fetchval("SELECT state FROM dispatcher.endpoint") == "paused"
    retried = await act(admin, endpoint, "retry")
    assert (retried.status, "notice bad" in retried.text) == (200, True), "it is paused"


async def test_each_range_links_its_parts_to_their_deliveries(admin: Client, story: Story) -> None:
    await story.delivery(await story.endpoint("erp"), "evt_1")
    for name, parts in (("1h", 60), ("24h", 24), ("7d", 56), ("30d", 60), ("nothing", 24)):
        text = unescape((await admin.get(f"/?range={name}")).text)
        links = re.findall(r'<a href="(/deliveries\?since=[^"&]+&until=[^"]+)" tabindex', text)
        assert len(links) == 2 * parts, "of both charts"
        assert (await admin.get(links[0])).status == 200


async def test_first_steps_end_with_an_event_that_was_inserted_by_their_sql(
    admin: Client, story: Story, sql: Any
) -> None:
    assert "First steps" in (await admin.get("/")).text
    await story.endpoint("erp", event_types=["order.shipped"])
    text = (await admin.get("/")).text
    found = re.search(r'<pre id="first-sql"[^>]*>(.*?)</pre>', text, re.DOTALL)
    assert found is not None
    assert "order.shipped" in found[1]
    await sql.execute(unescape(found[1]))
    assert await sql.fetchval("SELECT type FROM dispatcher.outbox") == "order.shipped"
    assert "First steps" not in (await admin.get("/")).text
    assert ADMIN_TOKEN not in text
