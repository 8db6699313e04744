"""Two hundred hostile payloads in every displayed field: each is shown as text, none runs, nothing is fetched."""

import hashlib
import importlib
import pkgutil
import re
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import asyncpg
import orjson
import pytest
from playwright.sync_api import Page

from dispatcher.admin.console import pages
from dispatcher.core import ids
from dispatcher.core.printable import escape_lines
from tests.console.conftest import Living, Watched
from tests.support.cluster import run_apart

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.e2e,
    pytest.mark.slow,
]

PAYLOADS: list[str] = orjson.loads((Path(__file__).parent / "hostile.json").read_bytes())
SCHEME = re.compile(r"\s*(javascript|data|vbscript|[a-z]+):", re.IGNORECASE)
INDEXED_CHARACTERS_MAX = 700
"""What an index can hold."""
# Elements of ours hold none of this, so any of it came out of a payload.
STRANGE = """
() => [...document.querySelectorAll("*")].filter((one) =>
    ["IMG", "IFRAME", "OBJECT", "EMBED", "BASE", "STYLE", "MATH", "VIDEO", "AUDIO", "MARQUEE"].includes(one.tagName)
    && !(one.tagName === "IMG" && one.getAttribute("src").startsWith("/help/"))
    || [...one.attributes].some((attribute) => /^(on|style$|srcdoc$|data-hx-|hx-on)/i.test(attribute.name)
        || (/^formaction$/i.test(attribute.name) && !/^[/][a-z]/.test(attribute.value)))
    || /^\\s*(javascript|data|vbscript):/i.test(one.getAttribute("href") ?? "")
    || (one.tagName === "SCRIPT" && !one.src.startsWith(location.origin + "/static/"))
    || (one.tagName === "LINK" && !one.href.startsWith(location.origin + "/static/"))
    || (one.tagName === "FORM" && !/^[/](?![/])|^$/.test(one.getAttribute("action") ?? ""))
).map((one) => one.outerHTML.slice(0, 200))
"""
# Text, titles and the values of fields: everything that is shown.
SHOWN = """
() => [document.body.textContent,
       ...[...document.querySelectorAll("input, textarea")].map((one) => one.value),
       ...[...document.querySelectorAll("[title], [aria-label]")].map((one) =>
            (one.title ?? "") + (one.getAttribute("aria-label") ?? ""))].join("\\n")
"""


def rows_of_payloads(long_run: bool) -> list[list[str]]:
    """Returns the payloads of each row, all of them in the last one.

    In the short form a row has many, one of which begins its texts; those that must begin a text have their own.
    """
    if long_run:
        return [*([one] for one in PAYLOADS), PAYLOADS]
    rows: list[list[str]] = [[]]
    for payload in sorted(PAYLOADS, key=lambda one: SCHEME.match(one) is not None):
        if SCHEME.match(payload) or len("\n".join([*rows[-1], payload])) > INDEXED_CHARACTERS_MAX:
            rows.append([])
        rows[-1].append(payload)
    return [*rows, PAYLOADS]


LIST_PAGES = (
    "/webhooks", "/deliveries", "/events", "/activity", "/notifications", "/access", "/access/sessions",
    "/access/people", "/schedule", "/jobs",
)  # fmt: skip
FILTERED = {
    "/deliveries": ("q", "endpoint_id", "event_type", "label", "period", "since", "until", "state", "response",
                    "test", "rows", "cursor", "at"),
    "/events": ("q", "type", "label", "since", "until", "test", "system", "cursor"),
    "/webhooks": ("q", "state", "health", "profile", "tenant", "cursor"),
    "/schedule": ("q", "endpoint_id", "event_type", "due_since", "due_until", "state", "cursor"),
    "/jobs/new": ("kind", "endpoint_id", "event_type", "q", "state", "since", "until", "to", "rate"),
    "/activity": ("by", "action", "object", "since", "until", "cursor"),
    "/search": ("q",),
    "/": ("range",),
    "/sign-in": ("next",),
}  # fmt: skip
"""The parameters that the address of a page may have."""
FORMS = (
    "/webhooks/new", "{webhook}/settings", "{webhook}/secret", "{webhook}/delete",
    "/deliveries/{delivery}/signature", "/notifications/new", "/access", "/preferences",
)  # fmt: skip
FILL = """
one => {
  const form = [...document.querySelectorAll("main form")].sort((a, b) => b.elements.length - a.elements.length)[0]
  if (!form) return false
  for (const field of form.elements) {
    if (["text", "url", "search", "password", "email", "textarea"].includes(field.type)) field.value = one
  }
  HTMLFormElement.prototype.submit.call(form)
  return true
}
"""
UNSEEN = {
    "/deliveries/tail", "/deliveries/export", "/deliveries/{id}/body", "/events/{id}/data", "/sign-in/oidc",
    "/sign-in/callback", "/tokens",
}  # fmt: skip
"""Files, streams and redirects."""


@pytest.fixture(scope="module")
def filled(living: Living, long_run: bool) -> list[str]:
    """Puts the payloads past every check, straight into the tables; returns the ids of the deliveries."""
    unix_ms = int(time.time() * 1000)  # noqa: TID251 -- the day of today's partition
    rows = rows_of_payloads(long_run)
    delivery_ids = [
        str(ids.delivery_id(unix_ms, f"hostile-{number}", "ep_hostile"))
        for number in range(len(rows))
    ]

    async def fill() -> None:
        connection = await asyncpg.connect(living.url)
        try:
            for number, everything in enumerate(rows):
                await put(connection, number, everything, delivery_ids[number])
        finally:
            await connection.close()

    run_apart(fill)
    return delivery_ids


async def put(connection: Any, number: int, everything: list[str], delivery_id: str) -> None:
    """Writes one of everything that the console shows."""
    payload = "\n".join(everything)
    texts = orjson.dumps({f"k{i}": one for i, one in enumerate(everything)}).decode()
    endpoint_id = f"ep_{number:026d}"
    event_id = f"evt{number}{payload[:40]}"
    short = payload[:INDEXED_CHARACTERS_MAX]
    today_ms = int(time.time() * 1000)  # noqa: TID251 -- the day of today's partition
    waiting_id = str(ids.delivery_id(today_ms, f"waiting-{number}", endpoint_id))
    await connection.execute(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, labels, headers, state,"
        " reason, shard, ca_pem, content_filter, also_sign, include, exclude, oauth_token_url, oauth_client_id,"
        " oauth_scope, client_certificate)"
        " VALUES ($1, 'default', $2, $3, 'wms', $4, $5, $5, 'disabled', $6, 3, $6, $6, $4, $4, $4, $3, $6, $6, $6)",
        endpoint_id, f"{number} {short}", f"https://x.test/{payload}", everything, texts, payload,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed) VALUES ($1, 'current', $2, 'x'),"
        " ($1, 'oauth', $2, 'x'), ($1, 'client_key', $2, 'x')",
        endpoint_id, short,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.event (day, id, type, tenant, data, occurred_at, ordering_key, labels, traceparent,"
        " inserted_at, accepted_at) VALUES ((now() AT TIME ZONE 'UTC')::date, $1, $2, $2, $3, now(), $2, $4, $2,"
        " now(), now())",
        event_id, short, orjson.dumps({"a": payload}).decode(), texts,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.body (day, event_id, profile, bytes)"
        " VALUES ((now() AT TIME ZONE 'UTC')::date, $1, 'wms', $2)",
        event_id, payload.encode(),
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO words.delivery_done (id, day, event_id, endpoint_id, event_type, tenant, profile, state,"
        " reason, attempt_count, schedule_position, created_at, finished_at, warnings)"
        " VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $2, $3, $4, $4, 'wms', 'failed', 'schedule_spent', 1, 1,"
        " now(), now(), $5)",
        delivery_id, event_id, endpoint_id, short, everything,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, flags, attempted_at,"
        " latency_seconds, reused, peer, url, response_code, response_body, error)"
        " VALUES ((now() AT TIME ZONE 'UTC')::date, $1, 1, 'scheduled', 'http_error', $2, now(), 1, false, $3, $3,"
        " 500, $4, $3)",
        delivery_id, everything, payload, payload.encode(),
    )  # fmt: skip
    await connection.execute(
        "UPDATE dispatcher.attempt SET response_headers = $1 WHERE event_id = $2",
        f"X-Note: {payload}\r\nX-{escape_lines(short)}: 1".encode(), event_id,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.audit (actor, tenant, action, object, detail) VALUES ($1, $1, $1, $1, $2)",
        short, texts,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.notification (id, name, event_types, endpoint_ids, to_endpoint_id, recipient,"
        " quiet_seconds, created_by) VALUES ($1, $2, '{dispatcher.delivery.failed}', $3, ($3::text[])[1], $2, 900, $2)",
        f"ntf_{number:026d}", short, [endpoint_id],
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.notification_problem (notification_id, endpoint_id, event_type, endpoint_name, tenant,"
        " reason, started_at, seen_at, events_count, announced_at)"
        " VALUES ($1, $2, 'dispatcher.delivery.failed', $3, $4, $3, now(), now(), 1, now())",
        f"ntf_{number:026d}", endpoint_id, payload, short,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO words.delivery_open (id, day, event_id, endpoint_id, event_type, tenant, profile, state,"
        " next_attempt_at) VALUES ($1, (now() AT TIME ZONE 'UTC')::date, $2, $3, $4, $4, 'wms', 'pending',"
        " now() + interval '9 hours')",
        waiting_id, event_id, endpoint_id, short,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.job (id, kind, tenant, filter, criteria, target_id, rate_per_second, requested_by,"
        " state, reason, finished_at, is_walked, is_settled, total_count, skipped)"
        " VALUES ($1, 'replay', $2, $3, '{}', $2, 1, $2, 'failed', $2, now(), true, true, 1, $4)",
        f"job_{number:026d}", short, orjson.dumps({"q": payload, "event_type": payload}).decode(),
        orjson.dumps({payload: 1}).decode(),
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.person (id, issuer, subject, name, role, tenant) VALUES ($1, $2, $3, $2, 'viewer', $2)",
        f"per_{number:026d}", short, f"{number} {short}",
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.session (hash, id, source, authority, actor, label, role, tenant, address, ends_at)"
        " VALUES ($1, $2, 'oidc', $1, $3, $3, 'viewer', $3, $3, now() + interval '1 hour')",
        hashlib.sha256(f"session {number}".encode()).digest(), f"ses_{number:026d}", short,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.replica (incarnation, name, version, expires_at)"
        " VALUES ($1, $2, $2, now() + interval '1 hour')",
        f"hostile-{number}", short,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO dispatcher.token (id, name, prefix, hash, role, tenant, created_by)"
        " VALUES ($1, $2, $2, $3, 'viewer', $2, $2)",
        f"tok_{number:026d}", short, hashlib.sha256(str(number).encode()).digest(),
    )  # fmt: skip


def look(page: Page, path: str) -> str:
    """Opens a page, makes sure that nothing of a payload became an element, and returns what it shows."""
    page.goto(path)
    assert page.evaluate(STRANGE) == [], path
    assert page.evaluate("() => typeof __ran") == "undefined", path
    return squeezed(page.evaluate(SHOWN))


def preview(tab: Watched) -> None:
    """Types payloads into the form of a new webhook, whose preview shows them as text."""
    page = tab.page
    page.goto(tab.base + "/webhooks/new")
    for payload in PAYLOADS[::20]:
        page.fill("#f-name", payload[:100].replace("\n", " "))
        page.fill("#f-url", f"https://x.test/{payload[:100]}")
        with page.expect_response("**/webhooks/new"):
            page.fill("#f-headers", f"X-Note: {payload[:100]}")
            page.locator("#f-headers").blur()
        assert page.evaluate(STRANGE) == []
        assert page.evaluate("() => typeof __ran") == "undefined"


def squeezed(text: str) -> str:
    return "".join(text.split())


def missing(shown: str) -> list[str]:
    """Returns the payloads of which neither the text nor its printable form is shown."""
    return [
        one
        for one in PAYLOADS
        if squeezed(one)[:100] not in shown and squeezed(escape_lines(one))[:100] not in shown
    ]


def test_no_payload_runs_and_each_is_shown_as_text(
    filled: list[str], open_tab: Callable[..., Watched]
) -> None:
    tab = open_tab(locale="en-GB")
    fetched: list[str] = []
    tab.page.on("request", lambda request: fetched.append(request.url))
    tab.sign_in()
    for start in LIST_PAGES:
        shown, path = "", tab.base + start
        while path:
            shown += look(tab.page, path)
            following = tab.page.locator("a[rel=next]")
            path = following.evaluate("one => one.href") if following.count() else ""
        assert missing(shown) == [], start
    last = len(filled) - 1
    whole = f"{tab.base}/webhooks/ep_{last:026d}"
    for path in (whole, f"{whole}/settings", f"{tab.base}/deliveries/{filled[last]}"):
        assert missing(look(tab.page, path)) == [], path
    for part in (
        "/deliveries",
        "/test",
        "/secret",
        "/pause",
        "/resume",
        "/delete",
        "/recover?hours=1",
    ):
        look(tab.page, whole + part)
    rule = f"{tab.base}/notifications/ntf_{last:026d}"
    assert missing(look(tab.page, rule)) == [], rule
    for part in ("/delete",):
        look(tab.page, rule + part)
    preview(tab)
    look(tab.page, f"{tab.base}/deliveries/{filled[0]}")
    tab.page.locator("dd a[href^='/events/']").click()
    assert tab.page.evaluate(STRANGE) == []
    assert tab.complaints == []
    assert [url for url in fetched if not url.startswith(tab.base + "/")] == []


def pages_of_routes(last: int, everything: str) -> list[str]:
    """Return the address of each page that the console has, with the ids of what holds all payloads."""
    event = f"evt{last}" + "\n".join(PAYLOADS)[:40]
    objects = {
        "webhooks": f"ep_{last:026d}",
        "deliveries": everything,
        "events": quote(event, safe=""),
        "jobs": f"job_{last:026d}",
        "notifications": f"ntf_{last:026d}",
        "access": f"tok_{last:026d}",
    }
    found = []
    for module in pkgutil.iter_modules(pages.__path__):
        for route in importlib.import_module(f"{pages.__name__}.{module.name}").ROUTES:
            if route.method != "GET" or route.path in UNSEEN or route.path.endswith(".json"):
                continue
            address = route.path.replace("{name:.+}", "reference/console").replace("{code}", "none")
            address = address.replace("{id}", objects.get(address.split("/")[1], "none"))
            choice = re.search(r"\{\w+:([a-z|]+)\}", address)
            choices = choice[1].split("|") if choice else [""]
            found += [address.replace(choice[0], one) if choice else address for one in choices]
    return found


def test_every_page_shows_payloads_as_text(
    filled: list[str], open_tab: Callable[..., Watched]
) -> None:
    tab = open_tab(
        locale="th-TH", color_scheme="dark", viewport={"width": 390, "height": 844}
    ).sign_in()
    addresses = pages_of_routes(len(filled) - 1, filled[-1])
    assert len(addresses) > 40
    for address in addresses:
        look(tab.page, tab.base + address)
    assert tab.complaints == []


def test_every_parameter_and_form_takes_payloads_as_text(
    filled: list[str], open_tab: Callable[..., Watched]
) -> None:
    tab = open_tab(locale="en-GB").sign_in()
    left = cycle(PAYLOADS)
    for path, names in FILTERED.items():
        for _ in range(3):
            values = {name: next(left)[:200] for name in names}
            look(tab.page, f"{tab.base}{path}?{urlencode(values)}")
    whole = f"/webhooks/ep_{len(filled) - 1:026d}"
    for number, path in enumerate(FORMS):
        address = path.format(webhook=whole, delivery=filled[0])
        for payload in PAYLOADS[number :: len(FORMS) * 8]:
            tab.page.goto(tab.base + address)
            with tab.page.expect_navigation():
                assert tab.page.evaluate(FILL, payload), address
            assert tab.page.evaluate(STRANGE) == [], (address, payload)
            assert tab.page.evaluate("() => typeof __ran") == "undefined", (address, payload)
    assert tab.complaints == []


def test_a_payload_in_an_address_is_text_as_well(
    living: Living, open_tab: Callable[..., Watched]
) -> None:
    del living
    tab = open_tab(locale="en-GB").sign_in()
    for payload in PAYLOADS[::25]:
        tab.page.goto(
            tab.base + "/deliveries", wait_until="commit"
        )  # the page whose form carries it on
        for field, path in (("main [name=q]", "deliveries"), (".search [name=q]", "search")):
            tab.page.fill(field, payload[:200])
            tab.page.press(field, "Enter")
            tab.page.wait_for_url(re.compile(rf"/{path}\?q=|/deliveries\?label="))
            assert tab.page.evaluate(STRANGE) == []
            if (
                "?q=" in tab.page.url
            ):  # the search leads from the value of a label to its deliveries
                assert tab.page.input_value(field).strip() in payload
    assert tab.complaints == []


def test_the_corpus_would_be_noticed(living: Living, open_tab: Callable[..., Watched]) -> None:
    del living
    tab = open_tab()
    tab.open("/sign-in")
    noticed = 0
    for payload in PAYLOADS:
        tab.page.evaluate("one => { document.querySelector('main').innerHTML = one }", payload)
        noticed += bool(tab.page.evaluate(STRANGE))
    assert len(PAYLOADS) == len(set(PAYLOADS)) == 200
    assert noticed > 60
    assert any("Content Security Policy" in one for one in tab.complaints)
