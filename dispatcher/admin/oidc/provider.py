"""Requests to the OpenID provider: metadata, keys, and the exchange of a code for an ID token.

Invariants: the metadata's issuer equals the configured one to the character, and its addresses are https
(http only for an issuer on this machine). Metadata and keys are cached for `CACHE_SECONDS`. An unknown key id
reads the keys again at most once in `KEYS_SECONDS_MIN`, so that invented ids cause no flood. One request for
each document is under way at a time. At most `EXCHANGES_MAX` codes are exchanged at once.
"""

import asyncio
import base64
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

import orjson

from dispatcher.admin.oidc.errors import SignOnError
from dispatcher.admin.oidc.id_token import (
    SigningKey,
    choose_key,
    read_header,
    read_keys,
)
from dispatcher.config.sections import OidcSettings
from dispatcher.outbound.documents import DocumentClient, DocumentError
from dispatcher.runtime.clock import Clock

CACHE_SECONDS: Final = 600.0
KEYS_SECONDS_MIN: Final = 30.0
EXCHANGES_MAX: Final = 16
SECONDS_MAX: Final = 25.0
"""The bound of a whole sign-in: at most two documents and one exchange, of 10 s each, within the page's time."""
_OK: Final = 200
_URL_CHARACTERS_MAX: Final = 2_000
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Metadata(NamedTuple):
    """The addresses of the provider."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    posts_secret: bool
    """Whether the client authenticates with its secret in the form, and not in a header."""


class Provider:
    """The configured provider; used on one event loop."""

    def __init__(
        self, settings: OidcSettings, secret: str | None, documents: DocumentClient, clock: Clock
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._documents = documents
        self._clock = clock
        self._metadata: Metadata | None = None
        self._metadata_at = self._keys_at = float("-inf")
        self._keys: list[SigningKey] = []
        self._reading = asyncio.Lock()
        self._exchanges = asyncio.Semaphore(EXCHANGES_MAX)

    async def metadata(self) -> Metadata:
        """Return the provider's metadata (OpenID Connect Discovery).

        Raises:
            SignOnError: it cannot be read, or is not the configured issuer's.
        """
        async with self._reading:
            now = self._clock.monotonic()
            if self._metadata is None or now - self._metadata_at >= CACHE_SECONDS:
                url = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
                self._metadata = self._read_metadata(await self._get(url))
                self._metadata_at = now
            return self._metadata

    async def key_of(self, token: str) -> SigningKey:
        """Return the key that must have signed a token.

        Raises:
            SignOnError: the provider has no such key, or its keys cannot be read.
        """
        header, metadata = read_header(token), await self.metadata()
        async with self._reading:
            now = self._clock.monotonic()
            key = None
            if now - self._keys_at < CACHE_SECONDS:
                key = choose_key(header, self._keys)
            if key is None and now - self._keys_at >= KEYS_SECONDS_MIN:
                # Before the request: a provider that fails is not asked more often.
                self._keys_at = now
                self._keys = read_keys(await self._get(metadata.jwks_uri))
                key = choose_key(header, self._keys)
        if key is None:
            raise SignOnError("token", "the ID token is signed by an unknown key")
        return key

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> str:
        """Exchange a code for an ID token.

        Raises:
            SignOnError: the provider rejected the code, or cannot be reached.
        """
        metadata = await self.metadata()
        client_id = self._settings.client_id
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        if self._secret is None or metadata.posts_secret:
            form["client_id"] = client_id
            if self._secret is not None:
                form["client_secret"] = self._secret
        else:  # RFC 6749, 2.3.1: both are encoded as in a form before they are joined
            both = f"{quote(client_id, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(both.encode()).decode()
        async with self._exchanges:
            try:
                answer = await self._documents.post(metadata.token_endpoint, form, headers)
            except DocumentError as error:
                raise SignOnError("unavailable", f"the token endpoint: {error}") from error
        document = _object(answer.body)
        if answer.status != _OK:
            error_code = document.get("error")
            shown = error_code if isinstance(error_code, str) and error_code.isprintable() else "?"
            message = f"the token endpoint responded with {answer.status} ({shown[:64]})"
            raise SignOnError("token" if answer.status < 500 else "unavailable", message)  # noqa: PLR2004 -- server errors
        token = document.get("id_token")
        if not isinstance(token, str):
            raise SignOnError("token", "the token endpoint returned no ID token")
        return token

    async def _get(self, url: str) -> bytes:
        try:
            answer = await self._documents.get(url)
        except DocumentError as error:
            raise SignOnError("unavailable", f"{url}: {error}") from error
        if answer.status != _OK:
            raise SignOnError("unavailable", f"{url} responded with {answer.status}")
        return answer.body

    def _read_metadata(self, body: bytes) -> Metadata:
        document = _object(body)
        if document.get("issuer") != self._settings.issuer:
            raise SignOnError("unavailable", "the metadata's issuer is not oidc.issuer")
        urls = []
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            url = document.get(name)
            if not isinstance(url, str) or not self._is_usable(url):
                raise SignOnError("unavailable", f"the metadata's {name} is not an https URL")
            urls.append(url)
        challenges = document.get("code_challenge_methods_supported")
        if isinstance(challenges, list) and "S256" not in challenges:
            raise SignOnError("unavailable", "the provider does not support PKCE with S256")
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        posts = isinstance(methods, list) and "client_secret_basic" not in methods
        return Metadata(urls[0], urls[1], urls[2], posts)

    def _is_usable(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            return False
        if len(url) > _URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or not host:
            return False
        is_local = self._settings.issuer.startswith("http:") and host in _LOOPBACK
        return parts.scheme == "https" or (parts.scheme == "http" and is_local)


def _object(body: bytes) -> dict[str, object]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
