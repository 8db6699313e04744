"""Test filter: the form of a webhook shows how many of the newest events its content filter matches."""

import pytest

from tests.console.conftest import Client
from tests.support.story import Story

pytestmark = pytest.mark.postgres

NEW = "/webhooks/new"


async def test_filter_is_tried_on_the_events_of_the_chosen_types(
    admin: Client, story: Story
) -> None:
    for number in range(6):
        await story.event(
            f"e{number}",
            labels=f'{{"region": "{"th" if number % 2 else "sg"}"}}',
            event_type="order.created" if number < 4 else "stock.changed",
        )
    fields = {"then": "filter", "content_filter": 'labels.region == "th"'}
    page = await admin.submit(NEW, fields)
    assert "3 of the last 6 events match." in page.text
    assert 'href="/events/e5"' in page.text
    page = await admin.submit(NEW, {**fields, "event_types": "order.created"})
    assert "2 of the last 4 events match." in page.text
    assert 'href="/events/e5"' not in page.text
    assert 'value="order.created" checked' in page.text, "the form keeps what was typed"
    fields["content_filter"] = "data.total > 1"
    page = await admin.submit(NEW, fields)
    assert "0 of the last 6 events match." in page.text
    assert "cannot be evaluated for 6" in page.text

    endpoint = await story.endpoint("erp")
    settings = f"/webhooks/{endpoint}/settings"
    hidden = {name: (await admin.get(settings)).hidden(name) for name in ("csrf", "form_id")}
    fields |= {"content_filter": "data.", "event_types": "*", **hidden}
    page = await admin.post(settings, fields, HX_Request="true")
    assert page.status == 200
    assert '<div id="filter-test"' in page.text
    assert "notice bad" in page.text
    assert "<form" not in page.text
