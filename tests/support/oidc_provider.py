"""A small OpenID provider on loopback: metadata, keys, authorisation with PKCE, and the token endpoint.

It follows OpenID Connect Core for the authorisation code flow: codes are used once, and the token endpoint
checks the client's secret, the redirect address and the code verifier. Everyone who is sent to it is signed
in as `person`. The attributes below change one thing at a time for the tests of refusals.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web
from joserfc import jwk, jwt

from dispatcher.runtime.clock import SystemClock

CLIENT_ID = "dispatcher"
CLIENT_SECRET = "secret of the tests: /?&"  # noqa: S105 -- of the tests


class Provider:
    """The provider; `start` binds a port of 127.0.0.1."""

    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "u1", "preferred_username": "Ada", "groups": ["ops"]}
        self.redirect_uri = ""
        self.issuer = ""
        self.key: Any = jwk.RSAKey.generate_key(2048, {"kid": "k1"})
        self.published: list[Any] | None = None
        """The keys of the key set; None: the signing key's public part."""
        self.algorithm = "RS256"
        self.change: Callable[[dict[str, Any]], None] = lambda _: None
        """Changes the claims of a token before it is signed."""
        self.sign: Callable[[dict[str, Any], dict[str, Any]], str] | None = None
        """Signs header and claims in another way."""
        self.metadata: dict[str, Any] = {}
        """Replaces members of the metadata."""
        self.verifies_pkce = True
        self.codes: dict[str, dict[str, str]] = {}
        self.requests: list[str] = []

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get("/.well-known/openid-configuration", self._metadata)
        application.router.add_get("/authorize", self._authorize)
        application.router.add_get("/keys", self._keys)
        application.router.add_post("/token", self._token)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.issuer = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _metadata(self, _: web.Request) -> web.Response:
        self.requests.append("metadata")
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
                "code_challenge_methods_supported": ["S256"],
                **self.metadata,
            }
        )

    async def _authorize(self, request: web.Request) -> web.Response:
        return web.HTTPFound(self.authorize(str(request.url)))

    def authorize(self, url: str) -> str:
        """Return where the browser is sent from an authorisation request, as `/authorize` does."""
        query = dict(parse_qsl(urlsplit(url).query))
        assert query["client_id"] == CLIENT_ID
        assert query["redirect_uri"] == self.redirect_uri
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{self.redirect_uri}?{urlencode({'code': code, 'state': query['state']})}"

    async def _keys(self, _: web.Request) -> web.Response:
        self.requests.append("keys")
        keys = [self.key.as_dict(private=False)] if self.published is None else self.published
        return web.json_response({"keys": keys})

    async def _token(self, request: web.Request) -> web.Response:
        self.requests.append("token")
        form = await request.post()
        given = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic "))
        if given.decode() != f"{CLIENT_ID}:secret%20of%20the%20tests%3A%20%2F%3F%26":
            return web.json_response({"error": "invalid_client"}, status=401)
        query = self.codes.pop(str(form.get("code")), None)
        if query is None or form.get("redirect_uri") != query["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        digest = hashlib.sha256(str(form.get("code_verifier", "")).encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if self.verifies_pkce and challenge != query["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(
            {
                "token_type": "Bearer",
                "access_token": "x",
                "id_token": self._id_token(query["nonce"]),
            }
        )

    def _id_token(self, nonce: str) -> str:
        now = int(SystemClock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": nonce,
            **self.person,
        }
        self.change(claims)
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.sign is not None:
            return self.sign(header, claims)
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])
