"""Where a request came from: the address that limits count by, and whether it was encrypted.

Behind a proxy every request comes from the proxy. Its word is taken (`X-Forwarded-For`,
`X-Forwarded-Proto`) only where `http.trusted_proxies` names its network: anybody can write such a
header.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import web

from dispatcher.config.sections import Network

UNKNOWN: Final = "unknown"
FORWARDED_MAX: Final = 32
"""Addresses of one header that are looked at; a longer chain is made up."""


def address_of(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """Return the address of whoever asks: the nearest one that is no trusted proxy.

    Of IPv6 the /64 counts, since whoever has one address there has all of them.
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
    """Return what an address of a socket counts as."""
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
    """Return whether it came over TLS, to us or to a trusted proxy."""
    if request.secure:
        return True
    peer = _peer(request)
    if peer is None or not _is_trusted(peer, trusted):
        return False
    return request.headers.get("X-Forwarded-Proto", "").strip().lower() == "https"


def is_loopback(request: web.BaseRequest, trusted: Sequence[Network]) -> bool:
    """Return whether it came from this machine, and not on behalf of another one."""
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
    """Return an address; an IPv4 one that was written as IPv6 is IPv4."""
    address = ip_address(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _counted(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return str(address)


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
