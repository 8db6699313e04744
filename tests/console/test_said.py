"""What the console says of a delivery, an event or a setting is true of it, in the viewer's language and zone."""

import re
from html import escape, unescape
from typing import Any

import pytest

from dispatcher.admin.resources.token import NewToken
from tests.console.conftest import Client, Served
from tests.support.story import ALL, Story

pytestmark = pytest.mark.postgres

RAW_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")


def words_of(text: str) -> str:
    """Returns what a reader sees of the page's main part, without what stands there as code."""
    main = text.partition("<main")[2].partition("</main>")[0]
    return unescape(re.sub(r"<(code|pre)\b.*?</\1>|<[^>]*>", " ", main, flags=re.DOTALL))


async def attempt(sql: Any, delivery_id: str, code: int) -> None:
    await sql.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code)"
        " SELECT day, id, 1, 'scheduled', 'http_error', now(), 0.5, false, 'https://example.com/', $2"
        " FROM dispatcher.delivery WHERE id = $1",
        delivery_id,
        code,
    )


@pytest.mark.parametrize("code", [418, 500, 503, 599])
@pytest.mark.parametrize(
    ("change", "then"),
    [
        ("SELECT", "Then resend it: no attempt is left."),
        (
            "UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now()",
            "Then resume the Webhook, and",
        ),
        ("UPDATE dispatcher.delivery_done SET test = true", "Then send another test:"),
    ],
)
async def test_what_to_do_about_a_failed_delivery_promises_no_retry(
    admin: Client, story: Story, sql: Any, code: int, change: str, then: str
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "failed")
    await attempt(sql, delivery, code)
    await sql.execute(change)
    english = await admin.get(f"/deliveries/{delivery}")
    assert "retrying goes on" not in english.text
    assert then in english.text
    assert ("Only a resend" in english.text) == ("test = true" not in change)
    thai = await admin.get(f"/deliveries/{delivery}", Accept_Language="th")
    assert "ระบบจะส่งซ้ำต่อไป" not in thai.text


async def test_a_delivery_that_is_retried_asks_for_no_resend(
    admin: Client, story: Story, sql: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "retrying")
    await attempt(sql, delivery, 500)
    shown = await admin.get(f"/deliveries/{delivery}")
    assert "Its own log shows the cause." in shown.text
    assert "Then resend" not in shown.text


async def test_token_to_revoke_is_named_from_the_database_not_the_url(
    served: Served, admin: Client
) -> None:
    made = await served.operations.tokens.create(
        ALL, NewToken.of(name="of the shop", role="viewer")
    )
    path = f"/access/tokens/{made.id}/revoke"
    asked = await admin.get(path + "?name=another")
    assert asked.status == 200
    assert "<h1>Revoke token of the shop?</h1>" in asked.text
    assert "token another" not in asked.text
    assert (await admin.get(f"/access/tokens/{made.id[:-1]}/revoke?name=another")).status == 404
    of_acme = await served.as_role("admin", "acme")
    hidden = await of_acme.get(path)
    assert hidden.status == 404
    assert "of the shop" not in hidden.text


async def test_what_became_of_an_event_is_told_in_thai_and_in_the_viewers_zone(
    admin: Client, story: Story, sql: Any
) -> None:
    for name, state in (
        ("one", "succeeded"),
        ("two", "failed"),
        ("three", "cancelled"),
        ("four", "retrying"),
        ("five", "pending"),
    ):
        await story.delivery(await story.endpoint(f"ร้าน-{name}"), "e1", state)
    await story.event("e1")
    await story.endpoint("ร้าน-six", event_types=["stock.*"])
    await story.endpoint("ร้าน-seven", labels={"shop": ["1", "2"]})
    await story.endpoint("ร้าน-eight")
    await story.endpoint("ร้าน-nine")
    changed = "UPDATE dispatcher.endpoint SET created_at = now() - interval '1 day' WHERE name ~ $1"
    await sql.execute(changed, "six|seven|nine")
    admin.headers["Cookie"] = "dispatcher_zone=set:Asia/Bangkok"
    shown = await admin.get("/events/e1", Accept_Language="th")
    assert shown.status == 200
    assert "Asia/Bangkok" in shown.text
    said = words_of(shown.text)
    for english in ("attempts", "delivered", "nothing", "subscribes", "endpoint", "dispatcher runs",
                    "matches", "asks", "resend", "leaves"):  # fmt: skip
        assert english not in said, english
    assert RAW_TIME.search(said) is None
    for thai in ("ส่งสำเร็จในครั้งที่ 1", "ป้ายกำกับที่ต้องการ:", "ประเภทที่สมัครรับ:", "ล้มเหลวแล้ว 1 ครั้ง",
                 "Webhook สร้างภายหลัง", "Webhook แก้ไขภายหลัง", "ไม่มี dispatcher ทำงานอยู่"):  # fmt: skip
        assert thai in said, thai
    assert "<code>stock.*</code>" in shown.text
    assert "<code>shop=1|2</code>" in shown.text


async def test_attempt_error_is_in_thai_and_system_messages_are_code(
    admin: Client, story: Story, sql: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "retrying")
    await attempt(sql, delivery, 500)
    error = "certificate verify failed: self-signed"
    await sql.execute(
        "UPDATE dispatcher.attempt SET outcome = 8, response_code = NULL, error = $1",
        error,
    )
    for path in (f"/deliveries/{delivery}", "/deliveries"):
        shown = await admin.get(path, Accept_Language="th")
        assert error in shown.text, path
        assert error not in words_of(shown.text), path


async def test_who_is_of_one_tenant_sees_neither_the_database_nor_the_settings(
    served: Served, admin: Client
) -> None:
    of_all = (await admin.get("/system")).text
    of_acme = await (await served.as_role("admin", "acme")).get("/system")
    assert of_acme.status == 200
    for words in ("egress.allow_networks", "PostgreSQL", "delivery_open", "Days of history"):
        assert words not in of_acme.text, words
    assert "egress.allow_networks" in (await admin.get("/system/settings")).text
    tenants_admin = await served.as_role("operator", "acme")
    assert (await tenants_admin.get("/system/settings")).status == 404
    assert "PostgreSQL" in of_all
    assert "search.trigram_index is off" in of_all
    assert "shown to those who see all tenants" in of_acme.text
    assert "shown to those who see all tenants" not in of_all


@pytest.mark.parametrize(
    "path",
    [
        "/deliveries?test=maybe",
        "/deliveries?state=lost",
        "/events?test=maybe",
        "/events?since=soon",
        "/activity?since=soon",
        "/webhooks?state=lost",
    ],
)
async def test_a_filter_that_cannot_be_read_is_said_and_finds_nothing(
    admin: Client, story: Story, path: str
) -> None:
    await story.delivery(await story.endpoint(), "e1", "failed")
    await story.event("e1")
    shown = await admin.get(path)
    assert shown.status == 422
    assert 'id="faults"' in shown.text
    for found in ("/events/e1", "(command line)", "/webhooks/ep_"):
        assert found not in shown.text, found


async def test_live_tail_of_a_list_has_the_conditions_that_it_can_compare(
    admin: Client, story: Story
) -> None:
    endpoint = await story.endpoint()
    for path in ("/deliveries", f"/webhooks/{endpoint}/deliveries"):
        assert 'id="tail"' in (await admin.get(path)).text
        for query in ("q=x", "until=2026-05-29T14:32"):
            filtered = (await admin.get(f"{path}?{query}")).text
            assert 'id="tail"' not in filtered, query
            assert "cannot be live" in filtered
    given = "event_type=order.%2A&label=a%3Db&test=no&endpoint_id=erp&state=failed%2Cretrying"
    of_one = (await admin.get(f"/deliveries?period=1h&{given}")).text
    assert f'data-path="/deliveries/tail?{escape(given)}"' in of_one
