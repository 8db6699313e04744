"""The documentation in the console: rendered without markup of its own, linked without a broken link."""

import importlib
import re
from html import unescape
from pkgutil import iter_modules

import pytest

from dispatcher.admin.console import manual as help_module
from dispatcher.admin.console import pages
from dispatcher.admin.console.help_links import GUIDES, LINKS, help_address
from dispatcher.admin.console.manual import files, render, slug

pytestmark = pytest.mark.postgres

PACKAGE = "dispatcher.admin.console.pages."
PAGES = [name for name, path in files().items() if path.suffix == ".md"]


def test_help_every_link_leads_to_a_page_and_a_section():
    broken = []
    for name in PAGES:
        for address in re.findall(r'(?:href|src)="([^"]*)"', render(name).body):
            target, _, anchor = unescape(address).partition("#")
            if not address:
                broken.append(f"{name}: an empty address")
            if target.startswith("https://"):
                continue
            page = target.removeprefix("/help/") or name
            if page not in files() or (anchor and anchor not in render(page).anchors):
                broken.append(f"{name}: {address}")
    assert broken == []


def test_help_pages_hold_no_markup_but_the_renderers():
    for name in PAGES:
        body = render(name).body
        assert not re.search(r"<(script|style|iframe|object|form)|\son\w+=|\sstyle=", body), name
        assert "<p>&lt;!--" not in body, name


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[a](javascript:alert(1))",
        "![a](data:text/html,x)",
        "[a](http://example.com)",
        "[a](//evil.example)",
        "[a](../../../etc/passwd)",
        '<img src=x onerror="x">',
    ],
)
def test_help_hostile_markdown_stays_text(tmp_path, monkeypatch, text):
    (tmp_path / "hostile.md").write_text(f"# A\n\n{text}\n")
    monkeypatch.setattr(help_module, "files", lambda: {"hostile": tmp_path / "hostile.md"})
    body = render.__wrapped__("hostile").body
    assert not re.search(r"<(script|img[^>]*onerror)|(href|src)=\"[^\"#]", body)


def test_help_anchors_are_those_of_github():
    assert slug("dispatcher.event_all") == "dispatcherevent_all"
    assert slug("Languages, times, keys") == "languages-times-keys"
    assert slug("Retry now and the schedule") == "retry-now-and-the-schedule"


def test_help_every_page_of_the_console_links_to_a_section():
    """A page without a line in the table, or with a section that was renamed, is found here."""
    for section in LINKS.values():
        page, _, anchor = section.partition("#")
        assert not page or page in files(), section
        assert not anchor or anchor in render(page).anchors, section
    modules = [importlib.import_module(one.name) for one in iter_modules(pages.__path__, PACKAGE)]
    routes = [route for module in modules for route in module.ROUTES if route.method == "GET"]
    unlinked = {route.path for route in routes if help_address(route.path) == "/help"}
    assert unlinked == {"/help", "/help/{name:.+}"}


async def test_help_is_shown_in_both_languages_with_a_notice(served):
    client = await served.as_role("viewer", "acme")
    contents = await client.get("/help")
    assert contents.status == 200
    assert contents.text.count('<dt><a href="/help/') == sum(map(len, GUIDES.values()))
    english = await client.get("/help/reference/operations")
    assert '<h2 id="single-sign-on">' in english.text
    assert "<th></th>" not in english.text
    assert "<thead>\n<tr>\n<td></td>" in (await client.get("/help/how-to/receive-and-verify")).text
    assert "available in English only" not in english.text
    thai = await client.get("/help/reference/operations", Accept_Language="th")
    assert 'lang="en">' in thai.text
    assert "เฉพาะภาษาอังกฤษ" in thai.text
    async with client.session.get(f"{served.base}/help/images/overview.png") as image:
        assert (image.status, image.headers["Content-Type"]) == (200, "image/png")
        assert await image.read() == files()["images/overview.png"].read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/help/none",
        "/help/../pyproject",
        "/help/%2e%2e/README",
        "/help/th/reference/console",
        "/help/a%00",
    ],
)
async def test_help_unknown_page_is_not_found(admin, path):
    assert (await admin.get(path)).status == 404


async def test_help_link_to_the_translation_shows_it_to_an_english_viewer(served, admin):
    del admin
    client = served.client()
    await client.sign_in()
    assert 'href="/help/th/quick-start"' in (await client.get("/help/README")).text
    thai = (await client.get("/help/th/quick-start")).text
    assert '<article class="prose" lang="th">' in thai
    assert "available in English only" not in thai


async def test_help_needs_a_session(served):
    answer = await served.client().get("/help/reference/operations")
    assert (answer.status, answer.headers["Location"]) == (
        303,
        "/sign-in?next=%2Fhelp%2Freference%2Foperations",
    )
