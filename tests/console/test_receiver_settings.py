"""Settings for demanding receivers in a browser, from the form to the request that a real receiver gets."""

import base64
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.request import urlopen

import orjson
import pytest
from playwright.sync_api import Page, expect

from tests.console import pictures
from tests.console.conftest import Living, Watched
from tests.support.cluster import run_apart

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

DATA = {"order_id": "ORD-1", "customer": {"name": "Ann", "email": "ann@example.com"}}


@pytest.fixture
def tab(open_tab: Callable[..., Watched]) -> Watched:
    return open_tab().sign_in()


@pytest.fixture
def token_server() -> Iterator[str]:
    """A token endpoint that grants `granted` to any client."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"access_token": "granted", "expires_in": 3600}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()


def new_form(tab: Watched, name: str, url: str | None, profile: str) -> Page:
    """Open the form of a new webhook for orders, with the settings for experts open."""
    page = tab.page
    tab.open("/webhooks/new")
    page.fill("[name=name]", name)
    if url is not None:
        page.fill("[name=url]", url)
    page.get_by_label("order.created").check()
    page.click("details.advanced > summary")
    page.check(f"[name=profile][value={profile}]")
    return page


def save(page: Page) -> None:
    page.click("button[name=then][value=save]")


def endpoint_id(living: Living, name: str) -> str:
    (row,) = living.sql("SELECT id FROM dispatcher.endpoint WHERE name = $1", name)
    return str(row["id"])


def publish(living: Living, data: object = DATA, key: str | None = None) -> None:
    living.sql(
        "INSERT INTO dispatcher.outbox (type, data, ordering_key)"
        " VALUES ('order.created', $1::text::json, $2)",
        orjson.dumps(data).decode(),
        key,
    )


def received(living: Living, path: str) -> dict[str, Any]:
    """Return the request that the receiver got at a path."""
    living.receiver.behave(**{path: {"keep_request": True}})
    publish(living)
    (entry, *_) = run_apart(lambda: living.receiver.received(1, kind="request", path=f"/{path}"))
    return dict(entry)


def test_masks_and_signatures_are_previewed_saved_and_sent(tab: Watched, living: Living) -> None:
    page = new_form(tab, "masked", living.receiver.url("/masked"), "wms")
    preview = page.locator("#preview")
    page.fill("[name=also_sign]", "standard")
    expect(preview).to_contain_text("webhook-signature:")
    page.fill("[name=include]", "order_id\ncustomer")
    page.fill("[name=exclude]", "customer.email")
    expect(preview).to_contain_text("order_id")
    save(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("masked")
    sent = received(living, "masked")
    body = orjson.loads(base64.b64decode(sent["body"]))
    assert body["data"] == {"order_id": "ORD-1", "customer": {"name": "Ann"}}
    assert {"x-wms-signature", "webhook-signature"} <= set(sent["headers"])
    # The settings of the saved one: shown again, and a change is previewed before it is saved.
    tab.open(f"/webhooks/{endpoint_id(living, 'masked')}/settings")
    page.click("details.advanced > summary")
    assert page.input_value("[name=exclude]") == "customer.email"
    expect(preview).to_contain_text("webhook-signature:")
    page.fill("[name=also_sign]", "")
    expect(preview).not_to_contain_text("webhook-signature:")
    page.fill("[name=include]", "customer")
    expect(preview).not_to_contain_text("order_id")
    (row,) = living.sql("SELECT include FROM dispatcher.endpoint WHERE name = 'masked'")
    assert row["include"] == ["order_id", "customer"], "a preview saves nothing"
    save(page)
    page.wait_for_url("**/webhooks/*")
    (row,) = living.sql("SELECT include, also_sign FROM dispatcher.endpoint WHERE name = 'masked'")
    assert (row["include"], row["also_sign"]) == (["customer"], [])
    assert tab.complaints == []


def test_ordering_is_chosen_shown_and_kept(tab: Watched, living: Living) -> None:
    page = new_form(tab, "ordered", living.receiver.url("/ordered"), "wms")
    page.select_option("[name=ordering]", "key")
    page.fill("[name=skip_after_attempts]", "3")
    save(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("ordered")
    for number in range(3):
        publish(living, {"n": number}, "ORD-7")
    living.receiver.behave(ordered={"keep_request": True})
    entries = run_apart(lambda: living.receiver.received(3, kind="request", path="/ordered"))
    bodies = [orjson.loads(base64.b64decode(one["body"]))["data"].get("n") for one in entries]
    assert [one for one in bodies if one is not None] == [0, 1, 2]
    tab.open(f"/webhooks/{endpoint_id(living, 'ordered')}/settings")
    assert page.input_value("[name=ordering]") == "key"
    assert page.input_value("[name=skip_after_attempts]") == "3"
    assert tab.complaints == []


def test_an_ed25519_key_is_made_and_its_code_shown(
    tab: Watched, living: Living, long_run: bool
) -> None:
    page = new_form(tab, "Carrier_API", living.receiver.url("/keyed"), "standard")
    page.select_option("[name=key_type]", "ed25519")
    expect(page.locator("#preview")).to_contain_text("v1a,")
    save(page)
    assert page.locator("#made-key").input_value().startswith("whpk_")
    content = page.content()
    assert "Ed25519PublicKeyParameters" in content
    assert "Signature.getInstance(" in content
    if long_run:
        tab.open(f"/webhooks/{endpoint_id(living, 'Carrier_API')}/secret")
        pictures.take(tab, "public-key", 720)
    assert "v1a," in received(living, "keyed")["headers"]["webhook-signature"]
    address = f"{living.base}/.well-known/dispatcher/keys"
    with urlopen(f"{address}?endpoint={endpoint_id(living, 'Carrier_API')}") as keys:  # noqa: S310 -- the daemon's
        assert [one["crv"] for one in orjson.loads(keys.read())["keys"]] == ["Ed25519"]
    assert tab.complaints == []


def test_oauth_credentials_are_stored_hidden_and_used(
    tab: Watched, living: Living, token_server: str
) -> None:
    page = new_form(tab, "oauth", living.receiver.url("/oauth"), "wms")
    page.fill("[name=oauth_token_url]", token_server)
    page.fill("[name=oauth_client_id]", "client-1")
    save(page)
    expect(page.locator("#p-oauth_client_secret")).to_be_visible()
    page.fill("[name=oauth_client_secret]", "secret-of-the-client")
    save(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("oauth")
    assert received(living, "oauth")["headers"]["authorization"] == "Bearer granted"
    tab.open(f"/webhooks/{endpoint_id(living, 'oauth')}/settings")
    assert page.input_value("[name=oauth_client_id]") == "client-1"
    assert "secret-of-the-client" not in page.content()
    assert tab.complaints == []
