"""The console's answers: who is let in, what a form must bring, what each error says, what is never cached."""

import io
import re
from typing import Any

import pytest

from dispatcher.admin.console import app as console_app
from dispatcher.admin.console.csrf import POLICY
from dispatcher.admin.resources.endpoint import ChangedEndpoint
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.dev.receiver import Behaviour, Receiver, ReceiverRoute
from tests.console.conftest import ADMIN_TOKEN, ALL, Client, Served
from tests.support.daemon import free_port
from tests.support.endpoints import create_endpoint
from tests.support.story import Story

pytestmark = pytest.mark.postgres

GOOD = {
    "name": "erp",
    "url": "https://example.com/hooks",
    "profile": "standard",
    "event_types": "order.created",
    "then": "save",
}
PAGES = ("/", "/webhooks", "/deliveries", "/schedule", "/events", "/system", "/preferences")
ADMIN_PAGES = (
    "/webhooks/new",
    "/activity",
    "/notifications",
    "/access",
    "/access/sessions",
    "/access/people",
)


async def made(served: Served, **fields: Any) -> ChangedEndpoint:
    given = {"name": "erp", "url": "https://example.com/hooks", "event_types": ["order.*"]}
    return await create_endpoint(served.operations.endpoints, ALL, given | fields)


async def test_every_page_asks_for_a_session_and_goes_on_to_where_one_wanted(
    served: Served,
) -> None:
    stranger = served.client()
    for path in (*PAGES[:-1], *ADMIN_PAGES):
        answer = await stranger.get(path)
        assert answer.status == 303, path
        assert answer.headers["Location"].startswith("/sign-in?next=")
    wrong = await stranger.post("/sign-in", {"token": "no", "next": "/events"})
    assert wrong.status == 401
    assert "not known" in wrong.text
    right = await stranger.post(
        "/sign-in", {"token": "admin-token-of-the-tests-0123456789", "next": "/events"}
    )
    assert right.headers["Location"] == "/events"
    assert "HttpOnly" in right.headers["Set-Cookie"]
    assert "SameSite=Lax" in right.headers["Set-Cookie"]


async def test_fragment_after_the_session_ended_leads_to_the_sign_in(
    served: Served,
) -> None:
    answer = await served.client().get("/", HX_Request="true")
    assert answer.status == 204
    assert answer.headers["HX-Redirect"] == "/sign-in?next=%2F"


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:1"]
)
async def test_signing_in_never_leads_to_another_site(served: Served, elsewhere: str) -> None:
    answer = await served.client().post(
        "/sign-in", {"token": "admin-token-of-the-tests-0123456789", "next": elsewhere}
    )
    assert answer.headers["Location"] == "/"


async def test_session_over_plain_http_is_refused_with_a_remedy(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.admin.client_address.is_loopback", lambda *_: False)
    stranger = served.client()
    asked = await stranger.get("/sign-in")
    assert "not encrypted" in asked.text
    assert "http.trusted_proxies" in asked.text
    answer = await stranger.post(
        "/sign-in", {"token": "admin-token-of-the-tests-0123456789", "next": "/"}
    )
    assert answer.headers["Set-Cookie"].startswith("__Host-")
    assert "Secure" in answer.headers["Set-Cookie"]


async def test_every_page_answers_with_its_headers_in_both_languages(
    served: Served, admin: Client
) -> None:
    endpoint = await made(served)
    own = [f"/webhooks/{endpoint.id}{part}" for part in
           ("", "/deliveries", "/test", "/settings", "/secret", "/pause", "/delete")]  # fmt: skip
    for language in ("en", "th"):
        for path in (*PAGES, *ADMIN_PAGES, *own):
            answer = await admin.get(path, Accept_Language=language)
            assert answer.status == 200, (path, answer.text)
            assert f'<html lang="{language}"' in answer.text
            assert answer.headers["Content-Security-Policy"] == POLICY
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert " style=" not in answer.text
            assert "<style" not in answer.text
            assert " onclick=" not in answer.text


async def test_a_made_endpoint_shows_its_secret_once_and_its_form_works_once(
    served: Served, admin: Client
) -> None:
    shown = await admin.get("/webhooks/new")
    fields = {**GOOD, "csrf": shown.hidden("csrf"), "form_id": shown.hidden("form_id")}
    answer = await admin.post("/webhooks/new", fields)
    assert answer.status == 200
    assert "whsec_" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    again = await admin.post("/webhooks/new", fields)
    assert again.status == 409
    assert "sent already" in again.text
    page = await served.operations.endpoints.page(ALL)
    assert len(page.items) == 1
    listed = await admin.get(f"/webhooks/{page.items[0].id}/secret")
    assert "********" in listed.text
    secrets_shown = re.findall(r"whsec_[A-Za-z0-9+/]{8,}", listed.text)
    assert secrets_shown == [], "the code names the prefix alone"


async def test_a_form_with_faults_comes_back_filled_in_with_all_of_them(admin: Client) -> None:
    answer = await admin.submit(
        "/webhooks/new",
        {**GOOD, "name": "", "url": "ftp://x", "headers": "no colon", "rate_limit": "fast"},
    )
    assert answer.status == 422
    assert "no colon" in answer.text
    assert "Write a number" in answer.text
    mended = await admin.submit("/webhooks/new", {**GOOD, "name": "", "url": "ftp://x"})
    assert mended.status == 422
    assert "ftp://x" in mended.text
    assert mended.text.count('class="problem"') >= 2


async def test_a_name_that_is_taken_is_said_beside_the_name(served: Served, admin: Client) -> None:
    await made(served)
    answer = await admin.submit("/webhooks/new", GOOD)
    assert answer.status == 409
    assert "The tenant already has an endpoint named" in answer.text


async def test_settings_change_and_two_people_do_not_overwrite_each_other(
    served: Served, admin: Client
) -> None:
    endpoint = await made(served, headers={"X-Key": "1"}, retry_schedule_seconds=[30, 120.0])
    path = f"/webhooks/{endpoint.id}/settings"
    first = await admin.get(path)
    assert "30s, 2m" in first.text
    fields = {
        "csrf": first.hidden("csrf"),
        "version": first.hidden("version"),
        "name": "renamed",
        "url": "https://example.com/hooks",
        "event_types": "order.created",
        "retry_schedule_seconds": "1h",
    }
    answer = await admin.post(path, fields)
    assert answer.status == 303, answer.text
    changed = await served.operations.endpoints.show(ALL, endpoint.id)
    assert (changed.name, changed.retry_schedule_seconds, changed.headers) == (
        "renamed", [3600.0], {},
    )  # fmt: skip
    late = await admin.post(path, {**fields, "name": "late"})
    assert late.status == 412
    assert "Changed by another person" in late.text


async def test_deleting_asks_first_with_what_waits_and_then_says_that_it_is_done(
    served: Served, admin: Client
) -> None:
    endpoint = await made(served)
    path = f"/webhooks/{endpoint.id}/delete"
    asked = await admin.get(path)
    assert "will be cancelled permanently" in asked.text
    unsure = await admin.submit(path, {"version": asked.hidden("version")})
    assert unsure.status == 422
    assert "not the name" in unsure.text
    assert len((await served.operations.endpoints.page(ALL)).items) == 1
    fields = {"version": asked.hidden("version"), "confirmed_name": "erp"}
    answer = await admin.submit(path, fields)
    assert answer.status == 303
    listed = await admin.get("/webhooks")
    assert "is deleted" in listed.text
    assert "No Webhook yet" in listed.text
    assert (await admin.get(f"/webhooks/{endpoint.id}")).status == 404


async def test_a_test_event_shows_its_result_in_place_and_says_what_to_do(
    served: Served, admin: Client
) -> None:
    receiver = Receiver(ReceiverRoute(behaviour=Behaviour(status=401)))
    port = await receiver.start("127.0.0.1", 0)
    try:
        endpoint = await made(served, url=f"http://127.0.0.1:{port}/hook")
        answer = await admin.submit(
            f"/webhooks/{endpoint.id}/test", {"event_type": "order.created", "data": "{}"}
        )
    finally:
        await receiver.stop()
    assert answer.status == 200
    assert "did not accept it" in answer.text
    assert "Compare the secrets" in answer.text


async def test_a_failing_test_pauses_the_new_endpoint_where_that_was_asked_for(
    served: Served, admin: Client
) -> None:
    answer = await admin.submit(
        "/webhooks/new",
        {
            **GOOD,
            "url": f"http://127.0.0.1:{free_port()}/none",
            "then": "test",
            "pause_if_failed": "yes",
        },
    )
    assert answer.status == 200
    assert "whsec_" in answer.text
    assert "the Webhook is paused" in answer.text
    page = await served.operations.endpoints.page(ALL)
    assert page.items[0].state == "paused"


async def test_secret_pages_reveal_rotate_and_stage_without_being_cached(
    served: Served, admin: Client
) -> None:
    endpoint = await made(served, profile="wms")
    path = f"/webhooks/{endpoint.id}/secret"
    revealed = await admin.submit(f"{path}/reveal", {}, page=path)
    assert str(endpoint.secret) in revealed.text
    assert revealed.headers["Cache-Control"] == "no-store"
    staged = await admin.submit(f"{path}/rotate", {}, page=path)
    assert "old secret still signs" in staged.text
    activated = await admin.submit(f"{path}/activate", {}, page=path)
    assert activated.status == 303
    audit = await served.operations.audit.page(ALL)
    actions = [line.action for line in audit.items]
    assert actions[:3] == [
        "endpoint.activate_secret", "endpoint.stage_secret", "endpoint.reveal_secret",
    ]  # fmt: skip


async def test_a_token_is_shown_once_and_revoked_with_its_sessions(
    served: Served, admin: Client
) -> None:
    answer = await admin.submit(
        "/access", {"name": "robot", "role": "viewer", "expires_days": "30"}
    )
    assert answer.status == 200
    token = answer.text.split('id="made-token"')[1].split('value="')[1].split('"')[0]
    robot = await served.client().sign_in(token)
    assert (await robot.get("/")).status == 200
    listed = await admin.get("/access")
    assert token not in listed.text
    found = (await served.operations.tokens.page(ALL)).items[0].id
    assert (await admin.submit(f"/access/tokens/{found}/revoke", {})).status == 303
    assert (await robot.get("/")).headers["Location"].startswith("/sign-in")


@pytest.mark.parametrize(
    ("headers", "csrf", "status"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, "right", 303),
        ({"Sec_Fetch_Site": "none"}, "right", 303),
        ({"Sec_Fetch_Site": ""}, "right", 303),
        ({"Sec_Fetch_Site": "", "Origin": "OWN"}, "right", 303),
        ({"Sec_Fetch_Site": "cross-site"}, "right", 403),
        ({"Sec_Fetch_Site": "same-site"}, "right", 403),
        ({"Sec_Fetch_Site": "", "Origin": "https://evil.example"}, "right", 403),
        ({"Sec_Fetch_Site": "", "Origin": "null"}, "right", 403),
        ({"Sec_Fetch_Site": "same-origin"}, "wrong", 403),
        ({"Sec_Fetch_Site": "same-origin"}, "", 403),
        ({"Sec_Fetch_Site": "same-origin"}, None, 403),
    ],
)
async def test_a_change_needs_the_sessions_token_and_a_page_of_ours(
    served: Served, admin: Client, headers: dict[str, str], csrf: str | None, status: int
) -> None:
    endpoint = await made(served)
    path = f"/webhooks/{endpoint.id}/pause"
    right = (await admin.get(path)).hidden("csrf")
    fields = {} if csrf is None else {"csrf": {"right": right}.get(csrf, csrf)}
    sent = {
        name: value.replace("OWN", served.base) if value else "" for name, value in headers.items()
    }
    answer = await admin.post(path, fields, **sent)
    assert answer.status == status
    state = (await served.operations.endpoints.show(ALL, endpoint.id)).state
    assert state == ("paused" if status == 303 else "active")


async def test_control_form_without_origin_check_lets_another_site_pause(
    served: Served, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A21, counted in changes: the browser sends the session's cookie along, whoever made the form."""
    endpoint = await made(served)
    path = f"/webhooks/{endpoint.id}/pause"

    async def changes() -> int:
        await admin.post(path, {"csrf": "guessed"}, Sec_Fetch_Site="cross-site")
        shown = await served.operations.endpoints.show(ALL, endpoint.id)
        return int(shown.state == "paused")

    assert await changes() == 0
    monkeypatch.setattr(console_app, "comes_from_us", lambda _: True)
    assert await changes() == 0, "the session's token is asked for as well"
    monkeypatch.setattr(console_app, "same_token", lambda *_: True)
    assert await changes() == 1


@pytest.mark.parametrize("is_here", [True, False], ids=["loopback", "elsewhere"])
async def test_session_cookie_is_http_only_same_site_and_secure(
    served: Served, monkeypatch: pytest.MonkeyPatch, is_here: bool
) -> None:
    monkeypatch.setattr("dispatcher.admin.client_address.is_loopback", lambda *_: is_here)
    answer = await served.client().post("/sign-in", {"token": ADMIN_TOKEN, "next": "/"})
    name, _, rest = answer.headers["Set-Cookie"].partition("=")
    attributes = {part.strip() for part in rest.split(";")[1:]}
    assert attributes >= {"HttpOnly", "Path=/", "SameSite=Lax"}
    assert not any(part.startswith("Domain") for part in attributes)
    assert ("Secure" in attributes, name.startswith("__Host-")) == (not is_here, not is_here)


async def test_another_sessions_token_does_not_do(served: Served, admin: Client) -> None:
    endpoint = await made(served)
    path = f"/webhooks/{endpoint.id}/pause"
    other = await served.client().sign_in()
    csrf = (await other.get(path)).hidden("csrf")
    assert (await admin.post(path, {"csrf": csrf})).status == 403


async def test_no_get_changes_anything(served: Served, admin: Client) -> None:
    endpoint = await made(served)
    before = await served.operations.endpoints.show(ALL, endpoint.id)
    for part in ("pause", "resume", "delete", "secret", "settings", "test"):
        assert (await admin.get(f"/webhooks/{endpoint.id}/{part}")).status == 200
    for path in ("secret/reveal", "secret/rotate", "secret/activate"):
        assert (await admin.get(f"/webhooks/{endpoint.id}/{path}")).status == 405
    assert (await admin.get("/sign-out")).status == 405
    assert await served.operations.endpoints.show(ALL, endpoint.id) == before


CHANGES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("viewer", "pause", {}),
    ("viewer", "resume", {}),
    ("viewer", "test", {"event_type": "order.created", "data": "{}"}),
    ("operator", "delete", {}),
    ("operator", "settings", {"name": "x", "url": "https://example.com/", "event_types": "*"}),
    ("operator", "secret/reveal", {}),
    ("operator", "secret/rotate", {}),
    ("operator", "secret/activate", {}),
)


@pytest.mark.parametrize(("role", "part", "fields"), CHANGES)
async def test_a_role_that_is_too_small_sees_no_button_and_is_refused(
    served: Served, role: str, part: str, fields: dict[str, str]
) -> None:
    endpoint = await made(served)
    person = await served.as_role(role)
    overview = await person.get(f"/webhooks/{endpoint.id}")
    assert overview.status == 200
    assert f'href="/webhooks/{endpoint.id}/delete"' not in overview.text
    if role == "viewer":
        assert f'href="/webhooks/{endpoint.id}/pause"' not in overview.text
    csrf = overview.hidden("csrf")
    answer = await person.post(f"/webhooks/{endpoint.id}/{part}", {**fields, "csrf": csrf})
    assert answer.status == 403, answer.text
    assert "Not permitted" in answer.text
    for path in ("/access", "/activity", "/webhooks/new"):
        assert (await person.get(path)).status == 403
    assert "/access" not in overview.text


async def test_another_tenants_things_do_not_exist(served: Served) -> None:
    endpoint = await made(served, tenant="acme")
    other = await served.as_role("admin", "other")
    for part in ("", "/deliveries", "/test", "/settings", "/secret", "/delete"):
        assert (await other.get(f"/webhooks/{endpoint.id}{part}")).status == 404
    assert "erp" not in (await other.get("/webhooks")).text


async def test_errors_say_what_to_do(
    served: Served, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/webhooks/ep_none", "/deliveries/wh_none", "/events/none", "/events/%00"):
        answer = await admin.get(path)
        assert answer.status == 404, path
        assert "Check the id" in answer.text
    filtered = await admin.get("/deliveries?state=strange&since=yesterday")
    assert filtered.status == 422
    assert "Write a time" in filtered.text

    async def away(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("Postgres is away")

    monkeypatch.setattr(type(served.operations.endpoints), "page", away)
    answer = await admin.get("/webhooks")
    assert answer.status == 503
    assert answer.headers["Retry-After"]
    assert "Nothing is lost" in answer.text
    monkeypatch.setattr(type(served.auth), "actor_of_session", away)
    assert (await admin.get("/")).status == 503


async def test_missing_page_is_html_for_people_and_a_line_for_programs(
    served: Served,
) -> None:
    stranger = served.client()
    for path, status in (("/nope", 404), ("/sign-out", 405)):
        page = await stranger.get(path, Accept="text/html,*/*;q=0.8")
        assert page.status == status
        assert page.headers["Content-Security-Policy"] == POLICY
        assert "Go to Home" in page.text
        line = await stranger.get(path, Accept="*/*")
        assert line.status == status
        assert "<" not in line.text


async def test_what_nobody_foresaw_is_a_page_and_a_line_in_the_log(
    served: Served, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(type(served.operations.overview), "summary", broken)
    answer = await admin.get("/")
    assert answer.status == 500
    assert "Something went wrong" in answer.text
    assert "ZeroDivision" not in answer.text


async def test_language_theme_and_zone_are_kept(admin: Client) -> None:
    csrf = (await admin.get("/preferences")).hidden("csrf")
    answer = await admin.post(
        "/preferences",
        {"csrf": csrf, "language": "th", "theme": "dark", "zone": "Asia/Bangkok", "back": "/events"},
    )  # fmt: skip
    assert answer.headers["Location"] == "/events"
    page = await admin.get("/events")
    assert '<html lang="th" data-theme="dark">' in page.text
    assert "Asia/Bangkok" in page.text
    await admin.post("/preferences", {"csrf": csrf, "language": "xx", "theme": "<", "zone": "../"})
    assert '<html lang="th" data-theme="dark">' in (await admin.get("/events")).text


async def test_times_are_shown_in_the_zone_with_utc_beside(
    served: Served, admin: Client, sql: Any
) -> None:
    endpoint = await made(served)
    await sql.execute("UPDATE dispatcher.endpoint SET created_at = '2026-05-29T14:32:11Z'")
    page = await admin.get(f"/webhooks/{endpoint.id}")
    assert ">2026-05-29 14:32:11</time>" in page.text
    admin.session.cookie_jar.update_cookies({"dispatcher_zone": "auto:Asia/Bangkok"})
    page = await admin.get(f"/webhooks/{endpoint.id}", Accept_Language="th")
    assert ">2026-05-29 21:32:11</time>" in page.text
    assert 'title="2026-05-29 14:32:11.000000 UTC"' in page.text
    assert "2569" not in page.text


async def test_assets_are_kept_for_ever_under_names_with_their_hash(
    served: Served, admin: Client
) -> None:
    page = await admin.get("/")
    paths = [part.split('"')[0] for part in page.text.split('="/static/')[1:]]
    assert len(paths) == 4
    for path in paths:
        answer = await served.client().get(f"/static/{path}")
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await admin.get("/static/console.css")).status == 404
    assert (await admin.get("/static/..%2f..%2fsite.py")).status == 404


async def test_a_form_that_is_too_large_or_none_is_refused(admin: Client) -> None:
    large = io.BytesIO(b"x=" + b"y" * (1 << 20))
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert (await admin.ask("POST", "/preferences", large, form)).status == 413
    json = await admin.ask("POST", "/preferences", b"{}", {"Content_Type": "application/json"})
    assert json.status == 415


async def test_a_delivery_of_a_large_body_is_a_small_page(
    admin: Client, story: Story, sql: Any
) -> None:
    """A body of 1 MiB of `<` made a page of 8 MB, which blocked the event loop for 0.3 s."""
    delivery_id = await story.delivery(await story.endpoint(), "evt_large")
    await sql.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code, response_body)"
        " SELECT day, id, 1, 'scheduled', 'http_error', now(), 0.1, false, 'https://x.test', 500, ''"
        " FROM words.delivery_open WHERE id = $1",
        delivery_id,
    )
    body = b'{"a":"' + b"<" * 1_000_000 + b'"}'
    await sql.execute("UPDATE dispatcher.body SET bytes = $1 WHERE event_id = 'evt_large'", body)
    page = await admin.get(f"/deliveries/{delivery_id}")
    assert page.status == 200
    assert "--data-binary @body.json" in page.text
    assert len(page.text) < 600_000


async def test_a_job_is_counted_created_and_paused_by_forms(
    served: Served, admin: Client, story: Story
) -> None:
    endpoint = await story.endpoint("erp")
    await story.delivery(endpoint, "e1", "failed")
    await story.delivery(endpoint, "e2", "succeeded")
    path = f"/jobs/new?kind=replay&recoverable=yes&endpoint_id={endpoint}"
    shown = await admin.get(path)
    assert "1 deliveries found" in shown.text
    assert "Replay 1 deliveries" in shown.text
    created = await admin.submit(path, {}, page=path)
    assert (created.status, created.headers["Location"].startswith("/jobs/job_")) == (303, True)
    page = created.headers["Location"]
    first = await admin.get(page)
    assert "The deliveries are being counted." in first.text
    assert (await admin.submit(f"{page}/pause", {}, page=page)).status == 303
    assert "Paused" in (await admin.get(page)).text
    assert (await admin.submit(f"{page}/resume", {}, page=page)).status == 303
    assert (await admin.submit(f"{page}/cancel", {}, page=page)).status == 303
    listed = await admin.get("/jobs?state=cancelled")
    assert page in listed.text
    for wrong, problem in (
        ("state=lost", 422),
        ("state=failed&rate=0", 422),
        ("state=failed&rate=x", 422),
        ("state=failed&to=x", 422),
        ("state=failed&to=x&kind=replay", 404),
        ("endpoint_id=unknown", 404),
        ("finished_since=x", 422),
    ):
        assert (await admin.get(f"/jobs/new?{wrong}")).status == problem, wrong
    viewer = await served.as_role("viewer")
    assert (await viewer.get(path)).status == 403
    assert (await viewer.get(page)).status == 200


async def test_webhook_page_counts_failures_by_response_and_recovers_them(
    served: Served, admin: Client, story: Story, sql: Any
) -> None:
    endpoint = await story.endpoint("erp")
    for number in range(3):
        delivery = await story.delivery(endpoint, f"e{number}", "failed")
        await sql.execute(
            "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
            " latency_seconds, url, response_code, reused) VALUES ($1, $2, 1, 'scheduled', $3, now(), 0.1,"
            " 'https://x.test/', $4, false)",
            story.now.date(),
            delivery,
            "timeout" if number == 2 else "http_error",
            None if number == 2 else 503,
        )
    page = await admin.get(f"/webhooks/{endpoint}")
    deliveries = f"/webhooks/{endpoint}/deliveries?state=failed&amp;response="
    assert f'<a href="{deliveries}503">2</a>' in page.text
    assert f'<a href="{deliveries}timeout">1</a>' in page.text
    for kind, count in (("503", 2), ("timeout", 1)):
        listed = await admin.get(f"/webhooks/{endpoint}/deliveries?state=failed&response={kind}")
        assert listed.text.count("<tr data-id=") == count, "the link shows what it counts"

    recover = f"/webhooks/{endpoint}/recover"
    assert recover in page.text
    counted = await admin.get(f"{recover}?hours=24")
    assert "3 deliveries found" in counted.text
    assert "Nothing failed" not in counted.text
    assert (await admin.get(f"{recover}?hours=25")).status == 422
    started = await admin.submit(recover, {"hours": "24"}, page=f"{recover}?hours=24")
    assert started.headers["Location"].startswith("/jobs/job_")
    jobs = await served.operations.jobs.page(ALL)
    assert (jobs.items[0].kind, jobs.items[0].filter["endpoint_id"]) == ("replay", endpoint)
    viewer = await served.as_role("viewer")
    assert (await viewer.get(recover)).status == 403
    assert recover not in (await viewer.get(f"/webhooks/{endpoint}")).text


async def test_list_of_webhooks_begins_with_trouble_and_filters_by_name(
    admin: Client, story: Story, sql: Any
) -> None:
    for name in ("alpha", "beta", "gamma"):
        await story.endpoint(name)
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_status (endpoint_id, health, since, cause, response_code)"
        " SELECT id, 'down', now(), 'http_error', 503 FROM dispatcher.endpoint WHERE name = 'beta'"
    )
    text = (await admin.get("/webhooks")).text
    assert sorted(("alpha", "beta", "gamma"), key=lambda one: text.index(f">{one}</a>")) == [
        "beta", "alpha", "gamma",
    ]  # fmt: skip
    assert 'class="dot bad">Down<' in text
    found = (await admin.get("/webhooks?q=LPH")).text
    assert ">alpha</a>" in found
    assert ">beta</a>" not in found
    assert 'href="/webhooks" aria-label="Remove' in found, "a filter is a chip that can be removed"


async def test_new_webhook_previews_the_request_with_and_without_scripts(admin: Client) -> None:
    shown = await admin.get("/webhooks/new")
    fields = {
        "csrf": shown.hidden("csrf"), "form_id": shown.hidden("form_id"), "then": "preview", "name": "<b>erp</b>",
        "url": "https://erp.example.com/hook?a=<i>", "profile": "humansoft", "event_types": "order.shipped",
        "headers": "X-Api-Key: <u>k</u>", "secret": "secret-that-stays-hidden-x",
    }  # fmt: skip
    part = await admin.post("/webhooks/new", fields, HX_Request="true")
    assert part.status == 200
    assert "<html" not in part.text
    assert "X-Webhook-Signature: sha256=" in part.text
    assert "X-Api-Key: &lt;u&gt;k&lt;/u&gt;" in part.text
    assert "ORD-2026-1234" in part.text
    whole = await admin.post("/webhooks/new", fields)
    assert whole.status == 200
    assert "X-Webhook-Signature: sha256=" in whole.text
    assert "Type the secret again" in whole.text
    assert "secret-that-stays-hidden-x" not in whole.text + part.text
    bare = await admin.post(
        "/webhooks/new", {**fields, "url": "ftp://", "headers": "no", "event_types": "%"}
    )
    assert bare.status == 200, "an invalid field is left out of the preview"
    assert "https://example.com/webhooks" in bare.text
    issued = await admin.post("/webhooks/new", {**fields, "profile": "slack"}, HX_Request="true")
    assert issued.status == 200
    saved = await admin.post(
        "/webhooks/new", {**fields, "then": "save", "url": "https://example.com/"}
    )
    assert saved.status == 200, "a preview does not use the form up"
    assert "is saved" in saved.text


async def test_settings_preview_a_change_and_keep_prefixes_of_types(
    served: Served, admin: Client
) -> None:
    endpoint = await made(served, profile="wms", event_types=["order.*", "stock.changed"])
    path = f"/webhooks/{endpoint.id}/settings"
    shown = await admin.get(path)
    assert "The request for stock.changed with these settings" in shown.text
    other = re.search(r'<input[^>]*name="other_types"[^>]*value="([^"]*)"', shown.text)
    assert other is not None, "a prefix has no box, so it is in the field"
    assert other[1] == "order.*"
    fields = {
        **{name: shown.hidden(name) for name in ("csrf", "form_id", "version")}, "then": "preview",
        "name": "erp", "url": "https://example.com/hooks", "event_types": "stock.changed",
        "other_types": other[1], "also_sign": "standard", "exclude": "sku",
    }  # fmt: skip
    part = await admin.post(path, fields, HX_Request="true")
    assert (part.status, "<html" in part.text) == (200, False)
    assert "webhook-signature: v1," in part.text
    assert "sku" not in part.text
    whole = await admin.post(path, fields)
    assert "webhook-signature: v1," in whole.text
    assert 'value="standard"' in whole.text, "what was typed stays"
    assert (await served.operations.endpoints.show(ALL, endpoint.id)).also_sign == []
    saved = await admin.post(path, {**fields, "then": "save"})
    assert saved.status == 303
    changed = await served.operations.endpoints.show(ALL, endpoint.id)
    assert (changed.event_types, changed.also_sign) == (["stock.changed", "order.*"], ["standard"])


async def test_made_webhook_sends_a_test_event_in_place(admin: Client) -> None:
    receiver = Receiver(ReceiverRoute(behaviour=Behaviour(status=401)))
    port = await receiver.start("127.0.0.1", 0)
    try:
        made_page = await admin.submit(
            "/webhooks/new", {**GOOD, "url": f"http://127.0.0.1:{port}/hook", "profile": "wms"}
        )
        found = re.search(r'hx-post="(/webhooks/ep_\w+/test)"', made_page.text)
        assert found is not None
        for language in ("Python", "JavaScript", "PHP", "Java", "Go", "C#"):
            assert f"<summary>{language}</summary>" in made_page.text
        fields = {"csrf": made_page.hidden("csrf")}
        for _ in range(2):
            sent = await admin.post(found[1], fields, HX_Request="true")
            assert sent.status == 200
            assert "<html" not in sent.text
            assert "401" in sent.text
    finally:
        await receiver.stop()
    refused = await admin.post(
        "/webhooks/ep_none/test", {"csrf": made_page.hidden("csrf")}, HX_Request="true"
    )
    assert refused.status == 200
    assert "notice bad" in refused.text


async def test_retry_now_in_place_reports_a_conflict_in_place(
    served: Served, admin: Client
) -> None:
    endpoint = await made(served)
    page = await admin.get(f"/webhooks/{endpoint.id}")
    fields = {"csrf": page.hidden("csrf")}
    done = await admin.post(f"/webhooks/{endpoint.id}/retry", fields, HX_Request="true")
    assert done.status == 200
    assert "No deliveries are waiting" in done.text
    assert "<html" not in done.text
    await served.operations.endpoints.pause(ALL, endpoint.id)
    refused = await admin.post(f"/webhooks/{endpoint.id}/retry", fields, HX_Request="true")
    assert (refused.status, "notice bad" in refused.text) == (200, True)
    assert (await admin.post(f"/webhooks/{endpoint.id}/retry", fields)).status == 409
