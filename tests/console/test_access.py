"""axe finds no violation of WCAG 2.2 AA on any page: both themes and languages, a wide screen and a narrow one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.console.conftest import Living, Watched
from tests.support.cluster import run_apart
from tests.support.daemon import until

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.e2e,
    pytest.mark.slow,
]

AXE = (Path(__file__).parent / "vendor" / "axe-4.14.1.min.js").read_text(encoding="utf-8")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
STATIC_PAGES = (
    "/", "/?range=7d", "/problems", "/search?q=order", "/webhooks", "/webhooks/new", "/deliveries",
    "/deliveries?state=failed", "/events", "/event-types", "/event-types/order.created",
    "/activity", "/notifications", "/notifications/new", "/access",
    "/access/sessions", "/access/people", "/access/portal", "/system", "/system/settings", "/help",
    "/help/reference/console", "/help/how-to/receive-and-verify",
    "/preferences", "/deliveries/wh_none", "/jobs",
    "/jobs/new?event_type=order.created&kind=replay", "/schedule",
    "/schedule/postpone?event_type=order.created",
)  # fmt: skip


@pytest.fixture(scope="module")
def pages(living: Living) -> list[str]:
    """Fills the console with what each of its pages can show, and returns their paths."""
    living.receiver.behave(good={}, bad={"statuses": [500]})
    for name in ("good", "bad"):
        living.sql(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
            " VALUES ($1, 'default', $2, $3, 'wms', '{*}', 3)",
            f"ep_{name}".ljust(29, "a"),
            name,
            living.receiver.url(f"/{name}"),
        )
    # A problem that is open from the first page on: the marks of one must not depend on when a receiver failed.
    living.sql(
        "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard, state, reason)"
        " VALUES ($1, 'default', 'off', $2, 'wms', '{*}', 3, 'disabled', 'gone')",
        "ep_off".ljust(29, "a"),
        living.receiver.url("/off"),
    )
    living.sql(
        "INSERT INTO dispatcher.outbox (type, data, labels)"
        """ VALUES ('order.created', '{"a": [1, 2]}', '{"order_id": "1"}')"""
    )

    async def settled() -> bool:
        return living.receiver.count("answer", "/bad") > 0

    run_apart(lambda: until(settled, seconds=20, what="the first attempts"))
    found = living.sql("SELECT id, event_id, state FROM dispatcher.delivery ORDER BY state")
    endpoint = f"/webhooks/{'ep_bad'.ljust(29, 'a')}"
    return [
        *STATIC_PAGES,
        *(endpoint + part for part in
          ("", "/deliveries", "/test", "/settings", "/secret", "/pause", "/delete", "/recover?hours=24")),
        *(f"/deliveries/{row['id']}" for row in found),
        f"/deliveries/{found[0]['id']}/signature",
        f"/events/{found[0]['event_id']}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {"locale": "en-GB"},
        {"locale": "th-TH", "color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
    ],
    ids=["english-light-wide", "thai-dark-narrow"],
)
def test_no_page_keeps_anybody_out(
    pages: list[str], open_tab: Callable[..., Watched], options: dict[str, object], long_run: bool
) -> None:
    tab = open_tab(**options)
    tab.open("/sign-in")
    found = {"/sign-in": violations(tab)}
    tab.sign_in()
    part = (
        slice(None)
        if long_run
        else slice(1, None, 2)
        if "viewport" in options
        else slice(0, None, 2)
    )
    for path in pages[part]:
        tab.open(path)
        tab.page.evaluate(
            "for (const one of document.querySelectorAll('details:not(.menu)')) one.open = true"
        )
        found[path] = violations(tab)
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    assert {path: one for path, one in found.items() if one} == {}
    assert tab.complaints == []


def violations(tab: Watched) -> list[str]:
    # A page's policy forbids foreign scripts; the browser's own tools may bring one all the same.
    tab.page.evaluate(AXE)
    result = tab.page.evaluate("rules => axe.run(document, rules)", RULES)
    assert result["passes"], "axe did nothing"
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:3]]}"
        for one in result["violations"]
    ]


def test_axe_finds_what_is_wrong(open_tab: Callable[..., Watched]) -> None:
    tab = open_tab()
    tab.open("/sign-in")
    tab.page.evaluate("document.querySelector('label').remove()")
    assert any(one.startswith("label") for one in violations(tab))
