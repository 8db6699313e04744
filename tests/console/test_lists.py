"""Lists of deliveries and events: filters as chips, saved views, exports, selected rows, and the page of types."""

import csv
import io
import re
from typing import Any

import orjson
import pytest

from dispatcher.admin.operations import deliveries as operations
from dispatcher.admin.operations import export_files
from dispatcher.core.business_key import business_key
from tests.console.conftest import Client, Served
from tests.support.resources import make_delivery
from tests.support.story import Story

pytestmark = pytest.mark.postgres

FORMULA = '=HYPERLINK("http://evil.example")'


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        ({"branch": "BKK", "order_id": "ORD-1"}, "ORD-1"),
        ({"branch": "BKK", "grn_no": "G-7", "zone": "A"}, "G-7"),
        ({"paid": "yes", "zone": "A"}, "yes"),
        ({}, None),
    ],
)
def test_business_key_prefers_a_label_that_is_named_as_one(
    labels: dict[str, str], key: str | None
) -> None:
    assert business_key(labels) == key


async def test_filter_is_shown_as_chips_that_can_be_removed(admin: Client, story: Story) -> None:
    endpoint = await story.endpoint()
    await story.event("e1", labels='{"order_id": "ORD-1"}')
    wanted = await story.delivery(endpoint, "e1", "failed")
    other = await story.delivery(endpoint, "e2", "succeeded")
    query = "period=1h&state=failed&state=retrying&label=order_id%3DORD-1&endpoint_id=erp"
    page = (await admin.get(f"/deliveries?{query}")).text
    assert f'data-id="{wanted}"' in page
    assert f'data-id="{other}"' not in page
    chips = page.partition('<ul class="chips"')[2].partition("</ul>")[0]
    assert chips.count("<li>") == 4
    for text in ("Last hour", "Failed, Retrying", "order_id=ORD-1", "erp"):
        assert text in chips, text
    without_state = re.findall(r'href="([^"]+)" aria-label="Remove [^"]*Failed', chips)
    assert len(without_state) == 1
    assert "state=" not in without_state[0]
    assert "period=1h" in without_state[0]
    for wrong in ("period=2h", "rows=7", "response=6xx", "endpoint_id=epr", "system=x"):
        path = "/events" if wrong.startswith("system") else "/deliveries"
        shown = await admin.get(f"{path}?{wrong}")
        assert (shown.status, 'id="faults"' in shown.text) == (422, True), wrong


async def test_period_of_a_further_page_ends_with_that_of_the_first(
    admin: Client, story: Story
) -> None:
    endpoint = await story.endpoint()
    made = [await story.delivery(endpoint, f"e{n}", "failed") for n in range(25)]
    first = (await admin.get("/deliveries?period=1h")).text
    (further,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = await admin.get(further.replace("&amp;", "&"))
    assert second.status == 200, second.text
    seen = re.findall(r'<tr data-id="(wh_[a-z0-9]+)"', first + second.text)
    assert seen == made[::-1]


async def test_views_are_kept_by_the_browser_and_hold_conditions_alone(
    served: Served, admin: Client
) -> None:
    page = "/deliveries?state=failed&q=x"
    assert "state=failed" in (await admin.get(page)).hidden("query")
    fields = {"name": "Failed <b>", "query": "state=failed&evil=1&q=x"}
    saved = await admin.submit("/deliveries/views", fields, page=page)
    assert (saved.status, saved.headers["Location"]) == (303, "/deliveries?state=failed&q=x")
    cookie = saved.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "Path=/deliveries" in cookie
    shown = (await admin.get("/deliveries")).text
    assert "Failed &lt;b&gt;</a>" in shown
    assert 'href="/deliveries?state=failed&amp;q=x"' in shown
    for name in ("", "x" * 41, "a\u202eb"):
        refused = await admin.submit("/deliveries/views", {"name": name, "query": "q=x"}, page=page)
        assert refused.status == 422, name
    for number in range(9):
        fields = {"name": f"v{number}", "query": f"q={number}"}
        assert (await admin.submit("/deliveries/views", fields, page=page)).status == 303
    assert (
        await admin.submit("/deliveries/views", fields | {"name": "w"}, page=page)
    ).status == 422
    removed = await admin.submit("/deliveries/views/remove", {"name": "v1"}, page="/deliveries")
    assert removed.status == 303
    assert 'href="/deliveries?q=1"' not in (await admin.get("/deliveries")).text
    stranger = await served.client().sign_in()
    for forged in ("W10", "bm9uZQ==", "W1sxLDJdXQ==", "%ff", "x" * 3000):
        stranger.headers["Cookie"] = f"dispatcher_views={forged}"
        assert (await stranger.get("/deliveries", Cookie="")).status in {200, 303}


async def test_export_is_a_file_without_formulas_up_to_its_bound(
    admin: Client, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await story.endpoint("=1+1")
    await story.event("e1", labels=orjson.dumps({"order_id": FORMULA}).decode())
    first = await story.delivery(endpoint, "e1", "failed")
    second = await story.delivery(endpoint, "e2", "failed")
    await story.delivery(endpoint, "e3", "succeeded")
    monkeypatch.setattr(operations, "EXPORT_BATCH", 1)
    answer = await admin.get("/deliveries/export?format=csv&state=failed")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert 'attachment; filename="deliveries-' in answer.headers["Content-Disposition"]
    assert answer.text.startswith("\ufeffcreated_at,key,")
    rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert [row["id"] for row in rows] == [second, first]
    assert rows[1]["key"] == "'" + FORMULA
    assert rows[1]["endpoint_name"] == "'=1+1"
    exported = orjson.loads((await admin.get("/deliveries/export?format=json")).text)
    assert [row["id"] for row in exported["items"]][1:] == [second, first]
    assert exported["items"][2]["labels"] == {"order_id": FORMULA}
    assert exported["is_complete"] is True
    monkeypatch.setattr(operations, "EXPORT_ROWS_MAX", 2)
    cut = await admin.get("/deliveries/export?format=csv")
    assert len(cut.text.splitlines()) == 4
    assert "More deliveries match" in cut.text
    part = orjson.loads((await admin.get("/deliveries/export?format=json")).text)
    assert (len(part["items"]), part["is_complete"]) == (2, False)
    none = await admin.get("/deliveries/export?format=json&state=cancelled")
    assert orjson.loads(none.text) == {"items": [], "is_complete": True}
    for wrong in ("format=xls", "state=lost"):
        assert (await admin.get(f"/deliveries/export?{wrong}")).status == 422
    monkeypatch.setattr(operations, "EXPORTS_MAX", 0)
    assert (await admin.get("/deliveries/export")).status == 429


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\uff1d"])
def test_csv_cell_that_looks_like_a_formula_begins_with_an_apostrophe(start: str) -> None:
    delivery = make_delivery(labels={"id": f"{start}cmd|' /C calc'!A0"})
    text = export_files.csv_text(export_files.rows_of([(delivery, None)], {}), is_first=False)
    (row,) = csv.reader(io.StringIO(text))
    assert row[export_files.COLUMNS.index("key")].startswith(f"'{start}")


async def test_selected_deliveries_and_all_that_match_become_a_job(
    served: Served, admin: Client, story: Story
) -> None:
    endpoint = await story.endpoint()
    made = [await story.delivery(endpoint, f"e{n}", "failed") for n in range(4)]
    chosen = "&".join(f"ids={one}" for one in made[:3])
    path = f"/jobs/new?kind=replay&{chosen}"
    shown = (await admin.get(path)).text
    assert "Replay 3 deliveries" in shown
    created = await admin.submit(path, {}, page=path)
    assert created.status == 303
    matching = (await admin.get("/deliveries?state=failed&period=1h&response=5xx")).text
    (resend,) = re.findall(r'href="(/jobs/new\?kind=resend[^"]+)"', matching)
    assert "period" not in resend
    assert "since=" in resend
    counted = await admin.get(resend.replace("&amp;", "&"))
    assert "0 deliveries found" in counted.text
    viewer = await served.as_role("viewer")
    page = (await viewer.get("/deliveries?state=failed")).text
    assert 'name="ids"' not in page
    assert "/jobs/new?" not in page


async def test_outcome_of_events_is_listed_and_system_events_are_hidden(
    admin: Client, story: Story
) -> None:
    first, second = await story.endpoint(), await story.endpoint("other")
    await story.delivery(first, "e1", "succeeded")
    await story.delivery(second, "e1", "failed")
    await story.event("e2", event_type="dispatcher.endpoint.failing")
    page = (await admin.get("/events")).text
    assert "1 of 2 delivered" in page
    assert "1 failed" in page
    assert "/events/e2" not in page
    assert "/events/e2" in (await admin.get("/events?system=yes")).text
    only = (await admin.get("/events?system=only")).text
    assert "/events/e2" in only
    assert "/events/e1" not in only
    sent = "/jobs/new?kind=replay&event_id=e1&to=other"
    assert 'name="event_id" value="e1"' in (await admin.get("/events/e1")).text
    assert "deliveries found" in (await admin.get(sent)).text


async def test_event_types_show_the_catalogue_and_unknown_types(
    admin: Client, story: Story
) -> None:
    await story.endpoint()
    await story.event("e1", event_type="parcel.lost")
    await story.event("e2", event_type="order.created")
    english = (await admin.get("/event-types")).text
    assert "parcel.lost" in english.partition("Not in the catalogue")[2].partition("</section>")[0]
    assert '<a href="/events?event_type=order.created">1</a>' in english, "the number of events"
    assert '<a href="/event-types/order.created">' in english
    thai = (await admin.get("/event-types", Accept_Language="th")).text
    assert "order.created" in thai
    assert "ไม่อยู่ในรายการ" in thai


async def test_resend_in_place_shows_its_outcome_and_watches_for_the_result(
    admin: Client, story: Story
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "failed")
    path = f"/deliveries/{delivery}"
    csrf = (await admin.get(path)).hidden("csrf")
    assert 'id="watch"' not in (await admin.get(path)).text
    shown = await admin.post(f"{path}/resend", {"csrf": csrf}, HX_Request="true")
    assert shown.status == 200
    assert "One more attempt" in shown.text
    (watch,) = re.findall(rf'hx-get="({path}\?watched=[0-9]+)"', shown.text)
    assert f'hx-get="{watch}"' in (await admin.get(watch)).text, "the end of the watch stays"
    assert 'id="watch"' not in (await admin.get(f"{path}?watched=1")).text
    refused = await admin.post(f"{path}/cancel", {"csrf": csrf}, HX_Request="true")
    assert refused.status == 200
    assert 'role="alert"' in refused.text
    assert (await admin.post(f"{path}/cancel", {"csrf": csrf})).status == 409
    body = await admin.get(f"{path}/body")
    assert (body.status, body.text) == (200, "{}")
    assert body.headers["Content-Disposition"] == f'attachment; filename="{delivery}.json"'
    data = await admin.get("/events/e1/data")
    assert (data.status, data.text) == (200, "{}")


async def test_delivery_shows_one_next_time(admin: Client, story: Story, sql: Any) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "retrying")
    await sql.execute(
        "UPDATE dispatcher.delivery_open SET next_attempt_at = now() + interval '1 h'"
    )
    page = (await admin.get(f"/deliveries/{delivery}")).text
    (due,) = await sql.fetchrow(
        "SELECT to_char(next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
        " FROM dispatcher.delivery_open"
    )
    assert page.count(f">{due}</time>") == 1
