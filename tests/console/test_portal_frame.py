"""The portal in a real browser: in a frame of another site and in a tab, with a real receiver behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Frame, Route, expect, sync_playwright

from tests.console.conftest import ADMIN_TOKEN, Living, Watched
from tests.console.embedding import Application, application, create_link
from tests.console.test_story import again_until
from tests.support.cluster import run_apart
from tests.support.daemon import Daemon, Receiver, until
from tests.support.tools import need

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that keeps no cookie of another site unless it is partitioned."""
    chromium = need("chromium", package="chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--test-third-party-cookie-phaseout"],
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def embedding(browser: Browser) -> Iterator[Application]:
    del browser
    with application() as found:
        yield found


class Portal(Living):
    """A daemon whose portal one application may embed."""

    def __init__(self, url: str, folder: Path, origin: str) -> None:
        self.url = url
        self.receiver = Receiver(folder)
        self.daemon = Daemon(
            url,
            folder,
            environ={
                "DISPATCHER_ADMIN_TOKEN": ADMIN_TOKEN,
                "DISPATCHER_PORTAL__FRAME_ANCESTORS": f'["{origin}"]',
            },
        )
        run_apart(self.daemon.started)
        self.base = f"http://127.0.0.1:{self.daemon.port}"


@pytest.fixture(scope="module")
def living(
    embedding: Application, own_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Living]:
    made = Portal(own_database, tmp_path_factory.mktemp("portal"), embedding.origin)
    yield made
    made.stop()


def open_framed(tab: Watched, embedding: Application, link: str) -> Frame:
    """Open the application's page, and return the frame once it shows the portal."""
    tab.page.goto(embedding.page(link))
    frame = tab.page.frames[-1]
    frame.wait_for_url("**/portal/webhooks")
    return frame


def test_portal_in_a_frame_creates_tests_and_shows_a_delivery(
    living: Living, embedding: Application, open_tab: Callable[..., Watched]
) -> None:
    living.receiver.behave(portal={})
    link = create_link(
        living.base,
        tenant="acme",
        name="Acme <b>&",
        color="#ffcc00",
        frame_ancestors=[embedding.origin],
    )
    tab = open_tab()
    frame = open_framed(tab, embedding, link["url"])
    expect(frame.locator(".side .brand")).to_have_text("Acme <b>&")
    frame.get_by_role("link", name="+ New Webhook").first.click()
    frame.fill("#f-name", "Acme ERP")
    frame.fill("#f-url", living.receiver.url("/portal"))
    frame.get_by_label("order.created").check()
    frame.get_by_role("button", name="Save and send test event").click()
    expect(frame.locator("#result")).to_contain_text("200")
    frame.get_by_role("link", name="Open the Webhook").click()
    living.sql(
        "INSERT INTO dispatcher.outbox (tenant, type, data, labels)"
        """ VALUES ('acme', 'order.created', '{"order_id": "A-1"}', '{"order_id": "A-1"}')"""
    )

    async def received() -> bool:
        return living.receiver.count("answer", "/portal") >= 2

    run_apart(lambda: until(received, seconds=20, what="the test event and the event"))
    frame.get_by_role("link", name="Deliveries", exact=True).first.click()
    frame.wait_for_url("**/portal/deliveries")
    row = frame.get_by_role("link", name="A-1")
    again_until(lambda: frame.goto(f"{living.base}/portal/deliveries"), row.is_visible)
    row.click()
    frame.get_by_role("button", name="Resend").click()
    frame.locator("#ask-yes").click()
    expect(frame.locator("#delivery .timeline > li")).to_have_count(2)
    tenants = {row["tenant"] for row in living.sql("SELECT tenant FROM dispatcher.endpoint")}
    assert tenants == {"acme"}
    assert sorted(set(tab.complaints)) == []


def test_portal_in_a_frame_of_a_foreign_page_is_not_shown(
    living: Living, embedding: Application, open_tab: Callable[..., Watched]
) -> None:
    """Neither a page that the settings do not allow, nor an allowed one that the link does not name, shows it."""
    framed = create_link(living.base, tenant="acme", frame_ancestors=[embedding.origin])
    own = create_link(living.base, tenant="acme")
    with application() as foreign:
        for page, link in ((foreign, framed), (embedding, own)):
            tab = open_tab()
            tab.page.goto(page.page(link["url"]))
            tab.page.wait_for_load_state("networkidle")
            assert any("frame-ancestors" in one for one in tab.complaints)
            assert tab.page.frames[-1].locator("button").count() == 0
    links = living.sql(
        "SELECT used_at FROM dispatcher.portal_link WHERE id = ANY($1)", [framed["id"], own["id"]]
    )
    assert [row["used_at"] for row in links] == [None, None], "no page of a foreign site uses it up"


def test_control_cookie_that_is_not_partitioned_is_not_kept(
    living: Living, embedding: Application, open_tab: Callable[..., Watched]
) -> None:
    """The browser of these tests does block cookies of other sites: without `Partitioned` the frame has no session."""
    link = create_link(living.base, tenant="acme", frame_ancestors=[embedding.origin])
    tab = open_tab()

    def without_partitioned(route: Route) -> None:
        answer = route.fetch(max_redirects=0)
        headers = {
            name: value.replace("; Partitioned", "") for name, value in answer.headers.items()
        }
        route.fulfill(status=answer.status, headers=headers, body=answer.body())

    tab.page.route("**/portal/link/**", without_partitioned)
    tab.page.goto(embedding.page(link["url"]))
    frame = tab.page.frames[-1]
    expect(
        frame.get_by_role("heading", name="The browser did not keep the session")
    ).to_be_visible()


IMAGE = Path(__file__).parents[2] / "docs" / "images" / "portal.png"


def test_portal_picture_of_the_documentation_is_made_again(
    long_run: bool,
    living: Living,
    embedding: Application,
    open_tab: Callable[..., Watched],
) -> None:
    """Take the picture of docs/how-to/embed-the-portal.md, in the long run."""
    if not long_run:
        pytest.skip("made by ./run test --long: `tests/console/test_portal_frame.py`")
    living.receiver.behave(erp={}, crm={"statuses": [503]})
    for name, path, types in (
        ("ERP_Order_Sync", "erp", ["order.*", "shipment.*"]),
        ("CRM", "crm", ["order.shipped"]),
    ):
        living.sql(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
            " VALUES ($1, 'northwind', $2, $3, 'wms', $4, 3)",
            f"ep_{path}".ljust(29, "b"),
            name,
            living.receiver.url(f"/{path}"),
            types,
        )
    for number in range(12):
        living.sql(
            "INSERT INTO dispatcher.outbox (tenant, type, data) VALUES ('northwind', $1, '{}')",
            "order.shipped" if number % 4 == 3 else "order.created",
        )

    async def settled() -> bool:
        counts = [living.receiver.count("answer", path) for path in ("/erp", "/crm")]
        return counts[0] >= 12 and counts[1] >= 3

    run_apart(lambda: until(settled, seconds=20, what="the attempts"))
    link = create_link(
        living.base,
        tenant="northwind",
        name="Northwind",
        color="#0f7b6c",
        frame_ancestors=[embedding.origin],
    )
    tab = open_tab(viewport={"width": 1280, "height": 640}, locale="en-GB")
    frame = open_framed(tab, embedding, link["url"])
    expect(frame.locator("table.rows tbody tr")).to_have_count(2)
    tab.page.screenshot(path=IMAGE)
    assert IMAGE.stat().st_size < 150_000
