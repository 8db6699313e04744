"""Fetched deliveries, access tokens with client certificates, filters and schemas: in a browser, with real receivers.

With `--long` each test also takes its picture of the documentation.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from playwright.sync_api import Browser, expect

from tests.console import pictures
from tests.console.conftest import ADMIN_TOKEN, Living, Watched
from tests.console.guarded_receiver import TOKEN, guarded_receiver
from tests.console.test_receiver_settings import endpoint_id, new_form, save
from tests.support.cluster import run_apart
from tests.support.daemon import CHECKOUT, Daemon, Receiver, until

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

SCHEMA = """schema_policy = "warn"
schema = '''
{
  "type": "object",
  "required": ["order_id", "warehouse", "items"],
  "properties": {
    "order_id": {"type": "string", "description": "The number on the invoice"},
    "warehouse": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$", "description": "The code of the warehouse"},
    "items": {
      "type": "array",
      "items": {
        "type": "object",
        "required": ["sku", "quantity"],
        "properties": {
          "sku": {"type": "string"},
          "quantity": {"type": "integer", "minimum": 1}
        }
      }
    }
  }
}
'''
"""
ORDER: dict[str, Any] = {
    "order_id": "ORD-2026-1234",
    "warehouse": "BKK-01",
    "items": [{"sku": "SKU-10023", "quantity": 24}],
}


class WithSchema(Living):
    """A daemon whose catalogue has a schema of `order.created`."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.receiver = Receiver(folder)
        (folder / "catalogue").mkdir()
        (folder / "dispatcher.toml").touch()
        shipped = (CHECKOUT / "config" / "catalogue" / "wms.toml").read_text(encoding="utf-8")
        named = 'name = "order.created"\n'
        (folder / "catalogue" / "wms.toml").write_text(shipped.replace(named, named + SCHEMA))
        self.daemon = Daemon(
            url,
            folder,
            environ={
                "DISPATCHER_ADMIN_TOKEN": ADMIN_TOKEN,
                "DISPATCHER_CONFIG": str(folder / "dispatcher.toml"),
            },
        )
        run_apart(self.daemon.started)
        self.base = f"http://127.0.0.1:{self.daemon.port}"


@pytest.fixture(scope="module")
def living(
    browser: Browser, own_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Living]:
    del browser
    made = WithSchema(own_database, tmp_path_factory.mktemp("demanding"))
    yield made
    made.stop()


@pytest.fixture
def tab(open_tab: Callable[..., Watched]) -> Watched:
    return open_tab(viewport={"width": 1280, "height": 760}, locale="en-GB").sign_in()


def publish(living: Living, **changes: Any) -> str:
    (row,) = living.sql(
        "INSERT INTO dispatcher.outbox (type, data, labels)"
        " VALUES ('order.created', $1::text::json, $2::text::jsonb) RETURNING id",
        orjson.dumps(ORDER | changes).decode(),
        orjson.dumps({"order_id": str(changes.get("order_id", ORDER["order_id"]))}).decode(),
    )
    return str(row["id"])


def wait_for_fan_out(living: Living, events: Sequence[str]) -> None:
    """Wait until events have left the outbox."""

    async def left() -> bool:
        rows = await asyncio.to_thread(
            living.sql, "SELECT id FROM dispatcher.event WHERE id = ANY ($1)", list(events)
        )
        return len(rows) == len(events)

    run_apart(lambda: until(left, seconds=20, what="the events to be fanned out"))


def wait_for(living: Living, name: str, count: int, where: str = "true") -> str:
    """Wait until a webhook has so many deliveries of a kind; return the id of one."""
    statement = (
        "SELECT d.id FROM dispatcher.delivery AS d JOIN dispatcher.endpoint AS e ON e.id = d.endpoint_id"
        f" WHERE e.name = $1 AND {where}"
    )

    async def so_many() -> str | None:
        rows = await asyncio.to_thread(living.sql, statement, name)
        return str(rows[0]["id"]) if len(rows) >= count else None

    return str(run_apart(lambda: until(so_many, seconds=20, what=f"{count} of {name}, {where}")))


def test_a_webhook_behind_a_firewall_is_fetched_and_forwarded(
    tab: Watched, living: Living, long_run: bool
) -> None:
    page = new_form(tab, "ERP_Behind", None, "standard")
    page.check("[name=delivery]")
    save(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("ERP_Behind")
    expect(page.locator("main").get_by_role("button", name="Send Test Event")).to_have_count(0)
    living.receiver.behave(behind={"share": 0.08, "statuses": [503]})
    for number in range(24):
        publish(living, order_id=f"ORD-2026-{1200 + number}", marker=f"m{number}")
    wait_for(living, "ERP_Behind", 24)
    identifier = endpoint_id(living, "ERP_Behind")
    finished = subprocess.run(
        [sys.executable, "-m", "dispatcher", "poll", identifier, "--once", "--url", living.base,
         "--forward", living.receiver.url("/behind")],
        env={**os.environ, "DISPATCHER_TOKEN": ADMIN_TOKEN},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    codes = [orjson.loads(line)["response_code"] for line in finished.stdout.splitlines()]
    assert len(codes) == living.receiver.count("answer", "/behind") == 24
    rejected = codes.count(503)
    assert 0 < rejected < 24, "some are rejected and wait for their retry"
    for number in range(3):
        publish(living, order_id=f"ORD-2026-{1300 + number}")
    wait_for(living, "ERP_Behind", rejected + 3, "d.state IN ('pending', 'retrying')")
    tab.open(f"/webhooks/{identifier}")
    stats = page.locator("dl.stats")
    expect(stats).to_contain_text(re.compile(rf"Waiting\s*{rejected + 3}"))
    expect(page.locator("main")).not_to_contain_text("pull.invalid")
    expect(page.locator("#fetching")).to_contain_text(f"dispatcher poll {identifier}")
    if long_run:
        pictures.take(tab, "pull", 620)
    done = wait_for(living, "ERP_Behind", 24 - rejected, "d.state = 'succeeded'")
    tab.open(f"/deliveries/{done}")
    expect(page.locator("#delivery")).to_contain_text("Succeeded")
    expect(page.locator("#delivery")).to_contain_text("Fetched by the receiver")
    expect(page.locator("main")).not_to_contain_text("pull.invalid")
    tab.open(f"/webhooks/{identifier}/test")
    expect(page.locator("main")).to_contain_text("fetches its deliveries")
    assert tab.complaints == []


def test_token_and_client_certificate_are_stored_hidden_and_used(
    tab: Watched, living: Living, tmp_path: Path, long_run: bool
) -> None:
    with guarded_receiver(tmp_path) as receiver:
        certificate, key = receiver.authority.client_pair()
        _, other_key = receiver.authority.client_pair()
        page = new_form(tab, "Bank_Orders", receiver.url, "wms")
        page.fill("[name=ca_pem]", receiver.authority.pem)
        page.fill("[name=oauth_token_url]", receiver.token_url)
        page.fill("[name=oauth_client_id]", "dispatcher")
        page.fill("[name=oauth_scope]", "webhooks")
        page.fill("[name=client_certificate]", certificate)
        page.fill("[name=client_key]", other_key)
        save(page)
        expect(page.locator("#p-oauth_client_secret")).to_be_visible()
        page.fill("[name=oauth_client_secret]", "secret-of-the-client")
        page.fill("[name=client_key]", other_key)
        save(page)
        expect(page.locator("#p-client_key")).to_be_visible()
        page.fill("[name=oauth_client_secret]", "secret-of-the-client")
        page.fill("[name=client_key]", key)
        save(page)
        expect(page.get_by_role("heading", level=1)).to_contain_text("Bank_Orders")
        publish(living)
        delivery = wait_for(living, "Bank_Orders", 1, "d.state = 'succeeded'")
        assert [orjson.loads(one)["data"] for one in receiver.received] == [ORDER]
        assert "dispatcher" in str(receiver.peers[0])
    tab.open(f"/deliveries/{delivery}")
    expect(page.locator("#delivery")).to_contain_text("Succeeded")
    expect(page.locator("#request-head")).to_contain_text("Authorization: Bearer ********")
    assert TOKEN not in page.content()
    if long_run:
        pictures.take(tab, "access-token", 660)
    identifier = endpoint_id(living, "Bank_Orders")
    tab.open(f"/webhooks/{identifier}")
    facts = page.locator("dl.facts")
    expect(facts).to_contain_text(receiver.token_url)
    expect(facts).to_contain_text("CN=dispatcher")
    if long_run:
        pictures.take(tab, "client-certificate", 560, foot=True)
    tab.open(f"/webhooks/{identifier}/settings")
    assert page.input_value("[name=client_certificate]").strip() == certificate.strip()
    assert page.input_value("[name=oauth_client_id]") == "dispatcher"
    assert "PRIVATE KEY" not in page.content()
    assert "secret-of-the-client" not in page.content()
    living.sql(
        "UPDATE dispatcher.endpoint SET state = 'paused', paused_at = now() WHERE name = 'Bank_Orders'"
    )
    assert tab.complaints == []


def test_a_content_filter_is_tried_saved_and_explained(
    tab: Watched, living: Living, long_run: bool
) -> None:
    living.receiver.behave(filtered={"keep_request": True})
    earlier = [
        publish(living, order_id=f"ORD-2026-{1500 + number}", warehouse=f"BKK-0{number % 3}")
        for number in range(12)
    ]
    wait_for_fan_out(living, earlier)  # a Webhook that is saved before also gets them
    page = new_form(tab, "BKK_02_Orders", living.receiver.url("/filtered"), "wms")
    page.fill("[name=content_filter]", 'data.warehouse == "BKK-02"')
    page.get_by_role("button", name="Test filter").click()
    tested = page.locator("#filter-test")
    expect(tested.locator(".notice")).to_contain_text(re.compile(r"^\s*4 of the last \d+ events"))
    if long_run:
        page.locator("[name=content_filter]").evaluate(
            "(one) => one.scrollIntoView({block: 'center'})"
        )
        pictures.take(tab, "content-filter", 700)
    save(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("BKK_02_Orders")
    left_out = publish(living, warehouse="CNX-01")
    wanted = publish(living, warehouse="BKK-02")
    requests = run_apart(
        lambda: living.receiver.received(1, kind="request", path="/filtered", seconds=20)
    )
    assert [one["event_id"] for one in requests] == [wanted], (earlier, left_out)
    tab.open(f"/events/{left_out}")
    row = page.locator("tr", has=page.get_by_text("BKK_02_Orders", exact=True))
    expect(row).to_contain_text('data.warehouse: "CNX-01"')
    assert tab.complaints == []


def test_an_event_that_does_not_fit_its_schema_is_delivered_and_marked(
    tab: Watched, living: Living, long_run: bool
) -> None:
    living.receiver.behave(schema={"keep_request": True})
    page = new_form(tab, "ERP_Orders", living.receiver.url("/schema"), "wms")
    save(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("ERP_Orders")
    fitting = [publish(living, order_id=f"ORD-2026-{1400 + number}") for number in range(11)]
    wrong = publish(
        living, order_id=1235, warehouse="Bangkok", items=[{"sku": "SKU-1", "quantity": 0}]
    )
    requests = run_apart(
        lambda: living.receiver.received(12, kind="request", path="/schema", seconds=20)
    )
    assert {one["event_id"] for one in requests} == {*fitting, wrong}
    tab.open(f"/events/{wrong}")
    notice = page.locator(".notice.warn")
    expect(notice).to_contain_text("data.warehouse")
    expect(notice).to_contain_text("data.items[0].quantity")
    tab.open(f"/events/{fitting[0]}")
    expect(page.locator("main")).not_to_contain_text("do not fit")
    expect(page.get_by_role("link", name="ERP_Orders", exact=True)).to_be_visible()
    if long_run:
        pictures.take(tab, "event", 620)
    tab.open("/event-types/order.created")
    expect(page.locator(".notice.warn")).to_contain_text("schema: 1 of the newest")
    expect(page.get_by_role("link", name=wrong)).to_be_visible()
    expect(page.get_by_role("link", name=fitting[0])).to_have_count(0)
    if long_run:
        pictures.take(tab, "schema", 710)
    assert tab.complaints == []
