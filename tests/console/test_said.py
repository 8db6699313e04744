"""What the console says of a delivery, an event or a setting is true of it, in the viewer's language and zone."""

from typing import Any

import pytest

from tests.console.conftest import Client, Served
from tests.support.story import ALL, Story

pytestmark = pytest.mark.postgres


async def attempt(sql: Any, delivery_id: str, code: int) -> None:
    await sql.execute(
        "INSERT INTO dispatcher.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
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
    thai = await admin.get(f"/deliveries/{delivery}", Accept_Language="th")
    assert "ระบบจะส่งซ้ำต่อไป" not in thai.text


async def test_a_delivery_that_is_retried_asks_for_no_resend(
    admin: Client, story: Story, sql: Any
) -> None:
    delivery = await story.delivery(await story.endpoint(), "e1", "retrying")
    await attempt(sql, delivery, 500)
    shown = await admin.get(f"/deliveries/{delivery}")
    assert "Its own log tells why." in shown.text
    assert "Then resend" not in shown.text


async def test_the_token_to_revoke_is_named_by_what_is_kept_and_not_by_the_address(
    served: Served, admin: Client
) -> None:
    made = await served.operations.tokens.create(ALL, name="of the shop", role="viewer")
    path = f"/tokens/{made['id']}/revoke"
    asked = await admin.get(path + "?name=another")
    assert asked.status == 200
    assert "<strong>of the shop</strong>" in asked.text
    assert "<strong>another" not in asked.text
    assert (await admin.get(f"/tokens/{made['id'][:-1]}/revoke?name=another")).status == 404
    of_acme = await served.as_role("admin", "acme")
    hidden = await of_acme.get(path)
    assert hidden.status == 404
    assert "of the shop" not in hidden.text
