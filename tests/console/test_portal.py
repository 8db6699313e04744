"""The portal's pages: those of one tenant, by role, with frames, names and colors as the link has them."""

import re
from collections.abc import AsyncIterator
from html import unescape

import pytest

from dispatcher.admin.operations.context import Deployment, Role
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.pool import Database
from tests.console.conftest import Client, environment
from tests.console.portal_client import ORIGIN, new_link, opened, path_of, policy

pytestmark = pytest.mark.postgres

OUTSIDE = (
    "/", "/problems", "/search?q=order", "/schedule", "/jobs", "/jobs/new", "/activity", "/access",
    "/access/sessions", "/access/people", "/notifications", "/system", "/system/settings", "/tokens",
)  # fmt: skip
"""Pages of the console that the portal does not have."""
NEEDS = {
    "/webhooks/new": Role.MANAGER,
    "/webhooks/{endpoint}/settings": Role.MANAGER,
    "/webhooks/{endpoint}/delete": Role.MANAGER,
    "/webhooks/{endpoint}/secret/reveal": Role.MANAGER,
    "/webhooks/{endpoint}/secret/rotate": Role.MANAGER,
    "/webhooks/{endpoint}/secret/activate": Role.MANAGER,
    "/webhooks/{endpoint}/test": Role.OPERATOR,
    "/webhooks/{endpoint}/pause": Role.OPERATOR,
    "/webhooks/{endpoint}/resume": Role.OPERATOR,
    "/webhooks/{endpoint}/retry": Role.OPERATOR,
    "/deliveries/{delivery}/resend": Role.OPERATOR,
    "/deliveries/{delivery}/cancel": Role.OPERATOR,
    "/deliveries/{delivery}/signature": Role.OPERATOR,
}
"""What each change needs, written down a second time."""


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=4)
    await pool.open()
    given = {**environment(database), "DISPATCHER_PORTAL__FRAME_ANCESTORS": f'["{ORIGIN}"]'}
    yield deployment_of(load_settings(None, given), pool)
    await pool.close()


async def send(client: Client, path: str, **fields: str) -> int:
    """Send a form with the session's CSRF token; return the status."""
    shown = await client.get("/portal/webhooks")
    answer = await client.post(f"/portal{path}", {"csrf": shown.hidden("csrf"), **fields})
    return answer.status


async def test_portal_has_no_page_of_the_console_that_is_not_its_own(served):
    client = await opened(served)
    assert (await client.get("/portal/")).headers["Location"] == "/portal/webhooks"
    for path in OUTSIDE[1:]:
        page = await client.get(f"/portal{path}", Accept="text/html")
        assert (path, page.status) == (path, 404)


async def test_portal_session_opens_nothing_outside_the_portal(served, admin):
    client = await opened(served)
    for path in (*OUTSIDE, "/webhooks", "/deliveries"):
        page = await client.get(path)
        assert (path, page.status) == (path, 303)
        assert page.headers["Location"].startswith("/sign-in")
    assert (await admin.get("/portal/webhooks")).status == 401, "a console session opens no portal"
    await admin.post(path_of(await new_link(served)), {})
    assert (await admin.get("/portal/webhooks")).status == 200
    assert (await admin.get("/activity")).status == 200, "the console session is as before"


async def test_portal_of_one_tenant_knows_nothing_of_another(served, story):
    endpoint = await story.endpoint("secret-erp")
    delivery = await story.delivery(endpoint, "evt_theirs", "failed")
    client = await opened(served, tenant="acme")
    for path in (
        f"/webhooks/{endpoint}", f"/webhooks/{endpoint}/secret", f"/webhooks/{endpoint}/settings",
        f"/webhooks/{endpoint}/deliveries", f"/webhooks/{endpoint}/test", f"/deliveries/{delivery}",
        f"/deliveries/{delivery}/body", "/events/evt_theirs", "/events/evt_theirs/data",
    ):  # fmt: skip
        page = await client.get(f"/portal{path}")
        assert (path, page.status) == (path, 404)
        assert "secret-erp" not in page.text
    for path in ("/webhooks", "/deliveries", "/events", "/deliveries?q=evt_theirs", "/event-types"):
        page = await client.get(f"/portal{path}")
        assert (path, page.status) == (path, 200)
        assert not [one for one in (endpoint, delivery, "secret-erp") if one in page.text]
        assert "evt_theirs" not in page.text or "q=" in path, "only as what was searched for"
    for path in NEEDS:
        named = path.format(endpoint=endpoint, delivery=delivery)
        if named != "/webhooks/new":
            assert (named, await send(client, named)) == (named, 404)
    fields = {"name": "x", "url": "https://example.com/", "event_types": "*", "profile": "wms"}
    assert await send(client, "/webhooks/new", form_id="f", tenant="default", **fields) == 404


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.MANAGER])
async def test_portal_refuses_the_changes_of_a_higher_role(served, story, sql, role):
    endpoint = await story.endpoint()
    delivery = await story.delivery(endpoint, "evt_x", "failed")
    client = await opened(served, role=str(role))
    before = await sql.fetch("SELECT * FROM dispatcher.endpoint")
    ranks = list(Role)
    for path, needed in NEEDS.items():
        named = path.format(endpoint=endpoint, delivery=delivery)
        if ranks.index(role) < ranks.index(needed):
            assert (named, await send(client, named)) == (named, 403)
    assert await sql.fetch("SELECT * FROM dispatcher.endpoint") == before


async def test_portal_pages_lead_to_pages_of_the_portal_only(served, story):
    """Every page that a person can reach by links and forms is there, and is below `/portal`."""
    endpoint = await story.endpoint()
    await story.delivery(endpoint, "evt_x", "failed")
    await story.event("evt_x", labels='{"order_id": "7"}')
    client = await opened(served, name="Acme", color="#0f7b6c")
    wanted, seen = ["/portal/webhooks"], set[str]()
    while wanted:
        path = wanted.pop()
        if path in seen:
            continue
        seen.add(path)
        page = await client.get(path)
        assert (path, page.status) == (path, 200)
        for name, href in re.findall(
            r'\b(href|action|formaction|hx-get|hx-post)="([^"]*)"', page.text
        ):
            address = unescape(href).partition("#")[0]
            if not address or address.startswith(("/static/", "https://", "/.well-known/")):
                continue
            assert address.startswith("/portal/"), (path, name, href)
            plain = address.partition("?")[0]
            if name == "href" and not plain.endswith(
                (".css", ".json", "/export", "/body", "/data", ".svg")
            ):
                wanted.append(plain)
    assert {
        f"/portal/webhooks/{endpoint}",
        "/portal/help/explanation/delivery",
        "/portal/preferences",
    } <= seen
    assert len(seen) > 25


async def test_portal_frames_are_those_of_the_link_and_of_no_other_page(served, admin):
    link = await new_link(served, frame_ancestors=[ORIGIN])
    client = served.client()
    assert policy(await client.get(path_of(link))) == ORIGIN
    opening = await client.post(path_of(link), {})
    kept = [one for one in opening.headers.getall("Set-Cookie") if "Max-Age=0" not in one]
    assert len(kept) == 1
    assert kept[0].startswith("dispatcher_portal_frame=")
    assert {"Secure", "SameSite=None", "Partitioned", "HttpOnly"} <= set(kept[0].split("; "))
    client.session.cookie_jar.update_cookies(
        {"dispatcher_portal_frame": kept[0].split("=")[1].split(";")[0]}
    )
    for path in ("/portal/webhooks", "/portal/deliveries", "/portal/unknown"):
        page = await client.get(path, Accept="text/html")
        assert (path, policy(page)) == (path, ORIGIN)
        assert "X-Frame-Options" not in page.headers
    tab = await opened(served)
    for page in (
        await tab.get("/portal/webhooks"),
        await admin.get("/webhooks"),
        await admin.get("/x"),
    ):
        assert page.status == 404 or (policy(page), page.headers["X-Frame-Options"]) == (
            "'none'",
            "DENY",
        )


async def test_portal_frame_ends_when_the_setting_no_longer_allows_it(served, sql):
    link = await new_link(served, frame_ancestors=[ORIGIN])
    await sql.execute(
        "UPDATE dispatcher.portal_link SET frame_ancestors = '{https://old.example.com}'"
    )
    page = await served.client().get(path_of(link))
    assert (page.status, policy(page)) == (200, "'none'")


async def test_portal_of_a_tab_has_a_cookie_that_is_not_sent_across_sites(served):
    answer = await served.client().post(path_of(await new_link(served)), {})
    (kept,) = [one for one in answer.headers.getall("Set-Cookie") if "Max-Age=0" not in one]
    assert kept.startswith("dispatcher_portal=")
    assert {"SameSite=Lax", "HttpOnly"} <= set(kept.split("; "))
    assert "Partitioned" not in kept


async def test_portal_form_without_its_token_or_of_another_site_is_refused(served, story):
    endpoint = await story.endpoint()
    client = await opened(served)
    path = f"/portal/webhooks/{endpoint}/pause"
    assert (await client.post(path, {})).status == 403
    assert (await client.post(path, {"csrf": "0" * 64})).status == 403
    token = (await client.get("/portal/webhooks")).hidden("csrf")
    assert (await client.post(path, {"csrf": token}, Sec_Fetch_Site="cross-site")).status == 403
    assert (await client.post(path, {"csrf": token}, Sec_Fetch_Site="same-site")).status == 403
    assert (await client.post(path, {"csrf": token})).status == 303


async def test_portal_sign_out_ends_the_session(served, sql):
    client = await opened(served)
    token = (await client.get("/portal/webhooks")).hidden("csrf")
    answer = await client.post("/portal/sign-out", {"csrf": token})
    assert (answer.status, answer.headers["Location"]) == (303, "/portal")
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.session") == 0
    assert (await client.get("/portal")).status == 401


async def test_portal_without_a_session_says_how_to_come_back(served):
    client = served.client()
    for path in ("/portal", "/portal/webhooks", "/portal/deliveries/wh_x"):
        page = await client.get(path)
        assert (page.status, "Open the portal again" in page.text) == (401, True)
    assert "did not keep the session" in (await client.get("/portal?opened=1")).text
    thai = await client.get("/portal", Accept_Language="th")
    assert "เซสชันของคุณสิ้นสุดแล้ว" in thai.text
    part = await client.get("/portal/webhooks", HX_Request="true")
    assert (part.status, part.headers["HX-Redirect"]) == (204, "/portal")


async def test_portal_shows_a_hostile_name_as_text(served):
    name = '"><script>alert(1)</script>{{7*7}}<b>'
    client = await opened(served, name=name)
    page = await client.get("/portal/webhooks")
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}" in page.text


async def test_portal_theme_is_a_style_sheet_of_its_color(served):
    client = await opened(served, color="#FFCC00")
    page = await client.get("/portal/webhooks")
    assert '<link rel="stylesheet" href="/portal/theme/ffcc00.css">' in page.text
    sheet = await client.get("/portal/theme/ffcc00.css")
    assert sheet.headers["Content-Type"].startswith("text/css")
    assert "--brand: #ffcc00" in sheet.text
    assert (await client.get("/portal/theme/ffcc0g.css")).status == 404
    assert 'style="' not in page.text


async def test_portal_manager_cannot_spend_the_capacity_that_all_share(served, sql):
    client = await opened(served)
    form = await client.get("/portal/webhooks/new")
    shared = (
        "max_concurrency",
        "rate_limit",
        "timeout_seconds",
        "retry_schedule_seconds",
        "tenant",
    )
    assert not [name for name in shared if f'name="{name}"' in form.text]
    fields = {
        "csrf": form.hidden("csrf"), "form_id": form.hidden("form_id"), "name": "erp",
        "url": "https://example.com/a", "event_types": "*", "profile": "wms", "max_concurrency": "500",
        "rate_limit": "1000", "tenant": "default",
    }  # fmt: skip
    answer = await client.post("/portal/webhooks/new", fields)
    assert answer.status == 200, answer.text
    row = await sql.fetchrow("SELECT * FROM dispatcher.endpoint")
    assert (row["tenant"], row["max_concurrency"], row["rate_limit"]) == ("default", None, None)
    await sql.execute("UPDATE dispatcher.endpoint SET max_concurrency = 3, timeout_seconds = 7")
    path = f"/portal/webhooks/{row['id']}/settings"
    shown = await client.get(path)
    changed = {"csrf": shown.hidden("csrf"), "version": shown.hidden("version"), "then": "save"}
    changed |= {"name": "crm", "url": "https://example.com/b", "event_types": "*"}
    assert (await client.post(path, changed)).status == 303
    row = await sql.fetchrow("SELECT * FROM dispatcher.endpoint")
    assert (row["name"], row["max_concurrency"], row["timeout_seconds"]) == ("crm", 3, 7)
