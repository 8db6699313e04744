"""The console's frame in a browser: search, bell, drawer, pane, JSON, and actions whose outcome appears in place."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.console.conftest import Living, Watched
from tests.support.cluster import run_apart
from tests.support.daemon import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.e2e,
    pytest.mark.slow,
]

ENDPOINT = "ep_frame".ljust(29, "a")


@pytest.fixture(scope="module")
def delivery(living: Living) -> str:
    """Returns a delivery that waits after a failure; its endpoint is down."""
    living.receiver.behave(frame={"statuses": [503]})
    living.sql(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
        " VALUES ($1, 'default', 'Frame_Sync', $2, 'wms', '{order.created}', 3)",
        ENDPOINT,
        living.receiver.url("/frame"),
    )
    living.sql(
        "INSERT INTO dispatcher.outbox (type, data) VALUES"
        """ ('order.created', '{"total": 12345678901234567890.10, "items": [{"sku": "A"}]}')"""
    )
    living.sql(
        "INSERT INTO dispatcher.endpoint_status VALUES ($1, 'down', now(), 'http_error', 503)",
        ENDPOINT,
    )

    async def failed() -> bool:
        return living.receiver.count("answer", "/frame") > 0

    run_apart(lambda: until(failed, seconds=20, what="the first attempt"))
    return str(living.sql("SELECT id FROM words.delivery_open")[0]["id"])


def test_search_suggests_by_keyboard_and_bell_lists_problems(
    open_tab: Callable[..., Watched], delivery: str
) -> None:
    tab = open_tab(locale="en-GB").sign_in()
    page, keys = tab.page, tab.page.keyboard
    expect(page.locator("#bell-count")).to_have_text("1")
    expect(page).to_have_title(re.compile("^Home · "))
    page.locator(".bell > summary").click()
    expect(page.locator("#bell-body a")).to_contain_text("Frame_Sync")
    keys.press("Escape")
    expect(page.locator("#bell-body")).to_be_hidden()
    keys.press("Control+k")
    keys.type("frame")
    expect(page.locator("#suggestions a").first).to_contain_text("Frame_Sync")
    expect(page).to_have_title(re.compile("^Home · "))
    keys.press("ArrowDown")
    keys.press("Enter")
    page.wait_for_url(f"**/webhooks/{ENDPOINT}")
    keys.press("/")
    keys.type(delivery)
    keys.press("Enter")
    page.wait_for_url(f"**/deliveries/{delivery}")
    assert tab.complaints == []


def test_an_action_on_a_problem_shows_its_outcome_in_the_card(
    open_tab: Callable[..., Watched], delivery: str
) -> None:
    del delivery
    tab = open_tab(locale="en-GB").sign_in()
    page = tab.page
    card = page.locator(f"#problem-{ENDPOINT}")
    expect(card).to_contain_text("503")
    card.get_by_role("button", name="Send Test Event").click()
    expect(card.locator(".outcome")).to_contain_text("The receiver did not accept it")
    with page.expect_response("**/"):
        page.evaluate("htmx.trigger('#overview > span', 'every')")
    expect(card.locator(".outcome")).to_contain_text("The receiver did not accept it")
    assert page.url == tab.base + "/", "the page was not loaded again"
    assert tab.complaints == []


def test_narrow_screen_has_its_navigation_in_a_drawer_without_scripts(
    open_tab: Callable[..., Watched],
) -> None:
    tab = open_tab(
        locale="en-GB", viewport={"width": 390, "height": 844}, java_script_enabled=False
    ).sign_in()
    page = tab.page
    link = page.get_by_role("link", name="Deliveries", exact=True)
    assert not link.is_visible()
    page.get_by_role("checkbox", name="Menu").press("Space")
    expect(link).to_be_visible()
    link.click()
    page.wait_for_url("**/deliveries")
    assert not page.get_by_role("link", name="Webhooks", exact=True).is_visible()


PAGE = """<table class="rows"><tbody><tr><th scope="row"><a data-pane href="{href}">one</a></th></tr></tbody></table>
<aside id="pane" class="pane" tabindex="-1" aria-label="Details"></aside>"""


def test_pane_opens_a_page_beside_its_list_and_escape_closes_it(
    open_tab: Callable[..., Watched], delivery: str
) -> None:
    tab = open_tab(locale="en-GB").sign_in()
    page, keys = tab.page, tab.page.keyboard
    page.goto(f"{tab.base}/deliveries")
    page.evaluate(
        "html => { document.getElementById('content').innerHTML = `<div class=\"split\">${html}</div>` }",
        PAGE.format(href=f"/deliveries/{delivery}"),
    )
    keys.press("j")
    keys.press("Enter")
    pane = page.locator("#pane")
    expect(pane).to_contain_text("503")
    assert page.url.endswith(f"/deliveries#/deliveries/{delivery}"), "the address can be shared"
    keys.press("Escape")
    expect(pane).to_be_hidden()
    assert page.url == f"{tab.base}/deliveries"
    page.set_viewport_size({"width": 900, "height": 800})
    page.locator("a[data-pane]").click()
    page.wait_for_url(f"**/deliveries/{delivery}")
    assert tab.complaints == []


def test_json_is_folded_and_coloured_with_its_own_digits(
    open_tab: Callable[..., Watched],
) -> None:
    tab = open_tab(locale="en-GB").sign_in()
    page = tab.page
    text = (
        '{"total": 12345678901234567890.10, "a": [1, {"b": "<b>\\u0041</b>"}], "e": {}, "n": null}'
    )
    page.evaluate(
        """text => { const place = document.createElement('div');
        place.innerHTML = '<div data-json="raw-text"><p><button data-raw="raw-text" hidden>Raw</button></p>'
            + '<pre id="raw-text"></pre></div>';
        document.getElementById('content').append(place);
        document.getElementById('raw-text').textContent = text;
        document.dispatchEvent(new CustomEvent('htmx:after:swap')); }""",
        text,
    )
    tree = page.locator(".json-tree")
    expect(tree.locator(".json-number").first).to_have_text("12345678901234567890.10")
    expect(tree.locator(".json-string")).to_have_text('"<b>\\u0041</b>"')
    assert tree.locator("b").count() == 0
    expect(page.locator("#raw-text")).to_be_hidden()
    page.locator("[data-raw]").click()
    expect(page.locator("#raw-text")).to_have_text(text)
    expect(tree).to_be_hidden()
    assert tab.complaints == []
