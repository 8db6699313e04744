"""The pictures of the documentation: made by a browser in the long run, and held to the pages in every run."""

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from dispatcher.core import histogram
from dispatcher.core.sealing import Keyring
from tests.console.conftest import Living, Watched
from tests.support.cluster import run_apart
from tests.support.daemon import KEY, WMS_SECRET, until

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "console.md"
IMAGES = PAGE.parents[1] / "images"
BYTES_MAX = 150_000
EVENTS_COUNT = 14


def test_the_pages_show_every_picture_that_there_is_and_no_other():
    shown = {
        name
        for page in PAGE.parents[1].rglob("*.md")
        for name in re.findall(
            r"\((?:\.\./)+images/([a-z0-9-]+\.png)\)", page.read_text(encoding="utf-8")
        )
    }
    assert shown == {path.name for path in IMAGES.glob("*.png")}
    assert len(shown) >= 5
    for path in IMAGES.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size < BYTES_MAX, path.name


def fill(living: Living) -> None:
    """Makes a day that looks like one: two endpoints, traffic by the hour, a delivery that fails."""
    living.receiver.behave(erp={}, hr={"statuses": [503]})
    for name, path, types in (
        ("ERP_Order_Sync", "erp", ["order.*", "shipment.*"]),
        ("HR_Portal", "hr", ["employee.create"]),
    ):
        endpoint_id = f"ep_{path}".ljust(29, "a")
        living.sql(
            "INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)"
            " VALUES ($1, 'default', $2, $3, 'wms', $4, 3)",
            endpoint_id,
            name,
            living.receiver.url(f"/{path}"),
            types,
        )
        for subject in (endpoint_id, "all"):
            for hour in range(1, 24):
                noise = hashlib.sha256(f"{subject}{hour}".encode()).digest()
                ok, refused = 200 + noise[0] * 2, noise[1] // (4 if path == "hr" else 40)
                counts = [0] * histogram.COUNTS
                counts[histogram.place(0.02 + noise[2] / 9000)] = ok
                counts[histogram.place(0.2 + noise[3] / 1500)] = ok // 12
                living.sql(
                    "INSERT INTO dispatcher.traffic VALUES (date_trunc('hour', now()) - $1 * interval '1 hour', $2,"
                    " $3, $4, 0, 0, $3, 0, $5, now() - $1 * interval '1 hour', 'ok', 200, NULL)"
                    " ON CONFLICT DO NOTHING",
                    hour,
                    subject,
                    ok,
                    refused,
                    counts,
                )
    for number in range(EVENTS_COUNT):
        living.sql(
            "INSERT INTO dispatcher.outbox (type, data, labels) VALUES ($1, $2::text::json, $3::text::jsonb)",
            "employee.create" if number % 7 == 6 else "order.created",
            orjson.dumps({"order_id": f"ORD-2026-{1234 + number}"}).decode(),
            orjson.dumps({"order_id": f"ORD-2026-{1234 + number}"}).decode(),
        )

    async def settled() -> bool:
        (row,) = await asyncio.to_thread(
            living.sql, "SELECT count(*) FROM words.attempt WHERE attempted_at < now()"
        )
        return int(row[0]) >= EVENTS_COUNT

    run_apart(lambda: until(settled, seconds=20, what="the first attempts"))


def picture_of_diagnosis(living: Living, tab: Watched, folder: Path) -> None:
    """Create a webhook whose receiver refuses its signature, and show the mistake."""
    secret = "whsec_" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
    living.receiver.behave(wms={"statuses": [401]})
    tab.open("/webhooks/new")
    tab.page.fill("#f-name", "WMS_Stock")
    tab.page.fill("#f-url", living.receiver.url("/wms"))
    tab.page.get_by_label("stock.changed").check()
    tab.page.get_by_label("Secret", exact=True).fill(secret)
    tab.page.locator("button[value=save]").click()
    tab.page.locator("#made-secret").wait_for()
    living.sql("INSERT INTO dispatcher.outbox (type, data) VALUES ('stock.changed', '{}')")
    of_webhook = (
        "SELECT d.id FROM dispatcher.delivery AS d JOIN dispatcher.endpoint AS e ON e.id = d.endpoint_id"
        " WHERE e.name = 'WMS_Stock' AND d.attempt_count > 0"
    )

    async def refused() -> bool:
        return bool(await asyncio.to_thread(living.sql, of_webhook))

    run_apart(lambda: until(refused, seconds=20, what="the first attempt"))
    tab.open(f"/deliveries/{living.sql(of_webhook)[0]['id']}")
    tab.page.fill("#f-secret", f'"{secret}"')
    tab.page.locator("#diagnosis button.primary").click()
    tab.page.locator("#result").wait_for()
    tab.page.locator("#signature").scroll_into_view_if_needed()
    tab.page.screenshot(path=folder / "diagnosis.png")


def picture_of_settings(living: Living, tab: Watched, endpoint_id: str, folder: Path) -> None:
    """Show what a mask and a second signature would send, before they are saved."""
    sealed = Keyring({"k1": KEY}).seal(WMS_SECRET, owner=endpoint_id, nonce=b"n" * 12)
    living.sql(
        "INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed)"
        " VALUES ($1, 'current', 'k1', $2)",
        endpoint_id,
        sealed,
    )
    tab.open(f"/webhooks/{endpoint_id}/settings")
    tab.page.locator("details.advanced > summary").click()
    tab.page.fill("[name=also_sign]", "standard")
    tab.page.fill("[name=exclude]", "ship_to.name\nitems.unit_price")
    tab.page.locator("#preview").get_by_text("unit_price").first.wait_for(state="detached")
    tab.page.locator("[name=also_sign]").evaluate("(one) => one.scrollIntoView({block: 'center'})")
    tab.page.screenshot(path=folder / "settings.png")


@pytest.mark.postgres
@pytest.mark.e2e
@pytest.mark.slow
def test_the_pictures_are_made_anew(
    long_run: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if not long_run:
        pytest.skip("made by ./run test --long: `tests/console/test_screenshots.py`")
    living: Living = request.getfixturevalue("living")
    open_tab: Callable[..., Watched] = request.getfixturevalue("open_tab")
    fill(living)
    (failing,) = {
        str(row["id"])
        for row in living.sql(
            "SELECT id FROM words.delivery_open WHERE attempt_count > 0 ORDER BY id LIMIT 1"
        )
    }
    endpoint = f"/webhooks/{'ep_erp'.ljust(29, 'a')}"
    wide = {"viewport": {"width": 1280, "height": 760}}
    for name, path, options in (
        ("overview", "/", {"locale": "en-GB"}),
        ("webhooks-thai", "/webhooks", {"locale": "th-TH"}),
        ("new", "/webhooks/new", {"locale": "en-GB"}),
        ("deliveries-dark", "/deliveries", {"locale": "en-GB", "color_scheme": "dark"}),
        ("delivery", f"/deliveries/{failing}", {"locale": "en-GB"}),
        ("test", f"{endpoint}/test", {"locale": "en-GB"}),
    ):
        tab = open_tab(**{**wide, **options}).sign_in()
        tab.open(path)
        if name == "test":
            tab.page.locator("form.card button").click()
            tab.page.locator("#result").wait_for()
            tab.page.locator("#result").scroll_into_view_if_needed()
        tab.page.screenshot(path=tmp_path / f"{name}.png")
        tab.close()
    lower = {"viewport": {"width": 1280, "height": 660}, "locale": "en-GB"}
    erp = endpoint.removeprefix("/webhooks/")
    picture_of_settings(living, open_tab(**lower).sign_in(), erp, tmp_path)
    picture_of_diagnosis(living, open_tab(**wide, locale="en-GB").sign_in(), tmp_path)
    for made in tmp_path.glob("*.png"):
        assert made.stat().st_size < BYTES_MAX, made.name
        (IMAGES / made.name).write_bytes(made.read_bytes())
