"""Every page in Thai has Thai texts alone, but for names and the terms that Thai support staff use in English."""

import importlib
import pkgutil
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from dispatcher.admin.console import pages
from dispatcher.admin.resources.job import JobFilter, NewJob
from dispatcher.admin.resources.notification import NewNotification
from tests.console.conftest import ALL, Client, Served
from tests.support.story import Story

pytestmark = pytest.mark.postgres

TERMS = set(
    (Path(__file__).parents[1] / "unit" / "thai_terms.txt").read_text(encoding="utf-8").split()
)
NAMES = {
    "English", "PostgreSQL", "PostgreSQL:", "Python", "Java", "Go", "PHP", "Ruby", "Node.js", "C#", "C", "Ctrl", "K",
    "Enter", "Esc", "Tab", "tester", "reason", "down", "KiB", "MiB", "GiB", "B", "admin-token", "example.com", "wms",
    "humansoft", "standard", "github", "stripe", "X-WMS-Signature",
}  # fmt: skip
"""Names of products, keys and of what this test makes."""
CODE = {"code", "pre", "kbd", "script", "style", "textarea", "option", "datalist", "time"}
SPOKEN = {"aria-label", "title", "placeholder", "alt"}
SENTENCE = re.compile(r"[a-z']+(?: [a-z']+){2,}")
"""Three words in a row: no code has them, but for a command."""
UNSEEN = {
    "/deliveries/tail", "/deliveries/export", "/deliveries/{id}/body", "/events/{id}/data", "/sign-in/oidc",
    "/sign-in/callback", "/tokens",
}  # fmt: skip
"""Files, streams and redirects."""


class Words(HTMLParser):
    """Collects the words that a person reads or hears, outside of code, values of fields, and other languages."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []
        self._silent: list[str] = []
        self._foreign: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in {
            "meta",
            "link",
            "input",
            "img",
            "br",
            "hr",
            "path",
            "circle",
            "rect",
            "line",
        }:
            self._open.append(tag)
            self._foreign.append(values.get("lang") not in {None, "th"})
            is_code = tag in CODE or "code" in (values.get("class") or "").split()
            if (
                is_code
                or values.get("lang") not in {None, "th"}
                or "data-name" in values
                or self._silent
            ):
                self._silent.append(tag)
        if self._silent:
            return
        for name in SPOKEN & values.keys():
            self._keep(values[name] or "")

    def handle_endtag(self, tag: str) -> None:
        while tag in self._open:
            ended = self._open.pop()
            self._foreign.pop()
            if self._silent:
                self._silent.pop()
            if ended == tag:
                return

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._keep(data)
        elif self._open[-1] == "code" and not any(self._foreign):
            self.found += SENTENCE.findall(re.sub(r"^dispatcher .*", "", data))

    def _keep(self, text: str) -> None:
        text = re.sub(r"https?://\S+", "", text)
        for word in re.findall(r"[A-Za-z][^\s\u0e00-\u0e7f()“”,;:…·→/=`]*", text):
            plain = word.rstrip(".!?\"'")
            is_value = (
                re.search(r"[\d_@]|\w\.\w|^([A-Z][a-z]*-)+[A-Z][a-z]+$", plain) or plain.isupper()
            )
            if not {word, plain} & (TERMS | NAMES) and not is_value:
                self.found.append(plain)


def english_in(text: str) -> list[str]:
    parser = Words()
    parser.feed(text)
    return parser.found


def addresses(ids: dict[str, str]) -> list[str]:
    """Return the address of each page, with the ids of what the test has made."""
    found = [
        "/deliveries?state=failed&response=5xx&q=none",
        "/activity?action=endpoint.create",
        "/search?q=order",
    ]
    for module in pkgutil.iter_modules(pages.__path__):
        for route in importlib.import_module(f"{pages.__name__}.{module.name}").ROUTES:
            is_page = route.method == "GET" and route.path not in UNSEEN
            if (
                not is_page
                or route.path.startswith("/help")
                or route.path.endswith((".json", ".css"))
            ):
                continue
            address = route.path.replace("{code}", "none").replace("{name}", "order.created")
            for kind in ("webhooks", "deliveries", "events", "jobs", "notifications", "access"):
                if address.startswith(f"/{kind}/"):
                    address = address.replace("{id}", ids[kind])
            choice = re.search(r"\{\w+:([a-z|]+)\}", address)
            choices = choice[1].split("|") if choice else [""]
            found += [address.replace(choice[0], one) if choice else address for one in choices]
    return found


@pytest.fixture
async def ids(served: Served, story: Story, sql: "asyncpg.Connection[Any]") -> dict[str, str]:
    """One of everything, of which the failures and what a person reads most."""
    endpoint = await story.endpoint("ระบบคลัง", url="https://example.com/hook", profile="wms")
    await story.event("evt_1", labels='{"order_id": "ORD-2026-1234"}')
    failed = await story.delivery(endpoint, "evt_1", "failed")
    await story.delivery(endpoint, "evt_2", "pending")
    await story.delivery(endpoint, "evt_3", "cancelled")
    await story.delivery(endpoint, "evt_4", "succeeded")
    for number, (outcome, code) in enumerate(
        [("http_error", 500), ("timeout", None), ("http_error", 401), ("dns_error", None)], 1
    ):
        await sql.execute(
            "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
            " latency_seconds, url, response_code, reused) VALUES ($1, $2, $3, 'scheduled', $4, now(), 0.1,"
            " 'https://example.com/', $5, false)",
            story.now.date(), failed, number, outcome, code,
        )  # fmt: skip
    await sql.execute(
        "INSERT INTO dispatcher.endpoint_status (endpoint_id, health, since, cause, response_code)"
        " VALUES ($1, 'down', now() - interval '3 hours', 'http_error', 500)", endpoint,
    )  # fmt: skip
    job = await served.operations.jobs.create(
        ALL, NewJob.of(kind="resend", filter=JobFilter.of(state="failed"))
    )
    rule = await served.operations.notifications.create(
        ALL, NewNotification.of(name="แจ้งเวร", to_endpoint_id=endpoint)
    )
    token = await served.operations.tokens.page(ALL)
    await served.operations.endpoints.pause(ALL, endpoint)
    await served.operations.endpoints.resume(ALL, endpoint)
    return {
        "webhooks": endpoint, "deliveries": failed, "events": quote("evt_1"), "jobs": job.id,
        "notifications": rule.id, "access": token.items[0].id if token.items else "none",
    }  # fmt: skip


async def test_every_page_in_thai_has_no_english_sentences(
    admin: Client, ids: dict[str, str]
) -> None:
    admin.headers["Accept_Language"] = "th"
    wrong: dict[str, list[str]] = {}
    pages_read = 0
    for address in addresses(ids):
        page = await admin.get(address)
        if page.status == 303:
            continue
        assert '<html lang="th"' in page.text, address
        pages_read += page.status == 200
        words = sorted(set(english_in(page.text[page.text.index("<body") :])))
        if words:
            wrong[address] = words
    assert pages_read > 30
    assert not wrong, "\n".join(f"{one}: {words}" for one, words in wrong.items())


async def test_each_state_of_a_delivery_in_thai_has_no_english_sentences(
    served: Served, admin: Client, story: Story, sql: "asyncpg.Connection[Any]"
) -> None:
    """Also where something is missing: attempts, the body, the endpoint, a usable configuration."""
    admin.headers["Accept_Language"] = "th"
    endpoint = await story.endpoint("ระบบคลัง", profile="wms", content_filter="data.total > 100")
    plain = await story.endpoint("ระบบเดิม", profile="wms")
    gone = await story.endpoint("ระบบเก่า", profile="wms")
    states = ["pending", "retrying", "succeeded", "failed", "cancelled"]
    deliveries = {
        state: await story.delivery(endpoint, f"evt_{state}", state, "wms") for state in states
    }
    deliveries["not allowed"] = await story.delivery(plain, "evt_plain", "retrying", "wms")
    deliveries["no endpoint"] = await story.delivery(gone, "evt_gone", "failed", "wms")
    deliveries["no body"] = await story.delivery(endpoint, "evt_erased", "failed", "wms")
    deliveries["no profile"] = await story.delivery(endpoint, "evt_profile", "failed", "former")
    for each in deliveries.values():
        await sql.execute(
            "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
            " latency_seconds, url, error, reused) SELECT $1, $2, 1, 'scheduled', 'connect_error', now(), 0.1,"
            " 'https://example.com/', 'the receiver cannot be reached: Connection refused', false WHERE $2 <> $3",
            story.now.date(), each, deliveries["pending"],
        )  # fmt: skip
    await sql.execute("DELETE FROM dispatcher.body WHERE event_id = 'evt_erased'")
    await sql.execute(
        "UPDATE dispatcher.endpoint SET url = 'http://example.com/' WHERE id = $1", plain
    )
    await sql.execute("UPDATE dispatcher.endpoint SET created_at = created_at - interval '1 day'")
    await served.operations.endpoints.delete(ALL, gone)
    await story.event("evt_filtered")
    pages_of = [f"/deliveries/{one}" for one in deliveries.values()]
    pages_of += [f"/events/{one}" for one in ("evt_filtered", "evt_failed")]
    pages_of += [f"/webhooks/{plain}", "/webhooks", "/", "/problems", "/deliveries"]
    read = {address: await admin.get(address) for address in pages_of}
    fields = {
        "name": "ใหม่",
        "url": "https://example.com/",
        "event_types": "order.creatd",
        "profile": "wms",
    }
    read["made"] = await admin.submit("/webhooks/new", fields)
    assert {address: page.status for address, page in read.items() if page.status != 200} == {}, (
        read["made"].text
    )
    assert "order.creatd" in read["made"].text
    assert "data.total" in read["/events/evt_filtered"].text
    wrong = {
        address: found
        for address, page in read.items()
        if (found := english_in(page.text[page.text.index("<body") :]))
    }
    assert wrong == {}


def test_an_english_sentence_in_a_thai_page_would_be_noticed() -> None:
    page = '<p title="Save it">บันทึก <code>ok</code> Payload <b lang="en">Hello</b> was saved.</p>'
    assert english_in(page) == ["Save", "it", "was", "saved"]
    assert english_in("<code>no attempt was made</code>") == ["no attempt was made"]
    assert english_in('<p lang="en"><code>no attempt was made</code></p>') == []
    assert english_in("<code>dispatcher event release evt_1</code>") == []
