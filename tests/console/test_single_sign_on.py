"""A22: single sign-on against a provider on loopback, and everything that it must refuse.

The provider (tests/support/oidc_provider.py) is a small one that follows the protocol; the last test signs in
through Dex, if that is installed.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import orjson
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwk, jwt
from joserfc.errors import SecurityWarning
from yarl import URL

from dispatcher.admin.auth import Auth
from dispatcher.admin.console import add_console
from dispatcher.admin.oidc import provider as provider_module
from dispatcher.admin.oidc import sign_on as sign_on_module
from dispatcher.admin.oidc.flow import FLOW_SECONDS, Flow, read_flow, start_flow
from dispatcher.admin.oidc.id_token import Expected, Identity, SigningKey, verify_id_token
from dispatcher.admin.oidc.sign_on import SIGN_INS_BURST, SignOn
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.resources.token import NewToken
from dispatcher.cli.session import deployment_of, open_http_client
from dispatcher.config.settings import Settings
from dispatcher.config.settings_reader import load_settings
from dispatcher.outbound.documents import DOCUMENT_BYTES_MAX
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.pool import Database
from tests.console.conftest import ALL, Client, Page, environment
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider
from tests.support.tools import need

pytestmark = pytest.mark.postgres

RULES = [
    {"group": "ops", "role": "operator", "tenant": "acme"},
    {"group": "root", "role": "admin", "tenant": "*"},
    {"group": "ops-of-globex", "role": "admin", "tenant": "globex"},
]


class Site:
    """The console with single sign-on, its provider, and browsers."""

    provider: Provider

    def __init__(self, base: str) -> None:
        self.base = base
        self.clients: list[Client] = []
        self.operations: Operations
        self.auth: Auth

    def browser(self) -> Client:
        self.clients.append(Client(self.base))
        return self.clients[-1]

    async def leave(self, client: Client, next_path: str = "/") -> str:
        """Starts a sign-in; returns the address at the provider."""
        answer = await client.get(f"/sign-in/oidc?next={next_path}")
        assert answer.status == 303, answer.text
        return str(answer.headers["Location"])

    def back(self, url: str) -> str:
        """Returns the path of the console that the provider sends the browser to."""
        return self.provider.authorize(url).removeprefix(self.base)

    async def sign_in(self, client: Client, next_path: str = "/") -> Page:
        url = await self.leave(client, next_path)
        # The redirect is a navigation that comes from another site.
        return await client.get(self.back(url), Sec_Fetch_Site="cross-site")

    async def is_signed_in(self, client: Client) -> bool:
        return (await client.get("/deliveries")).status == 200


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    await made.start()
    yield made
    await made.stop()


def settings_of(url: str, provider: Provider, base: str, rules: Any = RULES) -> Any:
    return load_settings(
        None,
        {
            **environment(url),
            "DISPATCHER_HTTP__PUBLIC_URL": base,
            "DISPATCHER_OIDC__ISSUER": provider.issuer,
            "DISPATCHER_OIDC__CLIENT_ID": CLIENT_ID,
            "DISPATCHER_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "DISPATCHER_OIDC__NAME": "Example <ID>",
            "DISPATCHER_OIDC__ROLES": orjson.dumps(rules).decode(),
        },
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def running(settings: Settings, port: int) -> AsyncIterator[Site]:
    """Serves the console with single sign-on on a port of 127.0.0.1."""
    made = Site(f"http://127.0.0.1:{port}")
    assert settings.database_url is not None
    pool = Database(settings.database_url.get_secret_value(), connections_max=4)
    await pool.open()
    deployment = deployment_of(settings, pool)
    async with open_http_client(settings) as http_client:
        made.operations, made.auth = Operations.of(deployment, http_client), Auth(deployment)
        sign_on = SignOn.of(deployment, made.auth, http_client.documents())
        application = web.Application(client_max_size=1 << 20)
        add_console(application, made.operations, made.auth, settings, sign_on)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        yield made
        for client in made.clients:
            await client.session.close()
        await runner.cleanup()
    await pool.close()


@pytest.fixture
async def site(database: str, provider: Provider) -> AsyncIterator[Site]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    provider.redirect_uri = f"{base}/sign-in/callback"
    async with running(settings_of(database, provider, base), port) as made:
        made.provider = provider
        yield made


async def test_person_signs_in_with_the_rights_of_the_group(site, sql):
    client = site.browser()
    page = await client.get("/sign-in?next=/events")
    assert "Sign in with Example &lt;ID&gt;" in page.text
    answer = await site.sign_in(client, "/events?type=order.created")
    assert (answer.status, answer.headers["Location"]) == (303, "/events?type=order.created")
    home = await client.get("/")
    assert home.status == 200
    assert "Ada" in home.text
    assert (await client.get("/activity")).status == 403
    person = await sql.fetchrow("SELECT * FROM dispatcher.person")
    assert (person["subject"], person["name"], person["role"], person["tenant"]) == (
        "u1", "Ada", "operator", "acme",
    )  # fmt: skip
    row = await sql.fetchrow("SELECT * FROM dispatcher.session")
    assert (row["source"], row["actor"]) == ("oidc", f"oidc:{person['id']}")
    assert (row["role"], row["tenant"]) == ("operator", "acme")
    [entry] = (await site.operations.audit.page(ALL)).items
    assert (entry.action, entry.detail["by"], entry.detail["name"]) == (
        "session.open",
        "oidc",
        "Ada",
    )
    await client.post("/sign-out", {"csrf": home.hidden("csrf")})
    assert not await site.is_signed_in(client)


async def test_second_sign_in_updates_the_same_person(site, sql):
    await site.sign_in(site.browser())
    site.provider.person |= {"preferred_username": "Ada L.", "groups": ["root"]}
    await site.sign_in(site.browser())
    people = (await site.operations.access.people(ALL)).items
    assert [(one.name, one.role, one.tenant) for one in people] == [("Ada L.", "admin", None)]
    assert await sql.fetchval("SELECT count(DISTINCT actor) FROM dispatcher.session") == 1


def wrong(**claims: Any) -> Any:
    """Returns a change of claims; None removes one."""

    def change(found: dict[str, Any]) -> None:
        for name, value in claims.items():
            found.pop(name, None)
            if value is not None:
                found[name] = value

    return change


NOW = int(SystemClock.now().timestamp())
REFUSED_CLAIMS = {
    "wrong_issuer": wrong(iss="http://127.0.0.1:1"),
    "issuer_with_a_slash": lambda claims: claims.update(iss=claims["iss"] + "/"),
    "wrong_audience": wrong(aud="another-client"),
    "several_audiences_without_azp": wrong(aud=[CLIENT_ID, "another-client"]),
    "authorized_for_another_client": wrong(azp="another-client"),
    "no_audience": wrong(aud=None),
    "wrong_nonce": wrong(nonce="x"),
    "no_nonce": wrong(nonce=None),
    "expired": wrong(exp=NOW - 3_600),
    "no_expiry": wrong(exp=None),
    "expiry_is_true": wrong(exp=True),
    "issued_long_ago": wrong(iat=NOW - 86_400),
    "issued_in_the_future": wrong(iat=NOW + 86_400),
    "not_valid_yet": wrong(nbf=NOW + 86_400),
    "no_subject": wrong(sub=None),
    "subject_is_a_list": wrong(sub=["u1"]),
}


@pytest.mark.parametrize("change", REFUSED_CLAIMS.values(), ids=REFUSED_CLAIMS)
async def test_id_token_with_a_wrong_claim_is_refused(site, sql, change):
    site.provider.change = change
    client = site.browser()
    answer = await site.sign_in(client)
    assert (answer.status, "is not valid" in answer.text) == (403, True)
    assert not await site.is_signed_in(client)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.person") == 0


def _encoded(value: object) -> str:
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return f"{_encoded({**header, 'alg': 'none'})}.{_encoded(claims)}."


def signed_with_the_public_key(provider: Provider) -> Any:
    def sign(header: dict[str, Any], claims: dict[str, Any]) -> str:
        signed = f"{_encoded({**header, 'alg': 'HS256'})}.{_encoded(claims)}"
        secret = provider.key.as_pem(private=False)
        return f"{signed}.{_encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"

    return sign


def signed_by_a_stranger(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return jwt.encode(header, claims, jwk.RSAKey.generate_key(2048), algorithms=["RS256"])


def signed_by_a_key_in_the_header(header: dict[str, Any], claims: dict[str, Any]) -> str:
    key = jwk.RSAKey.generate_key(2048)
    embedded = {**header, "kid": "mine", "jwk": key.as_dict(private=False)}
    return jwt.encode(embedded, claims, key, algorithms=["RS256"])


@pytest.mark.parametrize(
    "sign",
    [
        unsigned,
        signed_by_a_stranger,
        signed_by_a_key_in_the_header,
        "public key as secret",
        lambda _, __: "a.b.c",
        lambda _, __: "x" * 70_000,
    ],
    ids=["none", "stranger", "embedded_key", "hs256_public_key", "garbage", "large"],
)
async def test_id_token_without_the_providers_signature_is_refused(site, sign):
    provider = site.provider
    provider.sign = signed_with_the_public_key(provider) if isinstance(sign, str) else sign
    client = site.browser()
    assert (await site.sign_in(client)).status == 403
    assert not await site.is_signed_in(client)


async def test_control_verifier_that_follows_the_header_is_deceived(site, monkeypatch):
    """Where the header chooses the algorithm, anyone signs with the public key as an HMAC secret."""
    secret = site.provider.key.as_pem(private=False)

    async def no_key(*_: object) -> None:
        return None

    def follow_the_header(token: str, _: object, __: object) -> Identity:
        signed, _, signature = token.rpartition(".")
        expected = hmac.digest(secret, signed.encode(), "sha256")
        assert _encoded(expected) == signature
        return Identity("u1", "Ada", {"groups": ["root"]})

    site.provider.sign = signed_with_the_public_key(site.provider)
    monkeypatch.setattr(provider_module.Provider, "key_of", no_key)
    monkeypatch.setattr(sign_on_module, "verify_id_token", follow_the_header)
    client = site.browser()
    assert (await site.sign_in(client)).status == 303
    assert (await client.get("/activity")).status == 200


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", jwk.ECKey.generate_key("P-256", {"kid": "e"})),
        ("Ed25519", jwk.OKPKey.generate_key("Ed25519", {"kid": "d"})),
    ],
)
async def test_other_allowed_algorithms_are_verified(site, algorithm, key):
    site.provider.algorithm, site.provider.key = algorithm, key
    client = site.browser()
    assert (await site.sign_in(client)).status == 303
    assert await site.is_signed_in(client)


async def test_short_rsa_key_is_not_used(site):
    with pytest.warns(SecurityWarning):
        site.provider.key = jwk.RSAKey.generate_key(1024, {"kid": "short"})
    assert (await site.sign_in(site.browser())).status == 403


async def test_state_of_another_browser_is_refused(site):
    """Login CSRF: the victim's browser is sent to the response that was meant for the attacker."""
    attacker, victim = site.browser(), site.browser()
    path = site.back(await site.leave(attacker))
    await site.leave(victim)
    assert (await victim.get(path)).status == 403
    assert not await site.is_signed_in(victim)
    assert "token" not in site.provider.requests


async def test_replayed_state_is_refused_even_with_its_cookie(site, sql):
    client = site.browser()
    url = await site.leave(client)
    [kept] = [one for one in client.session.cookie_jar if one.key == "dispatcher_flow"]
    first = site.back(url)
    assert (await client.get(first)).status == 303
    # The provider would issue a second code for the same request; the browser's cookie was stolen as well.
    thief = site.browser()
    thief.session.cookie_jar.update_cookies({"dispatcher_flow": kept.value}, URL(site.base))
    answer = await thief.get(site.back(url))
    assert (answer.status, "completed before" in answer.text) == (403, True)
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.session") == 1
    assert (await client.get(first)).status == 403


async def test_control_states_that_are_not_recorded_are_replayed(site, sql, monkeypatch):
    async def always(*_: object) -> bool:
        return True

    monkeypatch.setattr(sign_on_module, "take_state", always)
    client = site.browser()
    url = await site.leave(client)
    [kept] = [one for one in client.session.cookie_jar if one.key == "dispatcher_flow"]
    assert (await client.get(site.back(url))).status == 303
    client.session.cookie_jar.update_cookies({"dispatcher_flow": kept.value}, URL(site.base))
    assert (await client.get(site.back(url))).status == 303
    assert await sql.fetchval("SELECT count(*) FROM dispatcher.session") == 2


async def test_code_without_its_verifier_is_refused(site, monkeypatch):
    """A stolen code is useless: the provider compares the verifier with the challenge of the request."""
    client = site.browser()
    path = site.back(await site.leave(client))
    monkeypatch.setattr(Flow, "verifier", "wrong" * 9)
    assert (await client.get(path)).status == 403
    assert not await site.is_signed_in(client)


async def test_control_provider_without_pkce_takes_any_verifier(site, monkeypatch):
    site.provider.verifies_pkce = False
    client = site.browser()
    path = site.back(await site.leave(client))
    monkeypatch.setattr(Flow, "verifier", "wrong" * 9)
    assert (await client.get(path)).status == 303


@pytest.mark.parametrize(
    ("groups", "rights"),
    [
        (["ops"], ("operator", "acme")),
        (["root", "ops"], ("operator", "acme")),
        (["ops-of-globex", "ops"], ("operator", "acme")),
        (["root"], ("admin", None)),
        ("root", ("admin", None)),
        (["ROOT"], None),
        (["root "], None),
        (["ops-of-globex\u200b"], None),
        ([], None),
        (None, None),
        ({"root": True}, None),
        ([["root"]], None),
        ([f"g{number}" for number in range(3_000)] + ["root"], None),
    ],
)
async def test_groups_grant_one_rule_and_nothing_else(site, sql, groups, rights):
    site.provider.change = wrong(groups=groups, role="admin", tenant="*")
    answer = await site.sign_in(site.browser())
    row = await sql.fetchrow("SELECT role, tenant FROM dispatcher.session")
    assert (None if row is None else tuple(row)) == rights
    assert answer.status == (403 if rights is None else 303)
    if rights is None:
        assert "no access" in answer.text


async def test_group_of_one_tenant_reaches_no_other(site):
    for tenant in ("acme", "globex"):
        await site.operations.tokens.create(
            ALL, NewToken.of(name=f"{tenant} token", role="viewer", tenant=tenant)
        )
    site.provider.person["groups"] = ["ops-of-globex"]
    client = site.browser()
    await site.sign_in(client)
    page = await client.get("/access")
    assert page.status == 200
    assert "globex token" in page.text
    assert "acme token" not in page.text


async def test_session_ends_with_the_rules_that_granted_it(site, provider, database):
    client = site.browser()
    await site.sign_in(client)
    assert await site.is_signed_in(client)
    pool = Database(database, connections_max=2)
    await pool.open()
    narrower = [{"group": "root", "role": "admin", "tenant": "*"}]
    for rules, is_alive in ((RULES, True), (narrower, False)):
        settings = settings_of(database, provider, site.base, rules)
        deployment = deployment_of(settings, pool)
        auth = Auth(deployment)
        async with open_http_client(settings) as http_client:
            SignOn.of(deployment, auth, http_client.documents())
        [cookie] = [one for one in client.session.cookie_jar if one.key == "dispatcher_session"]
        assert (await auth.actor_of_session(cookie.value) is not None) == is_alive
    await pool.close()


async def test_session_ends_when_single_sign_on_is_switched_off(site):
    client = site.browser()
    await site.sign_in(client)
    site.auth.rules = None
    assert not await site.is_signed_in(client)


async def test_rotated_key_is_read_again_once(site, monkeypatch):
    assert (await site.sign_in(site.browser())).status == 303
    site.provider.key = jwk.RSAKey.generate_key(2048, {"kid": "k2"})
    # Within the bound, an unknown key id costs the provider nothing.
    assert (await site.sign_in(site.browser())).status == 403
    assert site.provider.requests.count("keys") == 1
    monkeypatch.setattr(provider_module, "KEYS_SECONDS_MIN", 0.0)
    assert (await site.sign_in(site.browser())).status == 303
    assert site.provider.requests.count("keys") == 2
    assert site.provider.requests.count("metadata") == 1


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "http://127.0.0.1:1"},
        {"token_endpoint": "http://login.example.com/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
        {"code_challenge_methods_supported": ["plain"]},
        {"padding": "x" * DOCUMENT_BYTES_MAX},
    ],
    ids=["issuer", "plain_http", "script", "missing", "no_pkce", "large"],
)
async def test_unusable_metadata_is_reported_and_tokens_still_work(site, metadata):
    site.provider.metadata = metadata
    client = site.browser()
    answer = await client.get("/sign-in/oidc")
    assert answer.status == 502
    assert "javascript" not in answer.text
    await client.sign_in()
    assert await site.is_signed_in(client)


async def test_absent_provider_is_reported(site):
    await site.provider.stop()
    answer = await site.browser().get("/sign-in/oidc")
    assert (answer.status, "cannot be used now" in answer.text) == (502, True)
    await site.provider.start()


async def test_slow_provider_is_given_up(site, monkeypatch):
    monkeypatch.setattr(sign_on_module, "SECONDS_MAX", 0.05)

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("dispatcher.outbound.documents.DocumentClient.get", hang)
    assert (await site.browser().get("/sign-in/oidc")).status == 502


async def test_denial_at_the_provider_is_shown_without_its_text(site):
    client = site.browser()
    query = parse_qs(urlsplit(await site.leave(client)).query)
    path = f"/sign-in/callback?state={query['state'][0]}&error=access_denied&error_description=%3Cb%3EHi"
    answer = await client.get(path)
    assert answer.status == 403
    assert "<b>Hi" not in answer.text
    assert "Hi" not in answer.text


async def test_sign_ins_are_limited_by_address(site):
    client = site.browser()
    statuses = [
        (await client.get("/sign-in/callback?state=x&code=y")).status
        for _ in range(SIGN_INS_BURST + 1)
    ]
    assert statuses == [403] * SIGN_INS_BURST + [429]
    assert site.provider.requests == []


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example"])
async def test_return_leads_to_no_other_site(site, path):
    answer = await site.sign_in(site.browser(), path)
    assert answer.headers["Location"] == "/"


def test_flow_is_bound_to_its_cookie_and_its_time():
    flow = start_flow(1_000.0, "/events")
    assert read_flow(flow.cookie, flow.state, 1_000.0 + FLOW_SECONDS) == flow
    assert read_flow(flow.cookie, flow.state, 1_001.0 + FLOW_SECONDS) is None
    later = flow.cookie.replace(".1000.", ".9000.")
    assert read_flow(later, flow.state, 9_000.0) is None
    for cookie in (
        "",
        ".",
        "..",
        "a.b.c",
        ".1000.L2E=",
        "a.1000.%%%",
        "a.\u0661.L2E=",
        "x" * 5_000,
    ):
        assert read_flow(cookie, flow.state, 1_000.0) is None
    assert len({flow.state, flow.nonce, flow.verifier, start_flow(1_000.0, "/events").state}) == 4
    digest = hashlib.sha256(flow.verifier.encode()).digest()
    assert flow.challenge == base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_token_named_eddsa_is_verified_with_the_ed25519_key():
    key = jwk.OKPKey.generate_key("Ed25519")
    private = key.private_key
    assert isinstance(private, Ed25519PrivateKey)
    claims = {"iss": "i", "aud": "c", "exp": 2_000, "iat": 1_000, "nonce": "n", "sub": "u"}
    signed = f"{_encoded({'alg': 'EdDSA'})}.{_encoded(claims)}"
    token = f"{signed}.{_encoded(private.sign(signed.encode()))}"
    public = SigningKey(None, "EdDSA", jwk.OKPKey.import_key(key.as_dict(private=False)))
    assert verify_id_token(token, public, Expected("i", "c", "n", 1_000.0)).subject == "u"


DEX = """
issuer: {issuer}
storage: {{type: memory}}
web: {{http: "{address}"}}
frontend: {{dir: "{frontend}"}}
oauth2: {{skipApprovalScreen: true}}
connectors: [{{type: mockCallback, id: mock, name: Mock}}]
staticClients:
- {{id: {client_id}, name: Console, secret: "{secret}", redirectURIs: ["{redirect_uri}"]}}
"""


@pytest.mark.slow
async def test_person_signs_in_through_dex(database, tmp_path):
    """Dex's mock connector signs in Kilgore Trout of the group `authors`.

    A version that does not contain its pages, such as 2.13, needs their folder in DEX_FRONTEND.
    """
    dex = need(
        "dex"
    )  # no Debian package has it: the package `dex` is a launcher of desktop entries
    version = await asyncio.to_thread(subprocess.run, [dex, "version"], capture_output=True)
    if b"Go Version" not in version.stdout:
        pytest.skip(f"{dex} is not the OpenID provider")
    ports = [free_port(), free_port()]
    base, issuer = (f"http://127.0.0.1:{port}" for port in ports)
    path = tmp_path / "dex.yaml"
    path.write_text(
        DEX.format(
            issuer=issuer,
            address=f"127.0.0.1:{ports[1]}",
            frontend=os.environ.get("DEX_FRONTEND", ""),
            client_id=CLIENT_ID,
            secret="plain",  # noqa: S106 -- of the tests
            redirect_uri=f"{base}/sign-in/callback",
        )
    )
    process = await asyncio.create_subprocess_exec(
        dex, "serve", str(path), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while b"listening (http)" not in (line := await process.stderr.readline()):
                assert line, "dex did not start"
        settings = load_settings(
            None,
            {
                **environment(database),
                "DISPATCHER_HTTP__PUBLIC_URL": base,
                "DISPATCHER_OIDC__ISSUER": issuer,
                "DISPATCHER_OIDC__CLIENT_ID": CLIENT_ID,
                "DISPATCHER_OIDC_CLIENT_SECRET": "plain",
                "DISPATCHER_OIDC__SCOPES": '["openid", "profile", "email", "groups"]',
                "DISPATCHER_OIDC__ROLES": '[{"group": "authors", "role": "viewer", "tenant": "acme"}]',
            },
        )
        async with running(settings, ports[0]) as site:
            client = site.browser()
            at_dex = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
            async with at_dex:
                url = await site.leave(client)
                while not url.startswith(base):
                    async with at_dex.get(url, allow_redirects=False) as redirect:
                        url = str(URL(url).join(URL(redirect.headers["Location"])))
            answer = await client.get(url.removeprefix(base), Sec_Fetch_Site="cross-site")
            assert answer.status == 303, answer.text
            [person] = (await site.operations.access.people(ALL)).items
            assert (person.name, person.role, person.tenant) == (
                "kilgore@kilgore.trout",
                "viewer",
                "acme",
            )
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()
