"""Determines the origin of a request: the address that limits count by, and whether it was encrypted.

Behind a proxy every request comes from the proxy. Its headers (`X-Forwarded-For`, `X-Forwarded-Proto`)
are trusted only if `http.trusted_proxies` names its network, because any client can send them.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import web

from dispatcher.config.sections import Network

UNKNOWN: Final = "unknown"
FORWARDED_MAX: Final = 32
"""The last addresses of a header that are read; a longer chain is forged."""


def address_of(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """Return the client's address: the nearest one that is not a trusted proxy.

    An IPv6 address counts as its /64, because a client that has one of these addresses has all of them.
    """
    found = _peer(request)
    if found is None:
        return UNKNOWN
    if _is_trusted(found, trusted):
        chain = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        for text in reversed(chain[-FORWARDED_MAX:]):
            try:
                found = _plain(text.strip())
            except ValueError:
                break
            if not _is_trusted(found, trusted):
                break
    return _counted(found)


@lru_cache(maxsize=1024)
def counted_address(text: str) -> str:
    """Return a socket's address as limits count it."""
    try:
        return _counted(_plain(text))
    except ValueError:
        return UNKNOWN


def is_trusted_address(text: str, trusted: Sequence[Network]) -> bool:
    """Return whether a socket's address is a trusted proxy's."""
    if not trusted:
        return False
    try:
        return _is_trusted(_plain(text), trusted)
    except ValueError:
        return False


def is_encrypted(request: web.BaseRequest, trusted: Sequence[Network]) -> bool:
    """Return whether the request came over TLS, to this listener or to a trusted proxy."""
    if request.secure:
        return True
    peer = _peer(request)
    if peer is None or not _is_trusted(peer, trusted):
        return False
    return request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"


def is_loopback(request: web.BaseRequest, trusted: Sequence[Network]) -> bool:
    """Return whether the request came from this machine, and not through a trusted proxy."""
    peer = _peer(request)
    if peer is None or not peer.is_loopback:
        return False
    return not (_is_trusted(peer, trusted) and "X-Forwarded-For" in request.headers)


def _peer(request: web.BaseRequest) -> IPv4Address | IPv6Address | None:
    try:
        return _plain(request.remote or "")
    except ValueError:
        return None


def _plain(text: str) -> IPv4Address | IPv6Address:
    """Return an address; an IPv4-mapped IPv6 address as IPv4."""
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _counted(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
