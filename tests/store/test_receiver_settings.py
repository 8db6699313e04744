"""Settings for demanding receivers, through the operations and a real receiver: signatures, keys, masks, tokens."""

import base64
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from dispatcher.admin.console.verification_code import public_key_code
from dispatcher.admin.operations.apply import Configuration
from dispatcher.admin.operations.context import Actor, Deployment
from dispatcher.admin.operations.delivery_report import DeliveryReports
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.published_keys import PublishedKeys
from dispatcher.admin.operations.request_preview import RequestPreviews
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.operations.test_events import EventTester
from dispatcher.cli.session import deployment_of, open_http_client
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.errors import InvalidRequestError, NotFoundError
from dispatcher.core.secret import MASK
from dispatcher.dev.receiver import Receiver, ReceiverRoute
from dispatcher.store.pool import Database
from dispatcher.store.secrets import load_secrets
from dispatcher.verify import verify
from tests.support.certificates import Authority
from tests.support.endpoints import create_endpoint, update_endpoint
from tests.support.raw_receiver import OK, RawReceiver, answering
from tests.support.story import KEY

pytestmark = pytest.mark.postgres

ALL = Actor(name="cli:tester")
SHORT = "short text"


@pytest.fixture
async def deployment(database: str) -> AsyncIterator[Deployment]:
    pool = Database(database, connections_max=3)
    await pool.open()
    environment = {
        "DISPATCHER_DATABASE_URL": database,
        "DISPATCHER_SECRET_KEYS": KEY,
        "DISPATCHER_EGRESS__ALLOW_HTTP": "true",
        "DISPATCHER_EGRESS__ALLOW_NETWORKS": '["127.0.0.1/32"]',
    }
    yield deployment_of(load_settings(None, environment), pool)
    await pool.close()


class PortReceiver(Receiver):
    """A receiver that knows its port."""

    port = 0


@pytest.fixture
async def receiver() -> AsyncIterator[PortReceiver]:
    receiver = PortReceiver(ReceiverRoute())
    receiver.port = await receiver.start()
    yield receiver
    await receiver.stop()


async def codes_of(work: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        await work
    return {one.field: one.code for one in caught.value.problems}


def new(receiver: PortReceiver, **fields: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{receiver.port}/hook"
    return {"name": "erp", "url": url, "event_types": ["order.*"], "profile": "wms", **fields}


async def test_also_sign_is_sent_shown_changed_and_exported(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    endpoints = Endpoints(deployment)
    made = await create_endpoint(endpoints, ALL, new(receiver))
    changed = await update_endpoint(endpoints, ALL, made.id, {"also_sign": ["standard"]})
    assert changed.also_sign == ["standard"]
    async with open_http_client(deployment.settings) as http_client:
        sent = await EventTester(deployment, http_client).send(ALL, made.id)
    (request,) = receiver.received
    revealed = await Rotation(deployment).reveal(ALL, made.id)
    secrets = {"wms": str(revealed.secret), **revealed.also_sign_secrets}
    for profile, secret in secrets.items():
        verify(request.headers, request.body, secret, profile=profile)
    assert sorted(secrets) == ["standard", "wms"]
    report = await DeliveryReports(deployment).delivery(ALL, sent.id)
    assert report.request is not None
    (also,) = report.request.also_signed
    assert also.signature_header == "webhook-signature"
    assert also.signed_content.endswith(f".{request.body.decode()}")
    (declared,) = await Configuration(deployment).export(ALL)
    assert declared.also_sign == ["standard"]


async def test_also_sign_that_cannot_be_sent_is_refused_with_its_field(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    endpoints = Endpoints(deployment)

    async def refused(**fields: Any) -> dict[str, str]:
        return await codes_of(create_endpoint(endpoints, ALL, new(receiver, **fields)))

    also = ["standard"]
    assert await refused(also_sign=["nothing"]) == {"also_sign[0]": "not_one_of"}
    assert await refused(also_sign=["x"] * 9) == {"also_sign": "too_many_items"}
    assert await refused(also_sign=[7]) == {"also_sign[0]": "not_a_string"}
    assert await refused(also_sign="standard") == {"also_sign": "not_a_list"}
    assert await refused(also_sign=["wms"]) == {"also_sign[0]": "duplicate"}
    assert await refused(also_sign=also, secret=None) == {"also_sign": "also_sign_without_secret"}
    assert await refused(also_sign=also, secret=SHORT) == {"also_sign": "also_sign_secret_size"}
    assert await refused(also_sign=also, headers={"webhook-id": "x"}) == {
        "headers.webhook-id": "reserved_header"
    }
    made = await create_endpoint(
        endpoints, ALL, new(receiver, headers={"webhook-id": "x"}, secret=SHORT)
    )
    update = update_endpoint(endpoints, ALL, made.id, {"also_sign": also})
    assert await codes_of(update) == {
        "headers.webhook-id": "reserved_header",
        "also_sign": "also_sign_secret_size",
    }
    await update_endpoint(endpoints, ALL, made.id, {"headers": {}})
    rotation = Rotation(deployment)
    await rotation.rotate(ALL, made.id, activate=True)
    await update_endpoint(endpoints, ALL, made.id, {"also_sign": also})
    rotate = rotation.rotate(ALL, made.id, new_secret=f"{SHORT} 2")
    assert await codes_of(rotate) == {"also_sign": "also_sign_secret_size"}


async def test_ed25519_signs_is_published_and_rotates_with_an_overlap(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    endpoints, rotation = Endpoints(deployment), Rotation(deployment)
    made = await create_endpoint(
        endpoints, ALL, new(receiver, profile="standard", key_type="ed25519")
    )
    assert made.public_key is not None
    assert "*" in str(made.secret)
    rotated = await rotation.rotate(ALL, made.id)
    assert rotated.public_key not in {None, made.public_key}
    assert "*" in rotated.secret
    revealed = await rotation.reveal(ALL, made.id)
    assert (revealed.secret, revealed.public_key) == (None, rotated.public_key)
    async with open_http_client(deployment.settings) as http_client:
        await EventTester(deployment, http_client).send(ALL, made.id)
    (request,) = receiver.received
    found = (await PublishedKeys(deployment).of_endpoint(made.id)).keys
    assert [_whpk(one.x) for one in found] == [rotated.public_key, made.public_key]
    assert len({one.kid for one in found}) == 2
    verify_code: dict[str, Any] = {}
    exec(public_key_code(deployment.profiles["standard"])["Python"], verify_code)  # noqa: S102 -- the code under test
    headers = {name.lower(): value for name, value in request.headers.items()}
    for one in found:
        assert verify_code["verify"](headers, request.body, _whpk(one.x))
        assert not verify_code["verify"](headers, request.body + b" ", _whpk(one.x))
    back = await rotation.rotate(ALL, made.id, key_type="hmac", overlap_seconds=0)
    assert back.public_key is None
    verify_secret = await rotation.reveal(ALL, made.id)
    assert verify_secret.secret == back.secret
    assert (await PublishedKeys(deployment).of_endpoint(made.id)).keys == []


def _whpk(x: str) -> str:
    return "whpk_" + base64.b64encode(base64.urlsafe_b64decode(x + "=")).decode()


async def test_ed25519_where_it_is_not_possible_is_refused(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    endpoints = Endpoints(deployment)

    async def refused(**fields: Any) -> dict[str, str]:
        return await codes_of(create_endpoint(endpoints, ALL, new(receiver, **fields)))

    assert await refused(key_type="ed25519") == {"key_type": "key_type_not_possible"}
    assert await refused(key_type="rsa") == {"key_type": "not_one_of"}
    assert await refused(profile="standard", key_type="ed25519", secret=SHORT)
    standard = {"profile": "standard", "key_type": "ed25519"}
    assert await refused(**standard, also_sign=["wms"]) == {"also_sign": "also_sign_shared_secret"}
    made = await create_endpoint(endpoints, ALL, new(receiver, **standard))
    update = update_endpoint(endpoints, ALL, made.id, {"also_sign": ["github"]})
    assert await codes_of(update) == {"also_sign": "also_sign_shared_secret"}
    change = update_endpoint(endpoints, ALL, made.id, {"key_type": "hmac"})
    assert await codes_of(change) == {"key_type": "secret_rotation_only"}
    (declared,) = await Configuration(deployment).export(ALL)
    assert declared.key_type == "ed25519"
    given = declared.given() | {"key_type": "hmac"}
    apply = Configuration(deployment).apply(ALL, [given], resolve=lambda _: "")
    assert list((await codes_of(apply)).values()) == ["secret_rotation_only"]


async def test_masked_test_event_is_sent_and_shown_as_it_was_sent(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    endpoints = Endpoints(deployment)
    made = await create_endpoint(endpoints, ALL, new(receiver, exclude=["customer.email"]))
    async with open_http_client(deployment.settings) as http_client:
        sent = await EventTester(deployment, http_client).send(
            ALL,
            made.id,
            event_type="order.created",
            data='{"customer": {"email": "x@y", "name": "A"}, "n": 1.0}',
        )
    (request,) = receiver.received
    assert b'"data":{"customer":{"name":"A"},"n":1.0}' in request.body
    report = await DeliveryReports(deployment).delivery(ALL, sent.id)
    assert report.body == request.body.decode()
    changed = await update_endpoint(endpoints, ALL, made.id, {"include": ["n"], "exclude": []})
    assert (changed.include, changed.exclude) == (["n"], [])
    (declared,) = await Configuration(deployment).export(ALL)
    assert (declared.include, declared.exclude) == (["n"], [])


async def test_mask_that_cannot_be_applied_is_refused_with_its_field(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    endpoints = Endpoints(deployment)

    async def refused(**fields: Any) -> dict[str, str]:
        return await codes_of(create_endpoint(endpoints, ALL, new(receiver, **fields)))

    assert await refused(include=["a..b"]) == {"include[0]": "invalid_data_path"}
    assert await refused(exclude=["x" * 100_000]) == {"exclude[0]": "too_long"}
    assert await refused(exclude="a") == {"exclude": "not_a_list"}
    slack = {"profile": "slack", "secret": "/services/T0/B0/x", "url": "https://hooks.example.com"}
    assert await refused(**slack, exclude=["a"]) == {"exclude": "mask_not_possible"}


async def test_preview_applies_mask_and_signatures_and_stores_nothing(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    previews = RequestPreviews(deployment)
    fields = new(receiver, event_types=["order.created"], also_sign=["standard"])
    whole = previews.preview(ALL, fields)
    names = [name for name, _ in whole.headers]
    assert {"X-WMS-Signature", "webhook-signature"} <= set(names)
    data = orjson.loads(whole.body)["data"]
    name = next(iter(data))
    masked = previews.preview(ALL, {**fields, "include": [name]})
    assert list(orjson.loads(masked.body)["data"]) == [name]
    assert await codes_of(_async(previews.preview, ALL, {**fields, "include": ["."]})) == {
        "include[0]": "invalid_data_path"
    }
    assert (await Endpoints(deployment).page(ALL)).items == []


async def test_preview_of_a_change_keeps_the_other_settings_and_stores_nothing(
    deployment: Deployment, receiver: PortReceiver
) -> None:
    endpoints, previews = Endpoints(deployment), RequestPreviews(deployment)
    made = await create_endpoint(
        endpoints, ALL, new(receiver, event_types=["order.created"], headers={"X-Kept": "1"})
    )
    whole = await previews.preview_change(ALL, made.id, {})
    data = orjson.loads(whole.body)["data"]
    name = next(iter(data))
    shown = await previews.preview_change(
        ALL, made.id, {"exclude": [name], "also_sign": ["standard"]}
    )
    assert set(orjson.loads(shown.body)["data"]) == set(data) - {name}
    assert {"X-Kept", "webhook-signature"} <= {one for one, _ in shown.headers}
    assert "webhook-signature" not in {one for one, _ in whole.headers}
    assert await codes_of(previews.preview_change(ALL, made.id, {"exclude": ["."]})) == {
        "exclude[0]": "invalid_data_path"
    }
    assert (await endpoints.show(ALL, made.id)).exclude == []
    with pytest.raises(NotFoundError):
        await previews.preview_change(ALL, "ep_none", {})


def _given(text: str, _reference: str) -> str:
    return text


async def _async(call: Any, *arguments: Any) -> Any:
    return call(*arguments)


class TokenServer:
    """A token endpoint on a real socket."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, str]] = []
        self.url = ""

    async def token(self, request: web.Request) -> web.Response:
        self.requests.append((request.headers["Authorization"], (await request.read()).decode()))
        granted = {"access_token": f"token-{len(self.requests)}", "expires_in": 3600}
        return web.json_response(
            granted if self.status == 200 else {"error": "invalid_client"}, status=self.status
        )


@pytest.fixture
async def token_server() -> AsyncIterator[TokenServer]:
    server = TokenServer()
    application = web.Application()
    application.router.add_post("/token", server.token)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    yield server
    await runner.cleanup()


async def test_oauth_token_is_sent_and_its_secret_never_shown(
    deployment: Deployment, receiver: PortReceiver, token_server: TokenServer
) -> None:
    endpoints = Endpoints(deployment)
    url = token_server.url
    oauth = {"oauth_token_url": url, "oauth_client_id": "client", "oauth_client_secret": SHORT}
    made = await create_endpoint(endpoints, ALL, new(receiver, **oauth))
    assert (made.oauth_client_secret, made.oauth_token_url) == ("********", url)
    async with open_http_client(deployment.settings) as http_client:
        tester = EventTester(deployment, http_client)
        sent = await tester.send(ALL, made.id)
        assert receiver.received[0].headers["authorization"] == "Bearer token-1"
        (asked,) = token_server.requests
        assert base64.b64decode(asked[0].removeprefix("Basic ")).decode() == "client:short+text"
        assert asked[1] == "grant_type=client_credentials"
        token_server.status = 401
        failed = await tester.send(ALL, made.id)
    assert (sent.state, failed.state) == ("succeeded", "failed")
    error = (
        "no access token, nothing was sent: the token endpoint responded with 401 (invalid_client)"
    )
    assert failed.attempts[0].error == error
    assert len(receiver.received) == 1
    changed = await update_endpoint(endpoints, ALL, made.id, {"oauth_scope": "hooks"})
    assert changed.oauth_client_secret == "********"  # noqa: S105 -- the mask
    (declared,) = await Configuration(deployment).export(ALL)
    assert SHORT not in str(declared)
    fields = {**declared.given(), "oauth_client_secret": "env:X"}
    for text, action in ((SHORT, "unchanged"), (f"{SHORT} 2", "update")):
        applied = await Configuration(deployment).apply(
            ALL, [fields], resolve=partial(_given, text)
        )
        assert [one.action for one in applied.items] == [action]
    gone = await update_endpoint(
        endpoints,
        ALL,
        made.id,
        {"oauth_token_url": None, "oauth_client_id": None, "oauth_scope": None},
    )
    assert gone.oauth_client_secret is None


async def test_oauth_and_certificates_that_do_not_fit_are_refused(
    deployment: Deployment, receiver: PortReceiver, tmp_path: Path
) -> None:
    endpoints = Endpoints(deployment)
    authority = Authority(tmp_path)
    certificate, key = authority.client_pair()
    _, other_key = authority.client_pair()
    pair = {"url": "https://example.com/", "client_certificate": certificate, "client_key": key}
    oauth = {"oauth_token_url": "https://auth.example.com/token", "oauth_client_id": "client"}

    async def refused(**fields: Any) -> dict[str, str]:
        return await codes_of(create_endpoint(endpoints, ALL, new(receiver, **fields)))

    assert await refused(**oauth) == {"oauth_client_secret": "required"}
    assert await refused(oauth_client_secret=SHORT) == {"oauth_token_url": "required"}
    assert await refused(**oauth | {"oauth_client_id": "a\r\nX: y"}) == {
        "oauth_client_id": "client_characters"
    }
    assert await refused(**oauth, oauth_client_secret=MASK) == {
        "oauth_client_secret": "masked_value"
    }
    assert await refused(
        **oauth | {"oauth_token_url": "http://10.0.0.1/"}, oauth_client_secret=SHORT
    ) == {"oauth_token_url": "url_address_denied"}
    authorized = {"headers": {"authorization": "x"}, "oauth_client_secret": SHORT}
    assert await refused(**oauth, **authorized) == {"headers.authorization": "reserved_header"}
    assert await refused(**pair | {"client_key": other_key}) == {
        "client_key": "client_key_of_another"
    }
    assert await refused(**pair | {"client_key": certificate}) == {
        "client_key": "invalid_private_key"
    }
    assert await refused(**pair | {"client_certificate": key}) == {
        "client_certificate": "invalid_certificate"
    }
    assert await refused(**pair | {"client_certificate": "x" * 100_000}) == {
        "client_certificate": "too_long"
    }
    assert await refused(**pair | {"client_key": None}) == {"client_key": "required"}
    assert await refused(client_certificate=certificate, client_key=key) == {
        "client_certificate": "client_certificate_without_tls"
    }


async def test_client_certificate_is_presented_and_replaced_with_its_key(
    deployment: Deployment, receiver: PortReceiver, tmp_path: Path
) -> None:
    endpoints = Endpoints(deployment)
    authority = Authority(tmp_path)
    tls = authority.server_context("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=authority.pem)
    certificate, key = authority.client_pair()
    old_certificate, old_key = authority.client_pair(is_expired=True)
    async with (
        RawReceiver(answering(OK), tls=tls) as required,
        open_http_client(deployment.settings) as http_client,
    ):
        url = f"https://127.0.0.1:{required.port}/"
        fields = new(receiver, url=url, ca_pem=authority.pem)
        tester = EventTester(deployment, http_client)
        without = await create_endpoint(endpoints, ALL, fields | {"name": "without"})
        refused = await tester.send(ALL, without.id)
        pair = {"client_certificate": certificate, "client_key": key}
        made = await create_endpoint(endpoints, ALL, fields | pair)
        sent = await tester.send(ALL, made.id)
        again = await tester.send(ALL, made.id)
        old_pair = {"client_certificate": old_certificate, "client_key": old_key}
        warned = await update_endpoint(endpoints, ALL, made.id, old_pair)
        expired = await tester.send(ALL, made.id)
    assert made.client_key == "********"
    assert refused.attempts[0].outcome in {"tls_error", "connect_error"}
    assert (sent.state, again.state, expired.state) == ("succeeded", "succeeded", "failed")
    assert len(warned.warnings) == 1
    assert "expired at" in warned.warnings[0]
    half = update_endpoint(endpoints, ALL, made.id, {"client_certificate": certificate})
    assert await codes_of(half) == {"client_key": "client_key_of_another"}
    gone = await update_endpoint(endpoints, ALL, made.id, {"client_certificate": None})
    assert gone.client_key is None
    async with deployment.database.reading() as connection:
        sealed = await load_secrets(connection, [made.id])
    assert [one.role for one in sealed[made.id]] == ["current"]


async def test_apply_validates_credentials_before_it_changes_anything(
    deployment: Deployment, receiver: PortReceiver, tmp_path: Path
) -> None:
    endpoints, configuration = Endpoints(deployment), Configuration(deployment)
    certificate, key = Authority(tmp_path).client_pair()
    _, other_key = Authority(tmp_path / "other").client_pair()
    https = "https://example.com/"
    oauth = {"oauth_token_url": "https://auth.example.com/token", "oauth_client_id": "client"}
    for name, fields in {
        "plain": {},
        "mtls": {"url": https, "client_certificate": certificate, "client_key": key},
        "oauth": {**oauth, "oauth_client_secret": SHORT},
    }.items():
        await create_endpoint(endpoints, ALL, new(receiver, **{"name": name, **fields}))
    texts = {"env:OTHER": other_key, "env:SECRET": SHORT}
    plain = new(receiver, name="plain")
    declared = [
        {**plain, "name": "first", "event_types": ["stock.*"]},  # is fine, and must not be created
        {**plain, "oauth_token_url": oauth["oauth_token_url"], "oauth_client_id": "client"},
        {**plain, "name": "mtls", "url": https, "client_certificate": certificate,
         "client_key": "env:OTHER"},
        {**plain, "name": "oauth", **oauth, "headers": {"Authorization": "x"}},
        {**plain, "name": "unsigned", "also_sign": ["standard"], "secret": "unsigned"},
    ]  # fmt: skip
    before = await configuration.export(ALL)
    with pytest.raises(InvalidRequestError) as caught:
        await configuration.apply(ALL, declared, resolve=texts.__getitem__)
    found = {(one.field.partition(": ")[2], one.code) for one in caught.value.problems}
    assert found == {
        ("oauth_client_secret", "required"),
        ("client_key", "client_key_of_another"),
        ("headers.Authorization", "reserved_header"),
        ("also_sign", "also_sign_without_secret"),
    }
    assert await configuration.export(ALL) == before
    # A stored secret that the declaration leaves out stays, and fits.
    applied = await configuration.apply(
        ALL, [{**plain, "name": "oauth", **oauth}], resolve=texts.__getitem__
    )
    assert [one.action for one in applied.items if one.name == "oauth"] == ["unchanged"]
