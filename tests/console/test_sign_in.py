"""The page of a sign-in link: its GET uses nothing up and reveals nothing, its POST signs in once."""

import pytest

from dispatcher.admin.resources.access import NewSignInLink
from tests.console.conftest import ALL, Served

pytestmark = pytest.mark.postgres


async def link_path(served: Served, **fields: object) -> str:
    link = await served.operations.access.create_link(ALL, NewSignInLink.of(**fields))
    return f"/{link.path}"


async def test_link_preview_does_not_use_it_up(served, sql):
    path = await link_path(served, role="viewer", tenant="acme")
    pages = [await served.client().get(path) for _ in range(3)]
    unknown = await served.client().get("/sign-in/" + "A" * 43)
    assert [page.status for page in (*pages, unknown)] == [200] * 4
    assert not [page for page in (*pages, unknown) if "Set-Cookie" in page.headers]
    assert pages[0].text.replace(path, "").count("<form") == unknown.text.count("<form")
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.sign_in_link") == 1
    client = served.client()
    answer = await client.post(path, {})
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    home = await client.get("/")
    assert home.status == 200
    assert "link:cli:tester" in home.text
    assert (await client.get("/activity")).status == 403


async def test_link_used_before_is_refused_with_the_next_step(served):
    path = await link_path(served)
    assert (await served.client().post(path, {})).status == 303
    answer = await served.client().post(path, {})
    assert answer.status == 401
    assert "dispatcher open" in answer.text
    assert "Set-Cookie" not in answer.headers


async def test_link_posted_by_another_site_is_refused_and_kept(served, sql):
    path = await link_path(served)
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "", "Origin": "https://evil.example"},
    ):
        assert (await served.client().post(path, {}, **headers)).status == 403
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.sign_in_link") == 1


@pytest.mark.parametrize("code", ["%00", "..%2f..", "a" * 129, "<script>", "%F0%9F%98%80"])
async def test_link_with_a_hostile_code_is_an_error_page(served, code):
    client = served.client()
    assert (await client.get(f"/sign-in/{code}")).status in {200, 404}
    answer = await client.post(f"/sign-in/{code}", {})
    assert answer.status in {401, 404}
    assert "<script>" not in answer.text.replace("<script src=", "")
