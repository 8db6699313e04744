"""Requests for small documents of servers that the operator configured, such as an OpenID provider.

They use the connector of the egress guard: the name is resolved and each address is checked as for a
receiver, also at connect. Invariants: a request ends within `SECONDS_MAX`, reads at most
`DOCUMENT_BYTES_MAX`, follows no redirect, sends no cookie, uses no proxy of the environment, and leaves no
connection open. Nothing is decompressed.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import aiohttp

from dispatcher.core.errors import DispatcherError
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.tls import TlsTrust

SECONDS_MAX: Final = 10.0
DOCUMENT_BYTES_MAX: Final = 256 * 1024


class DocumentError(DispatcherError):
    """The server could not be reached, was too slow, or returned too much."""


class Document(NamedTuple):
    """The status and the body of a response."""

    status: int
    body: bytes


class DocumentClient:
    """Requests documents; used on one event loop."""

    def __init__(self, egress: Egress, trust: TlsTrust) -> None:
        self._egress = egress
        self._trust = trust

    async def get(self, url: str) -> Document:
        """Request a document.

        Raises:
            DocumentError: there is no usable response; the message contains the reason.
        """
        return await self._request("GET", url, None, {})

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Document:
        """Send a form and return the response.

        Raises:
            DocumentError: as `get`.
        """
        return await self._request("POST", url, form, headers)

    async def _request(
        self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Document:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return await self._exchange(method, url, form, headers)
        except TimeoutError:
            raise DocumentError(f"no response within {SECONDS_MAX:.0f} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DocumentError(str(error) or type(error).__name__) from error

    async def _exchange(
        self, method: str, url: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Document:
        is_tls = url.startswith("https:")
        tls = await self._trust.context() if is_tls else True
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
        async with (
            aiohttp.ClientSession(
                connector=self._egress.connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.request(
                method,
                url,
                data=form,
                headers={**sent, **headers},
                allow_redirects=False,
                ssl=tls,
            ) as response,
        ):
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > DOCUMENT_BYTES_MAX:
                    raise DocumentError(f"the response is larger than {DOCUMENT_BYTES_MAX} bytes")
            return Document(response.status, bytes(body))
