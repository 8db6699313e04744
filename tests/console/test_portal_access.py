"""axe finds no violation of WCAG 2.2 AA on any page of the portal: both themes and languages, wide and narrow."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.console.conftest import Living, Watched
from tests.console.embedding import create_link
from tests.console.test_access import violations
from tests.support.cluster import run_apart
from tests.support.daemon import until

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

ENGLISH = {"locale": "en-GB", "color_scheme": "light"}
THAI = {"locale": "th-TH", "color_scheme": "dark"}
WIDE = {"viewport": {"width": 1280, "height": 900}}
NARROW = {"viewport": {"width": 390, "height": 844}}
STATIC_PAGES = (
    "/webhooks", "/webhooks/new", "/deliveries", "/deliveries?state=failed", "/events", "/event-types",
    "/event-types/order.created", "/preferences", "/help", "/help/how-to/receive-and-verify",
    "/help/reference/event-types", "/help/explanation/delivery", "/deliveries/wh_none",
)  # fmt: skip
"""The portal's pages without an id; the last one is not there."""
OF_WEBHOOK = ("", "/deliveries", "/test", "/settings", "/secret", "/pause", "/delete")


@pytest.fixture(scope="module")
def pages(living: Living) -> list[str]:
    """Fill the portal of a tenant, and return the paths of its pages."""
    living.receiver.behave(good={}, bad={"statuses": [500]})
    for name, delivery in (("good", "push"), ("bad", "push"), ("behind", "pull")):
        living.sql(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard, delivery)"
            " VALUES ($1, 'acme', $2, $3, 'wms', '{*}', 3, $4)",
            f"ep_{name}".ljust(29, "a"),
            name,
            living.receiver.url(f"/{name}"),
            delivery,
        )
    living.sql(
        "INSERT INTO dispatcher.outbox (tenant, type, data, labels)"
        """ VALUES ('acme', 'order.created', '{"a": [1, 2]}', '{"order_id": "1"}')"""
    )

    async def settled() -> bool:
        return all(living.receiver.count("answer", path) for path in ("/good", "/bad"))

    run_apart(lambda: until(settled, seconds=20, what="the first attempts"))
    found = living.sql("SELECT id, event_id FROM dispatcher.delivery ORDER BY id")
    webhooks = [f"/webhooks/{f'ep_{name}'.ljust(29, 'a')}" for name in ("bad", "behind")]
    return [
        *STATIC_PAGES,
        *(webhook + part for webhook in webhooks for part in OF_WEBHOOK),
        *(f"/deliveries/{row['id']}" for row in found),
        f"/deliveries/{found[0]['id']}/signature",
        f"/events/{found[0]['event_id']}",
    ]


def link_of(living: Living, **fields: Any) -> str:
    fields = {"tenant": "acme", "name": "Acme", "color": "#ffcc00", **fields}
    return str(create_link(living.base, **fields)["url"]).removeprefix(living.base)


@pytest.mark.parametrize(
    ("options", "first"),
    [(ENGLISH | WIDE, 0), (ENGLISH | NARROW, 1), (THAI | WIDE, 2), (THAI | NARROW, 3)],
    ids=["english-light-wide", "english-light-narrow", "thai-dark-wide", "thai-dark-narrow"],
)
def test_no_page_of_the_portal_keeps_anybody_out(
    pages: list[str],
    living: Living,
    open_tab: Callable[..., Watched],
    options: dict[str, Any],
    first: int,
    long_run: bool,
) -> None:
    tab = open_tab(**options)
    found: dict[str, list[str]] = {}

    def look(name: str) -> None:
        tab.page.evaluate(
            "for (const one of document.querySelectorAll('details:not(.menu)')) one.open = true"
        )
        found[name] = violations(tab)
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name

    tab.open("/portal")
    look("without a session")
    tab.open("/portal/link/" + "A" * 43)
    look("a link that is unknown")
    tab.open(link_of(living))
    look("a link")
    tab.page.locator("main button").click()
    tab.page.wait_for_url("**/portal/webhooks")
    expect(tab.page.locator("#webhooks tbody tr")).to_have_count(3)
    # A fourth of the pages each, so that together every page is visited; in the long run each visits all.
    for path in pages if long_run else pages[first::4]:
        tab.open(f"/portal{path}")
        look(path)
    assert {path: one for path, one in found.items() if one} == {}
    assert tab.complaints == []
