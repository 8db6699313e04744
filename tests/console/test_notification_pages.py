"""The pages of notifications: created, changed, tested in place, with the problems that each rule follows."""

from typing import Any

import pytest

from dispatcher.admin.resources.notification import NotificationsQuery
from tests.console.conftest import ALL, Client, Served
from tests.support.endpoints import create_endpoint

pytestmark = pytest.mark.postgres


async def make_endpoint(served: Served, name: str, profile: str, url: str) -> str:
    fields = {"name": name, "profile": profile, "url": url, "event_types": ["order.created"]}
    return str((await create_endpoint(served.operations.endpoints, ALL, fields)).id)


async def rules(served: Served) -> list[Any]:
    return (await served.operations.notifications.page(ALL, NotificationsQuery())).items


async def test_rule_is_created_changed_tested_and_deleted(
    served: Served, admin: Client, sql: Any
) -> None:
    chat = await make_endpoint(
        served, "ops-chat", "slack", "https://hooks.slack.com/services/T/B/x"
    )
    erp = await make_endpoint(served, "ERP_Order_Sync", "wms", "https://erp.example.com/hook")
    assert "No one is notified" in (await admin.get("/notifications")).text
    given = {
        "name": "on-call", "event_types": "dispatcher.endpoint.failing", "to_endpoint_id": chat,
        "endpoint_ids": f"ERP_Order_Sync\n\n{chat}", "quiet_seconds": "60",
    }  # fmt: skip
    wrong = await admin.submit(
        "/notifications/new", given | {"endpoint_ids": "nowhere", "quiet_seconds": "soon"}
    )
    assert wrong.status == 422
    assert "nowhere: " in wrong.text
    assert "Write a number" in wrong.text
    created = await admin.submit("/notifications/new", given)
    assert created.status == 303, created.text
    page = created.headers["Location"]
    (rule,) = await rules(served)
    assert page == f"/notifications/{rule.id}"
    assert rule.endpoint_ids == [erp, chat]

    shown = await admin.get(page)
    assert "ERP_Order_Sync\nops-chat</textarea>" in shown.text, "names, not ids"
    changed = await admin.submit(
        page, given | {"name": "night", "endpoint_ids": "", "digest_seconds": "300"}
    )
    assert changed.status == 303, changed.text
    (rule,) = await rules(served)
    assert (rule.name, rule.endpoint_ids, rule.digest_seconds) == ("night", [], 300)
    cleared = await admin.submit(page, given | {"digest_seconds": ""})
    assert cleared.status == 303, "an empty field is null"
    assert (await rules(served))[0].digest_seconds is None
    refused = await admin.submit(page, given | {"to_endpoint_id": ""})
    assert refused.status == 422
    assert "on-call" in refused.text

    await sql.execute(
        "INSERT INTO dispatcher.notification_problem (notification_id, endpoint_id, event_type, endpoint_name, tenant,"
        " reason, started_at, seen_at, events_count) VALUES ($1, $2, 'dispatcher.endpoint.failing',"
        " '<b>ERP</b>', 'default', 'down', now() - interval '5 minutes', now(), 1)",
        rule.id,
        erp,
    )
    with_problem = await admin.get(page)
    assert "&lt;b&gt;ERP" in with_problem.text
    assert "After the quiet time" in with_problem.text

    in_place = await admin.post(
        f"{page}/test", {"csrf": with_problem.hidden("csrf")}, HX_Request="true"
    )
    assert in_place.status == 200
    assert "<html" not in in_place.text
    assert "is queued" in in_place.text
    assert f"/webhooks/{chat}/deliveries" in in_place.text
    plain = await admin.post(f"{page}/test", {"csrf": with_problem.hidden("csrf")})
    assert plain.status == 303
    sent = await sql.fetchval(
        "SELECT count(*) FROM dispatcher.outbox WHERE type = 'dispatcher.notification'"
    )
    assert sent == 2

    deleted = await admin.submit(f"{page}/delete", {})
    assert deleted.status == 303
    assert await rules(served) == []
    gone = await admin.post(
        f"{page}/test", {"csrf": with_problem.hidden("csrf")}, HX_Request="true"
    )
    assert gone.status == 200
    assert "notice bad" in gone.text, "htmx swaps no response with an error's status"


async def test_pages_of_notifications_are_for_admins(served: Served) -> None:
    operator = await served.as_role("operator")
    for path in ("/notifications", "/notifications/new", "/notifications/ntf_none"):
        assert (await operator.get(path)).status == 403, path
