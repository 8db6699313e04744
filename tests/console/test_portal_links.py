"""A portal link opens one portal, once; every other use has a page that states why, and opens nothing."""

import asyncio
import re

import pytest

from dispatcher.admin.operations.audit import Audit
from dispatcher.admin.operations.context import Actor, Role
from dispatcher.admin.operations.tokens import digest_of
from dispatcher.admin.resources.portal_link import NewPortalLink
from dispatcher.core.errors import ForbiddenError, InvalidRequestError, NotFoundError
from tests.console.conftest import ALL
from tests.console.portal_client import new_link, opened, path_of

pytestmark = pytest.mark.postgres

ACME = Actor(name="cli:acme", tenant="acme", role=Role.OPERATOR)


async def test_portal_link_preview_does_not_use_it_up(served, sql):
    link = await new_link(served, name="Acme")
    pages = [await served.client().get(path_of(link)) for _ in range(3)]
    assert [page.status for page in pages] == [200] * 3
    assert not [page for page in pages if "Set-Cookie" in page.headers]
    assert "<h1>Acme</h1>" in pages[0].text
    assert await sql.fetchval("SELECT used_at FROM dispatcher.portal_link") is None
    client = served.client()
    assert (await client.post(path_of(link), {})).status == 303
    assert (await client.get("/portal")).headers["Location"] == "/portal/webhooks"
    assert (await client.get("/portal/webhooks")).status == 200


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ("used_at = now()", "already used"),
        ("expires_at = now() - interval '1 second'", "has expired"),
        ("revoked_at = now()", "was revoked"),
    ],
)
async def test_portal_link_that_has_ended_is_gone(served, sql, change, title):
    link = await new_link(served)
    await sql.execute(f"UPDATE dispatcher.portal_link SET {change}")
    client = served.client()
    for answer in (await client.get(path_of(link)), await client.post(path_of(link), {})):
        assert answer.status == 410
        assert title in answer.text
        assert "Set-Cookie" not in answer.headers
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.session") == 0


async def test_portal_link_that_is_changed_or_unknown_is_forbidden(served, sql):
    path = path_of(await new_link(served))
    changed = path[:-1] + ("A" if path[-1] != "A" else "B")
    for wrong in (changed, path[:-1], "/portal/link/" + "A" * 43):
        client = served.client()
        for answer in (await client.get(wrong), await client.post(wrong, {})):
            assert (answer.status, "not valid" in answer.text) == (403, True)
            assert "Set-Cookie" not in answer.headers
    assert await sql.fetchval("SELECT used_at FROM dispatcher.portal_link") is None


async def test_portal_link_guesses_are_limited_by_address(served):
    link = await new_link(served)
    client = served.client()
    statuses = [(await client.get(f"/portal/link/{'A' * 40}{n:03}")).status for n in range(12)]
    assert statuses[0] == 403
    assert statuses[-1] == 429
    assert (await client.get(path_of(link))).status == 429, "until the address may guess again"


async def test_portal_link_posted_twice_at_once_opens_one_session(served, sql):
    path = path_of(await new_link(served))
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(served.client().post(path, {})) for _ in range(6)]
    assert sorted(one.result().status for one in answers) == [303, 410, 410, 410, 410, 410]
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.session") == 1


async def test_portal_link_used_by_this_browser_leads_to_its_portal(served):
    link = await new_link(served)
    client = served.client()
    await client.post(path_of(link), {})
    again = await client.get(path_of(link))
    assert (again.status, again.headers["Location"]) == (303, "/portal/webhooks")
    assert (await served.client().get(path_of(link))).status == 410, "another browser"


async def test_portal_link_posted_by_another_site_is_refused_and_kept(served, sql):
    link = await new_link(served)
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "", "Origin": "https://evil.example"},
    ):
        assert (await served.client().post(path_of(link), {}, **headers)).status == 403
    assert await sql.fetchval("SELECT used_at FROM dispatcher.portal_link") is None


async def test_portal_link_revoked_ends_its_session_at_once(served, sql):
    client = await opened(served)
    link_id = await sql.fetchval("SELECT id FROM dispatcher.portal_link")
    assert (await client.get("/portal/webhooks")).status == 200
    await served.operations.portal_links.revoke(ALL, link_id)
    page = await client.get("/portal/webhooks")
    assert (page.status, "Your session has ended" in page.text) == (401, True)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.session") == 0


async def test_portal_link_is_stored_as_a_hash_and_audited(served, sql, deployment):
    link = await new_link(served, name="Acme")
    code = path_of(link).rpartition("/")[2]
    row = await sql.fetchrow("SELECT * FROM dispatcher.portal_link")
    assert row["hash"] == digest_of(code)
    await served.client().post(path_of(link), {})
    await served.operations.portal_links.revoke(ALL, link.id)
    await served.operations.portal_links.revoke(ALL, link.id)
    lines = (await Audit(deployment).page(ALL)).items
    assert [line.action for line in lines] == [
        "portal_link.revoke",
        "session.open",
        "portal_link.create",
    ]
    assert lines[1].actor == f"portal:{link.id}"
    assert {line.tenant for line in lines} == {"default"}
    for table in ("portal_link", "session", "audit"):
        rows = await sql.fetch(f"SELECT t::text FROM dispatcher.{table} AS t")
        assert code not in str(rows), table


async def test_portal_link_grants_no_more_than_its_creator_has(served):
    create = served.operations.portal_links.create
    for role, wanted in (("viewer", "viewer"), ("operator", "manager")):
        actor = Actor(name="x", tenant="acme", role=Role(role))
        with pytest.raises(ForbiddenError):
            await create(actor, NewPortalLink.of(role=wanted))
    with pytest.raises(NotFoundError):
        await create(ACME, NewPortalLink.of(role="operator", tenant="other"))
    with pytest.raises(InvalidRequestError):
        await create(ALL, NewPortalLink.of())  # for no tenant
    link = await create(ACME, NewPortalLink.of(role="operator"))
    assert (link.tenant, link.role) == ("acme", "operator")
    other = Actor(name="x", tenant="other", role=Role.ADMIN)
    with pytest.raises(NotFoundError):
        await served.operations.portal_links.revoke(other, link.id)
    assert (await served.operations.portal_links.page(other)).items == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("color", "red"),
        ("color", "#12345"),
        ("color", "#12345g"),
        ("color", "#fff;}"),
        ("frame_ancestors", ["https://evil.example"]),
        ("frame_ancestors", ["https://app.example.com; script-src *"]),
        ("frame_ancestors", ["*"]),
        ("expires_in_seconds", 59),
        ("expires_in_seconds", 604_801),
        ("session_seconds", 86_401),
        ("name", ""),
        ("name", "a\x1b[31m"),
        ("role", "admin"),
        ("language", "fr"),
        ("tenant", "Not a tenant"),
    ],
)
async def test_portal_link_with_a_wrong_field_is_refused(served, sql, field, value):
    with pytest.raises(InvalidRequestError) as caught:
        await new_link(served, **{field: value})
    assert caught.value.problems[0].field.startswith(field)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.portal_link") == 0


async def test_portal_link_of_the_console_is_shown_once_and_revoked(served, sql, admin):
    fields = {"tenant": "acme", "role": "viewer", "name": "Acme", "color": "#0f7b6c"}
    made = await admin.submit("/access/portal", fields)
    assert made.status == 200
    path = re.findall(r"/portal/link/[\w-]{43}", made.text)[0]
    assert path not in (await admin.get("/access/portal")).text
    client = served.client()
    assert (await client.post(path, {})).status == 303
    link_id = await sql.fetchval("SELECT id FROM dispatcher.portal_link")
    answer = await admin.submit(f"/access/portal/{link_id}/revoke", {}, page="/access/portal")
    assert answer.status == 303
    assert (await client.get("/portal/webhooks")).status == 401
    wrong = await admin.submit("/access/portal", {**fields, "color": "red"})
    assert (wrong.status, "is not a color" in wrong.text) == (422, True)
    operator = await served.as_role("operator", "acme")
    assert (await operator.get("/access/portal")).status == 403
