"""The search of every page: groups by kind, ids at once, and no payload read unasked."""

import re
from html import unescape
from typing import Any

import pytest

from dispatcher.admin.console.pages import search as module
from tests.console.conftest import Client, Served
from tests.support.story import Story

pytestmark = pytest.mark.postgres


async def results(client: Client, text: str) -> dict[str, str]:
    """Returns the links that are suggested for a text, by their address."""
    shown = await client.get(f"/search?q={text}", HX_Request="true")
    assert shown.status == 200
    found = shown.text[shown.text.index('class="search-results"') :]
    links = re.findall(r'<li><a href="([^"]+)">(.*?)</a>', found, re.DOTALL)
    return {unescape(href): unescape(re.sub("<[^>]+>", "", text)).strip() for href, text in links}


async def test_search_finds_webhooks_types_pages_and_ids(
    admin: Client, served: Served, story: Story
) -> None:
    endpoint = await story.endpoint("ERP_Order_Sync")
    delivery = await story.delivery(endpoint, "evt_2026_1")
    found = await results(admin, "order")
    assert found[f"/webhooks/{endpoint}"].startswith("ERP_Order_Sync")
    assert "/deliveries?event_type=order.created" in found
    assert found["/deliveries?q=order"] == "Search deliveries for “order”"
    assert "/system" in await results(admin, "syst")
    for text, path in (
        (delivery, f"/deliveries/{delivery}"),
        ("evt_2026_1", "/events/evt_2026_1"),
        (endpoint, f"/webhooks/{endpoint}"),
    ):
        assert next(iter(await results(admin, text))) == path
        gone = await admin.get(f"/search?q={text}")
        assert (gone.status, gone.headers["Location"]) == (303, path)
    await story.event("evt_2026_1", labels='{"order_id": "ORD-2026-1234"}')
    for text in ("ORD-2026-1234", "order_id=ORD-2026-1234"):
        found = await results(admin, text)
        assert next(iter(found)) == "/deliveries?label=order_id%3DORD-2026-1234"
        gone = await admin.get(f"/search?q={text}")
        assert gone.headers["Location"] == "/deliveries?label=order_id%3DORD-2026-1234"
    assert "/deliveries?label=order_id%3DORD-2026-1234" not in await results(admin, "ORD-2026-12")
    other = await served.as_role("viewer", "acme")
    assert not any("label=" in href for href in await results(other, "ORD-2026-1234"))
    assert list(await results(other, "evt_2026_1")) == [
        "/deliveries?q=evt_2026_1",
        "/events?q=evt_2026_1",
    ]
    assert "/activity" not in await results(other, "activity")
    assert "Enter a part" in (await admin.get("/search")).text


async def test_search_without_the_database_offers_the_rest(
    admin: Client, monkeypatch: pytest.MonkeyPatch, story: Story
) -> None:
    await story.endpoint("ERP_Order_Sync")

    async def never(*_: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(module, "_endpoints", never)
    shown = await admin.get("/search?q=order")
    assert "did not respond in time" in shown.text
    assert "/deliveries?q=order" in shown.text
