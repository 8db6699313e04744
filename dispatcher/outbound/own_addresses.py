"""The addresses that no endpoint may reach: those of the dispatcher's listeners and of the database.

A request to one of them would come from inside, where a database or a proxy may trust it. Every form
of a database URL counts, with several hosts, `host=`, `hostaddr=`, lists of ports and the variables of
libpq; `config.database_url` parses them for the connections as well, so the two cannot disagree.

Names are resolved by the system, as the driver does it, at start and every `RESOLVE_SECONDS`. A name
that cannot be resolved keeps the addresses that it had.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from dispatcher.config.settings import Settings
from dispatcher.core.addresses import AddressPolicy

# A failover by DNS moves the database within minutes; its records live for 5 to 60 s.
RESOLVE_SECONDS: Final = 15.0
# A name that has never been resolved protects nothing yet.
UNRESOLVED_SECONDS: Final = 1.0
_EVERY_LOOPBACK: Final = "0.0.0.0"  # noqa: S104 -- the policy denies the port on each loopback address

Place = tuple[str, int]
"""A name, an address or an unspecified address, and a port."""


class OwnAddresses:
    """The places of these settings and the addresses that they had when they were last resolved."""

    def __init__(self, settings: Settings) -> None:
        self._places = _places(settings)
        self._known: dict[Place, tuple[Place, ...]] = {}

    def resolve(self) -> list[Place]:
        """Return every numeric address and port. Blocks for as long as the system's resolver takes."""
        for place in self._places:
            found = _resolved(*place)
            if found:
                self._known[place] = found
        return list(dict.fromkeys(one for found in self._known.values() for one in found))

    @property
    def unresolved(self) -> list[str]:
        """The names that have never been resolved."""
        return [host for host, port in self._places if (host, port) not in self._known]

    async def follow(
        self,
        policy: AddressPolicy,
        changed: Callable[[], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep the policy up to date for as long as the process lives; `changed` is called after a change."""
        seconds = UNRESOLVED_SECONDS
        while True:
            seconds = min(2 * seconds, RESOLVE_SECONDS) if self.unresolved else RESOLVE_SECONDS
            await pause(seconds)
            if policy.protect(await asyncio.to_thread(self.resolve)):
                changed()


def protected_addresses(settings: Settings) -> list[Place]:
    """Return the addresses and ports that no endpoint may reach, as they are now."""
    return OwnAddresses(settings).resolve()


def _places(settings: Settings) -> list[Place]:
    http = settings.http
    places = [(http.host, http.port), (http.host, http.probe_port)]
    places += settings.database_addresses()
    for source in (settings.database_source(), settings.listen_source()):
        # A server behind a Unix socket usually listens on this machine's loopback addresses too.
        places += [
            (_EVERY_LOOPBACK, server.port)
            for server in (source.first.hosts if source else ())
            if server.is_socket or not (server.host or server.address)
        ]
    return [(host, port) for host, port in dict.fromkeys(places) if port]


def _resolved(host: str, port: int) -> tuple[Place, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys((str(info[4][0]).partition("%")[0], port) for info in found))
