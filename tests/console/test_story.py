"""The sources' whole story in a browser, against a daemon: create, test, insert, watch, break, mend, resend."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable

import orjson
import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import Living, Watched

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.e2e,
    pytest.mark.slow,
]

WAIT_SECONDS = 30.0
INSERT = (
    "INSERT INTO dispatcher.outbox (type, data, labels)"
    " VALUES ('order.created', $1::text::json, $2::text::jsonb) RETURNING id"
)
WORDS = {
    "en": {
        "new": "+ New Webhook", "name": "Name", "url": "Target URL", "save": "Save",
        "made": "is saved", "open": "Open the Webhook", "test": "Send Test Event", "worked": "The receiver accepted it",
        "succeeded": "Succeeded", "retrying": "Retrying",
        "resend": "Send now", "live": "Live", "refused": "Rejected 500",
        "advice": "Its own log shows the cause",
    },
    "th": {
        "new": "+ สร้าง Webhook", "name": "ชื่อ", "url": "Target URL", "save": "บันทึก",
        "made": "บันทึก", "open": "เปิด Webhook", "test": "ส่งอีเวนต์ทดสอบ", "worked": "ปลายทางรับสำเร็จ",
        "succeeded": "สำเร็จ", "retrying": "รอลองใหม่",
        "resend": "ส่งทันที", "live": "ดูสด", "refused": "ปฏิเสธ 500",
        "advice": "ดูบันทึกของปลายทาง",
    },
}  # fmt: skip


def insert(living: Living, number: int) -> str:
    data = f'{{"order_id": "ORD-{number}"}}'
    return str(living.sql(INSERT, data, f'{{"order_id": "ORD-{number}"}}')[0][0])


@pytest.mark.parametrize(
    ("language", "locale", "options"),
    [("en", "en-GB", {}), ("th", "th-TH", {"color_scheme": "dark"})],
    ids=["english-light", "thai-dark"],
)
def test_the_whole_story(
    living: Living,
    open_tab: Callable[..., Watched],
    language: str,
    locale: str,
    options: dict[str, str],
) -> None:
    said, path = WORDS[language], f"story-{language}"
    living.receiver.behave(**{path: {}})
    tab = open_tab(locale=locale, **options).sign_in()
    page = tab.page
    assert page.get_attribute("html", "lang") == language

    # Create one by hand, and send a test event to it.
    page.goto(tab.base + "/webhooks")
    page.get_by_role("link", name=said["new"]).first.click()
    page.get_by_label(said["name"], exact=False).first.fill(f"ERP_{language}")
    page.get_by_label(said["url"]).fill(living.receiver.url(f"/{path}"))
    page.get_by_label("order.created").check()
    page.get_by_role("button", name=said["save"], exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(said["made"])
    assert page.locator("#made-secret").input_value().startswith("whsec_")
    page.get_by_role("button", name=said["test"]).click()
    expect(page.locator("#tested #result")).to_contain_text(said["worked"])
    page.get_by_role("link", name=said["open"]).click()

    # Watch an order arrive that was inserted by SQL.
    page.locator(".tabs a[href$='/deliveries']").click()
    page.get_by_role("button", name=said["live"]).click()
    expect(page.locator("#tail-note")).not_to_be_empty()
    insert(living, 1)
    row = page.locator("#delivery-rows tr", has_text="ORD-1")
    expect(row).to_contain_text(said["succeeded"])
    expect(row).to_contain_text("200")

    # Break the receiver: see the retry and its time.
    living.receiver.behave(**{path: {"statuses": [500]}})
    insert(living, 2)
    row = page.locator("#delivery-rows tr", has_text="ORD-2")
    expect(row).to_contain_text(said["retrying"])
    row.locator("a").first.click()
    expect(page.locator("#delivery")).to_contain_text(said["refused"])
    expect(page.locator("#delivery")).to_contain_text(said["advice"])
    assert re.search(
        r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", page.locator("#delivery .summary").inner_text()
    )
    due_at = page.locator("#delivery .summary time").get_attribute("datetime")
    made_at = page.locator(".timeline time").first.get_attribute("datetime")
    assert due_at is not None
    assert made_at is not None
    assert due_at > made_at

    # Mend it, send it now, see it succeed without a reload.
    living.receiver.behave(**{path: {"statuses": [200]}})
    page.get_by_role("button", name=said["resend"]).click()
    page.locator("#ask-yes").click()
    expect(page.locator("#delivery h1")).to_contain_text(said["succeeded"], timeout=15_000)
    assert page.locator(".timeline > li").count() == 2
    assert tab.complaints == []


def test_new_webhook_form_follows_the_page_of_the_wms_word_for_word(
    living: Living, open_tab: Callable[..., Watched]
) -> None:
    """Admin → Webhooks → + New Webhook: Name, Target URL, Events, Secret, Headers, Save; nothing else."""
    secret = "the-secret-that-we-agreed-on"  # noqa: S105 -- of the test
    living.receiver.behave(wms={"keep_request": True})
    tab = open_tab(locale="en-GB").sign_in()
    page = tab.page
    page.get_by_role("link", name="Webhooks").first.click()
    page.get_by_role("link", name="+ New Webhook").first.click()
    legends = page.locator("main form label:visible, main form legend:visible").all_inner_texts()
    asked = [text.split("\n")[0].removesuffix(" (required)").strip() for text in legends]
    first = [
        text for text in asked if text in {"Name", "Target URL", "Events", "Secret", "Headers"}
    ]
    assert first == ["Name", "Target URL", "Events", "Secret", "Headers"]
    assert page.get_by_role("radio").count() == 0, "everything else is folded"

    page.get_by_label("Name", exact=False).first.fill("ERP_Order_Sync")
    page.get_by_label("Target URL").fill(living.receiver.url("/wms"))
    for event_type in ("order.created", "inventory.low_stock", "grn.confirmed"):
        page.get_by_label(event_type).check()
    page.get_by_label("order.shipped").check()
    page.get_by_label("Secret", exact=True).fill(secret)
    page.get_by_label("Headers", exact=True).fill("X-Api-Key: k-123")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("is saved")
    assert page.locator("#made-secret").input_value() == secret

    living.sql(
        "INSERT INTO dispatcher.outbox (type, data) VALUES ('order.shipped', $1::text::json)",
        '{"order_id": "ORD-2026-1234", "customer": "ลูกค้า"}',
    )
    deliveries = page.get_by_role("link", name="Deliveries", exact=True).first
    again_until(deliveries.click, lambda: living.receiver.count("request", "/wms") > 0)
    (request,) = living.receiver.entries("request", "/wms")
    body = base64.b64decode(request["body"])
    # The rule of the page: hmac('sha256', secret).update(body).digest('hex').
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert request["headers"]["x-wms-signature"] == f"sha256={expected}"
    assert request["headers"]["x-api-key"] == "k-123"
    assert list(orjson.loads(body)) == ["id", "type", "timestamp", "data"]
    assert tab.complaints == []


def test_live_page_stays_in_an_outage_and_leaves_with_the_session(
    living: Living, open_tab: Callable[..., Watched]
) -> None:
    tab = open_tab(locale="en-GB").sign_in()
    page = tab.page
    page.route("**/", lambda route: route.fulfill(status=503, body="away"))
    page.evaluate("htmx.trigger('#overview > span', 'every')")
    with page.expect_response("**/"):
        page.evaluate("htmx.trigger('#overview > span', 'every')")
    expect(page.locator("#overview h1")).to_have_text("Home")
    page.unroute("**/")
    living.sql("DELETE FROM dispatcher.session")
    page.evaluate("htmx.trigger('#overview > span', 'every')")
    page.wait_for_url("**/sign-in?next=*")


def again_until(act: Callable[[], object], condition: Callable[[], bool]) -> None:
    """Does what a person without scripts does: loads the page again until it shows what is waited for."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        act()


def make_endpoint(page: Page, living: Living, name: str) -> None:
    page.goto(f"{page.url.split('/', 3)[0]}//{page.url.split('/', 3)[2]}/webhooks/new")
    page.get_by_label("Name", exact=False).first.fill(name)
    page.get_by_label("Target URL").fill(living.receiver.url(f"/{name}"))
    page.get_by_label("stock.changed").check()
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_role("link", name="Open the Webhook").click()
    page.wait_for_url("**/webhooks/ep_*")


def test_the_story_with_the_keyboard_alone(
    living: Living, open_tab: Callable[..., Watched]
) -> None:
    living.receiver.behave(keyboard={})
    tab = open_tab(locale="en-GB").sign_in()
    page, keys = tab.page, tab.page.keyboard
    make_endpoint(page, living, "keyboard")
    keys.press("t")
    page.wait_for_url("**/test")
    keys.press("t")
    expect(page.locator("#result")).to_contain_text("The receiver accepted it")
    assert page.evaluate("document.activeElement.id") == "result"

    keys.press("g")
    keys.press("d")
    page.wait_for_url("**/deliveries")
    keys.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    keys.press("Escape")
    keys.press("j")
    keys.press("j")
    keys.press("k")
    assert page.locator("tr.at").count() == 1
    keys.press("Enter")
    page.wait_for_url("**/deliveries/wh_*")
    keys.press("?")
    expect(page.locator("#keys")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    keys.press("g")
    keys.press("w")
    page.wait_for_url("**/webhooks")

    living.receiver.behave(keyboard={"statuses": [500]})
    event_id = str(
        living.sql(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ('stock.changed', '{}') RETURNING id"
        )[0][0]
    )
    page.goto(f"{tab.base}/deliveries?q={event_id}&state=retrying")
    again_until(page.reload, lambda: page.locator("#delivery-rows tr").count() > 0)
    keys.press("j")
    keys.press("Enter")
    page.wait_for_url("**/deliveries/wh_*")
    living.receiver.behave(keyboard={"statuses": [200]})
    keys.press("r")
    keys.press("Tab")
    keys.press("Enter")
    expect(page.locator("#delivery h1")).to_contain_text("Succeeded")
    assert tab.complaints == []


def test_the_story_with_scripts_off(living: Living, open_tab: Callable[..., Watched]) -> None:
    living.receiver.behave(plain={"statuses": [500, 200]})
    tab = open_tab(locale="en-GB", java_script_enabled=False).sign_in()
    page = tab.page
    make_endpoint(page, living, "plain")
    assert page.locator("[data-tail]").count() == 0
    event_id = str(
        living.sql(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ('stock.changed', '{}') RETURNING id"
        )[0][0]
    )
    page.get_by_role("link", name="Deliveries").last.click()
    assert page.locator("[data-tail]").is_hidden()
    expect(page.get_by_text("Your browser did not report its time zone")).to_be_visible()
    page.locator("summary", has_text="State").click()
    page.get_by_label("Retrying").check()
    page.get_by_role("button", name="Filter").click()
    assert "state=retrying" in page.url
    row = page.locator("#delivery-rows tr", has_text=event_id)
    again_until(page.get_by_role("link", name="Refresh").click, lambda: row.count() > 0)
    page.locator("#delivery-rows tr", has_text=event_id).locator("a").first.click()
    page.get_by_role("button", name="Send now").click()
    expect(page.locator(".notice.good")).to_contain_text("One more attempt is requested")
    heading = page.locator("#delivery h1")
    again_until(page.reload, lambda: "Succeeded" in heading.inner_text())
    page.get_by_role("button", name="Resend").click()
    expect(page.locator(".notice.good")).to_contain_text("One more attempt is requested")
