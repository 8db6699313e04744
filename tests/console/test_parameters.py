"""Every page, every parameter that a page reads, every hostile value: a page of the console, never a 500."""

import asyncio
import contextlib
import re
from importlib import resources
from pathlib import Path
from typing import Final

import aiohttp
import pytest
from yarl import URL

from dispatcher.admin.console import app as console_app
from dispatcher.admin.console import filters
from dispatcher.admin.console.pages import (
    access,
    activity,
    deliveries,
    endpoint_forms,
    endpoints,
    events,
    jobs,
    notifications,
    overview,
    schedule,
    secrets,
    session,
    system,
    test_events,
)
from dispatcher.admin.console.pages.events import readable
from dispatcher.admin.resources import fields
from tests.console.conftest import Client

pytestmark = pytest.mark.postgres

MODULES: Final = (
    access,
    activity,
    deliveries,
    endpoint_forms,
    endpoints,
    events,
    jobs,
    notifications,
    overview,
    schedule,
    secrets,
    session,
    system,
    test_events,
)
HOSTILE: Final = {
    "NUL": "%00",
    "NUL inside": "a%00b",
    "half a surrogate pair": "%ED%A0%80",
    "no UTF-8": "%FF%FE",
    "bidi": "%E2%80%AEgnp.exe",
    "escape": "%1B%5B31m",
    "nested": "[" * 1000,
    "a nested object": "%7B%22a%22:" * 200,
    "digits": "9" * 400,
    "negative": "-1",
    "the last time": "9999-12-31T23:59:59.999999%2B00:00",
    "beyond the last time": "9999-12-31T23:59:59.999999-14:00",
    "the first time": "0001-01-01T00:00",
    "a label without end": "a%3D" + "b" * 3000,
    "as long as a line may be": "a" * 7000,
}
BYTES_MAX: Final = 1_000_000


def read_by(*files: Path) -> set[str]:
    """Return the names of the parameters that these files read."""
    found: set[str] = set()
    for path in files:
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"query(?:\.get)?\(\"(\w+)\"\)", text))
        found |= set(re.findall(r"read_time\(context, \"(\w+)\"", text))
        found |= set(filters.DELIVERY_FIELDS) if "delivery_filter" in text else set()
        found |= set(filters.EVENT_FIELDS) if "event_filter" in text else set()
        found |= set(endpoints.ENDPOINT_FIELDS) if "ENDPOINT_FIELDS" in text else set()
    return found


def parameters() -> set[str]:
    """Return every parameter that the console's code reads, and two that it does not."""
    folder = resources.files("dispatcher.admin.console")
    assert isinstance(folder, Path)
    return read_by(*folder.rglob("*.py"), *folder.rglob("*.html")) | {"unknown", "name%00"}


PAGES: Final = {
    route.path: read_by(Path(str(module.__file__))) | {"cursor", "unknown"}
    for module in MODULES
    for route in module.ROUTES
    if route.method == "GET"
}
"""Each page with the parameters that its module reads."""


@pytest.fixture
async def paths(story, admin: Client) -> dict[str, str]:
    """Every page with ids of things that there are."""
    endpoint = await story.endpoint()
    await story.event("evt_x")
    delivery = await story.delivery(endpoint, "evt_x", "failed")
    token = await admin.get("/access")
    assert token.status == 200
    found = {}
    for page in PAGES:
        thing = (
            delivery if "deliver" in page.split("/")[1]
            else "evt_x" if page.startswith("/events")
            else endpoint
        )  # fmt: skip
        found[page] = re.sub(r"\{\w+\}", thing, page)
    return found


async def status_of(admin: Client, path: str) -> int:
    url = URL(admin.base + path, encoded=True)
    async with admin.session.get(url, headers={"Accept": "text/html"}, allow_redirects=False) as it:
        await it.read()
        return it.status


def test_the_parameters_of_the_pages_are_found():
    assert {"by", "action", "subject", "profile", "cursor", "q", "since", "next"} <= set(
        parameters()
    )
    assert len(PAGES) >= 20
    assert set().union(*PAGES.values()) <= parameters() | {"cursor"}


def pages_for(parameter: str, turn: int) -> list[str]:
    """Return a sixth of the pages that read the parameter, at least one of them."""
    readers = [page for page, read in PAGES.items() if parameter in read]
    step = min(6, len(readers))
    return readers[turn % step :: step]


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_parameter_of_a_page_is_a_500(admin, paths, name, long_run):
    """Each parameter on a sixth of the pages that read it, which differ by value; in the long form, on each page."""
    places = asyncio.Semaphore(8)
    answered: list[tuple[int, str, str]] = []

    async def ask(path: str, parameter: str) -> None:
        async with places:
            status = await status_of(admin, f"{path}?{parameter}={HOSTILE[name]}")
            answered.append((status, path, parameter))

    async with asyncio.TaskGroup() as asking:
        for page, path in paths.items():
            for parameter in parameters() if long_run else PAGES[page]:
                if long_run or page in pages_for(parameter, [*HOSTILE].index(name)):
                    asking.create_task(ask(path, parameter))
    assert [one for one in answered if one[0] >= 500] == []
    assert {status for status, _, _ in answered} <= {200, 303, 400, 404, 409, 413, 414, 422, 429}


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_part_of_a_path_is_a_500(admin, name):
    for page in PAGES:
        path = re.sub(r"\{\w+\}", HOSTILE[name].replace("/", "%2F"), page)
        assert await status_of(admin, path) < 500, path


async def test_an_address_of_a_megabyte_is_refused(admin):
    with contextlib.suppress(aiohttp.ClientError):  # closed before all of it was sent
        assert await status_of(admin, "/webhooks?q=" + "a" * BYTES_MAX) == 400


@pytest.mark.parametrize("depth", [64, 253, 254, 255, 300, 1000, 1024, 1100, 5000])
async def test_data_of_any_depth_is_shown(admin, story, sql, depth):
    await story.event("evt_deep")
    data = '{"a":' + "[" * depth + "]" * depth + "}"
    await sql.execute("UPDATE dispatcher.event SET data = $1::text::json", data)
    page = await admin.get("/events/evt_deep")
    assert page.status == 200
    assert "[" * min(depth, 3) in re.sub(r"\s", "", page.text)
    assert (await admin.get("/events")).status == 200


def test_deep_data_is_shown_as_it_was_written():
    deep = '{"a":' + "[" * 300 + "]" * 300 + "}"
    assert readable(deep) == deep
    assert readable('{"a":[1]}') == '{\n  "a": [\n    1\n  ]\n}'


STEERING: Final = "gnp\u202eexe\x1b[31m\u2066"


async def test_what_a_receiver_sent_cannot_steer_the_page(admin, story, sql):
    endpoint = await story.endpoint()
    await story.event("evt_x", labels='{"k": "\u202egnp"}')
    delivery = await story.delivery(endpoint, "evt_x", "failed")
    await sql.execute(
        "INSERT INTO words.attempt (day, delivery_id, attempt_number, trigger, outcome, attempted_at,"
        " latency_seconds, reused, url, response_code, response_body, error)"
        " SELECT day, id, 1, 'scheduled', 'http_error', now(), 0.1, false, 'https://example.com', 500, $2, $3"
        " FROM dispatcher.delivery WHERE id = $1",
        delivery,
        STEERING.encode(),
        STEERING,
    )  # fmt: skip -- the statement's order
    for path in (
        f"/deliveries/{delivery}",
        "/deliveries",
        "/events/evt_x",
        f"/webhooks/{endpoint}",
    ):
        page = await admin.get(path)
        assert page.status == 200
        assert not set("\u202e\x1b\u2066") & set(page.text), path
    assert "gnp\\u202eexe\\x1b[31m" in (await admin.get(f"/deliveries/{delivery}")).text


async def test_a_form_gives_back_what_was_typed(admin, story):
    """Escaping is for showing: a field of a form holds the value itself, or saving it would change it."""
    endpoint = await story.endpoint(headers={"X-A": "a\\x1b"})
    page = await admin.get(f"/webhooks/{endpoint}/settings")
    assert "a\\x1b" in page.text
    typed = await admin.get("/webhooks?q=%E2%80%AEx")
    assert 'value="\u202ex"' in typed.text


async def test_d2_control_a_nul_that_reaches_postgres_is_a_500(admin, monkeypatch):
    monkeypatch.setattr(console_app, "_query_problems", lambda _: [])
    monkeypatch.setattr(fields, "is_text", lambda _: True)
    assert await status_of(admin, "/activity?action=%00") == 500


async def test_d1_control_a_template_that_shows_text_raw_shows_what_steers(
    admin, story, monkeypatch
):
    monkeypatch.setattr(console_app, "escape_lines", lambda text: text)
    await story.event("evt_x", labels='{"k": "\u202egnp"}')
    assert "\u202e" in (await admin.get("/events/evt_x")).text
