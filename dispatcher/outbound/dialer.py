"""Open connections, only to addresses that the policy allows.

What it is. aiohttp's stock `TCPConnector` opens connections (happy eyeballs, TLS). Two layers around it
check the address: the resolver denies a name if one of its addresses is denied, and the socket factory
checks the final numeric address of every connect, literal hosts included, and creates no socket for a
denied one. The checked address is the dialled address, so a name that resolves differently in between
gains nothing (A4).

`connect()` gets a substitute for aiohttp's request. The second and third argument of that method are not
documented by aiohttp, so `self_test.py` opens one loopback connection at start, and the version is pinned.
Only `Egress.open` depends on this: to replace the connector, replace that function.

Invariants. No error message contains an address that a name resolved to, because tenants read the
messages and the addresses may be internal. `Dial.address` has it, for logs and operators. Proxies,
cookies, .netrc and environment variables are not used. A failed open raises the message and the
outcome of the attempt. Running out of descriptors, buffers or ports is not an outcome but a
`LocalResourceError`.

Limits. `open` has no deadline: its caller cancels it, and `Dial` records its progress.
"""

import asyncio
import contextvars
import errno
import math
import os
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import BlockedAddressError, DispatcherError
from dispatcher.core.model import Outcome
from dispatcher.outbound.resolver import ADDRESSES_MAX, NameLookupError, Resolver
from dispatcher.outbound.tls import TlsTrust, distrust_reason

_HAPPY_EYEBALLS_SECONDS: Final = 0.25
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, ceil_threshold=math.inf)
_LOCAL_SHORTAGES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
)
HUNG_UP_EARLY: Final = "the receiver closed the connection before it was asked"
SPOKE_EARLY: Final = "the receiver speaks before it is asked: it is no HTTP server"


class ConnectFailedError(DispatcherError):
    """A connection could not be opened; has the attempt's outcome and message."""

    def __init__(self, outcome: Outcome, text: str, *, rule: str | None = None) -> None:
        """Set `rule` if an address rule denied the connection."""
        self.outcome = outcome
        self.rule = rule
        super().__init__(text)


class TooEarlyError(ConnectFailedError):
    """The receiver sent bytes or closed before the request; another connection may work."""


class LocalResourceError(DispatcherError):
    """This machine lacks a resource, so no attempt was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address to connect to: a host as in the canonical URL, and its TLS settings."""

    host: str
    port: int
    tls: ssl.SSLContext | TlsTrust | None = None
    server_hostname: str | None = None
    """The name to send and to verify over TLS; None means `host`."""


class Dial:
    """The progress of one open; written by `open` and the guard, read by the caller with the deadline."""

    __slots__ = (
        "_is_tls",
        "_sockets",
        "address",
        "dns_seconds",
        "local_errno",
        "rule",
        "started_at",
    )

    def __init__(self, started_at: float, *, is_tls: bool) -> None:
        self.started_at = started_at
        self.dns_seconds: float | None = None
        self.address: str | None = None
        self.rule: str | None = None
        self.local_errno: int | None = None
        self._is_tls = is_tls
        self._sockets: list[socket.socket] = []

    def dials(self, made: socket.socket, address: str) -> None:
        """Record a socket that is about to connect."""
        self.address = address
        self._sockets.append(made)

    def standing(self) -> str:
        """Return a message about the step that has not finished."""
        if self.address is None:
            return "the name was not resolved"
        if self._is_tls and any(map(_is_connected, self._sockets)):
            return "the receiver did not finish the TLS handshake"
        return "the receiver did not accept a connection"


def _is_connected(made: socket.socket) -> bool:
    try:
        made.getpeername()
    except OSError:
        return False
    return True


class Opened(NamedTuple):
    """An open connection that the policy allowed, still with the opener's protocol."""

    transport: asyncio.Transport
    release: Callable[[Exception | None], None]
    """Call it once, when the connection is lost, with the argument of `connection_lost`."""


class _Key(NamedTuple):
    """The connector's key of a connection; it never pools the dispatcher's connections."""

    host: str
    port: int
    is_ssl: bool
    ssl: ssl.SSLContext | bool


class _Host(NamedTuple):
    raw_host: str


class _Request:
    """A substitute for aiohttp's ClientRequest with the attributes that `connect()` reads."""

    __slots__ = ("connection_key", "port", "proxy", "server_hostname", "ssl", "url")

    def __init__(self, address: Address, tls: ssl.SSLContext | None) -> None:
        self.ssl: ssl.SSLContext | bool = tls if tls is not None else True
        self.connection_key = _Key(address.host, address.port, address.tls is not None, self.ssl)
        self.url = _Host(address.host)
        self.port = address.port
        self.proxy = None
        self.server_hostname = address.server_hostname

    def is_ssl(self) -> bool:
        return self.connection_key.is_ssl


# The current open of this context; tasks that aiohttp starts for it inherit it.
_dial: contextvars.ContextVar[Dial | None] = contextvars.ContextVar("dial", default=None)


class Egress:
    """Opens all outgoing HTTP connections; one instance per process."""

    def __init__(
        self,
        policy: AddressPolicy,
        resolver: Resolver | None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        first_kept_descriptor: int | None = None,
    ) -> None:
        """Create the connector; needs the running loop, as aiohttp does.

        `policy` may be replaced; the pool then drops idle connections. Without a resolver, only
        literal addresses can be opened. No socket keeps a descriptor from `first_kept_descriptor`
        on, because those are reserved for the listener and the database.
        """
        self.policy = policy
        self._first_kept_descriptor = first_kept_descriptor
        self._resolver = resolver
        self._monotonic = monotonic
        self._connector = aiohttp.TCPConnector(
            limit=0,
            use_dns_cache=False,
            resolver=_JudgingResolver(self, resolver, monotonic),
            socket_factory=self._make_socket,
            happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS,
        )

    @property
    def connector(self) -> aiohttp.TCPConnector:
        """The connector behind the guard, for clients of aiohttp that must not bypass it."""
        return self._connector

    async def open(self, address: Address, dial: Dial) -> Opened:
        """Open one connection, including TLS.

        Raises:
            ConnectFailedError: it cannot be opened, or the policy denies it.
            LocalResourceError: this machine lacks a resource at the moment.
        """
        _dial.set(dial)
        tls = await _context_of(address.tls)
        try:
            held = await self._connector.connect(
                cast("aiohttp.ClientRequest", _Request(address, tls)), [], _NO_TIMEOUT
            )
        except Exception as fault:
            # aiohttp also raises AssertionError and ValueError from here (seen in its tracker).
            raise _explained(fault, dial, is_tls=address.tls is not None) from fault
        transport, handler = held.transport, held.protocol
        if transport is None or handler is None or transport.is_closing():
            held.close()
            raise TooEarlyError(Outcome.CONNECT_ERROR, HUNG_UP_EARLY)
        if handler.should_close:
            held.close()
            raise TooEarlyError(Outcome.PROTOCOL_ERROR, SPOKE_EARLY)

        def release(exc: Exception | None) -> None:
            # The connector's own close() waits until its protocol is notified of the end.
            handler.connection_lost(exc)
            held.close()

        opened = Opened(transport, release)
        # The policy may have changed while this connection was being opened.
        peer = transport.get_extra_info("peername")[0]
        rule = self.policy.denying_rule(peer, address.port)
        if rule is not None:
            transport.abort()
            held.close()
            dial.address, dial.rule = peer, rule
            raise _blocked(dial)
        return opened

    async def aclose(self) -> None:
        """Close the connector and the resolver, after all connections are closed."""
        await self._connector.close()
        if self._resolver is not None:
            await self._resolver.aclose()

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Create the socket for one connect, unless the policy denies the address."""
        family, kind, protocol, _, (host, port, *_rest) = info
        dial = _dial.get()
        rule = self.policy.denying_rule(host, port)
        if rule is not None:
            if dial is not None:
                dial.address, dial.rule = host, rule
            # An OSError: any other type leaves aiohappyeyeballs as an IndexError (measured).
            raise BlockedAddressError(host, rule)
        try:
            made = self._take_descriptor(family, kind, protocol)
        except OSError as fault:
            if dial is not None:
                dial.local_errno = fault.errno
            raise
        if dial is not None:
            dial.dials(made, host)
        return made

    def _take_descriptor(self, family: int, kind: int, protocol: int) -> socket.socket:
        """Create a socket. The kernel assigns the lowest free number, so a reserved one means that no other is free."""
        made = socket.socket(family, kind, protocol)
        if self._first_kept_descriptor is not None and made.fileno() >= self._first_kept_descriptor:
            made.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return made


class _JudgingResolver(AbstractResolver):
    """The connector's resolver: the cache, then the policy; one denied address denies the name."""

    def __init__(
        self, egress: Egress, resolver: Resolver | None, monotonic: Callable[[], float]
    ) -> None:
        self._egress = egress
        self._resolver = resolver
        self._monotonic = monotonic

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 -- aiohttp's signature
    ) -> list[ResolveResult]:
        if self._resolver is None:
            raise NameLookupError("there is no resolver")
        dial = _dial.get()
        began_at = self._monotonic()
        addresses = await self._resolver.look_up(host)
        if dial is not None:
            dial.dns_seconds = self._monotonic() - began_at
        for address in addresses:
            rule = self._egress.policy.denying_rule(address, port)
            if rule is not None:
                if dial is not None:
                    dial.address, dial.rule = address, rule
                raise BlockedAddressError(address, rule)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses[:ADDRESSES_MAX]
        ]

    async def close(self) -> None:
        """Do nothing: the owner closes the cache."""


async def _context_of(tls: ssl.SSLContext | TlsTrust | None) -> ssl.SSLContext | None:
    if not isinstance(tls, TlsTrust):
        return tls
    try:
        return await tls.context()
    except OSError as fault:
        if fault.errno in _LOCAL_SHORTAGES:
            raise LocalResourceError(_reason(fault)) from fault
        text = f"the certificates that this endpoint trusts cannot be used: {_reason(fault)}"
        raise ConnectFailedError(Outcome.TLS_ERROR, text) from fault


def _explained(fault: Exception, dial: Dial, *, is_tls: bool) -> DispatcherError:
    """Convert the connector's exception into the outcome and message of the attempt."""
    if dial.rule is not None:
        return _blocked(dial)
    cause = fault.os_error if isinstance(fault, aiohttp.ClientConnectorError) else fault
    number = cause.errno if isinstance(cause, OSError) else None
    if dial.local_errno is not None or _is_local(number, dial):
        return LocalResourceError(_reason(cause))
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return ConnectFailedError(Outcome.DNS_ERROR, f"the name was not resolved: {_reason(cause)}")
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        return ConnectFailedError(
            Outcome.TLS_ERROR,
            f"the certificate is not trusted: {_reason(fault.certificate_error)}",
        )
    if isinstance(fault, aiohttp.ClientSSLError | ssl.SSLError):
        return ConnectFailedError(Outcome.TLS_ERROR, f"TLS failed: {_reason(cause)}")
    if isinstance(fault, aiohttp.InvalidURL):
        # A numeric host in a non-canonical spelling: it was never checked, so it is never dialled.
        dial.address, dial.rule = str(fault.url), "unreadable"
        return _blocked(dial)
    if is_tls and isinstance(cause, ConnectionResetError | ConnectionAbortedError):
        return ConnectFailedError(
            Outcome.TLS_ERROR, "the receiver closed the connection during the TLS handshake"
        )
    return ConnectFailedError(
        Outcome.CONNECT_ERROR, f"the receiver cannot be reached: {_reason(cause)}"
    )


def _blocked(dial: Dial) -> ConnectFailedError:
    text = f"the receiver's address is denied by the address policy ({dial.rule})"
    return ConnectFailedError(Outcome.BLOCKED_ADDRESS, text, rule=dial.rule)


def _is_local(number: int | None, dial: Dial) -> bool:
    # For IPv4 this is "no local port left"; for IPv6 it is "no IPv6 here", which is no shortage.
    if number == errno.EADDRNOTAVAIL:
        return dial.address is not None and ":" not in dial.address
    return number in _LOCAL_SHORTAGES


def _reason(fault: BaseException) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        return distrust_reason(fault)
    if isinstance(fault, OSError) and not isinstance(fault, NameLookupError | ssl.SSLError):
        return _os_reason(fault)
    return str(fault) or type(fault).__name__


def _os_reason(fault: OSError) -> str:
    """Return the system's message for an error, without the address that asyncio adds."""
    numbers = [fault.errno] if fault.errno else re.findall(r"\[Errno ([0-9]+)\]", str(fault))
    texts = dict.fromkeys(os.strerror(int(number)) for number in numbers)
    return "; ".join(texts) or type(fault).__name__
