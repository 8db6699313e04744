"""Limit the file descriptors of requests, so that the listener and the database always have some.

The kernel assigns the lowest free number. A socket to a receiver with a number of the reserved range
is closed at once, so only other users get that range: Postgres, the admin listener, the resolver,
files. Nothing is counted and nothing can leak. At most as many attempts are in flight as fit below
the range; further deliveries wait in their lanes at no cost.

Invariant: the reserved range is at most a quarter of the limit, so a small limit slows deliveries
down but stops none. The limit is read once, at start.
"""

import resource
from typing import Final, NamedTuple

# Standard streams, the loop, signals, the resolver, the listening socket: 15 were found open in an idle daemon.
_OPEN_ANYWAY: Final = 24
# Connections of API, console, LISTEN and a test event, files of a reload, a second address family while connecting.
_SPARE: Final = 32


class Descriptors(NamedTuple):
    """The division of this process's file descriptors."""

    limit: int
    """The effective RLIMIT_NOFILE."""
    first_kept: int
    """Sockets to receivers have numbers below this."""
    connections_max: int
    """Busy and idle connections that fit below, in addition to the descriptors that are always open."""
    sockets_max: int
    """Attempts that may be in flight: the smaller of the available descriptors and the setting."""
    needed: int
    """The limit that would fit all attempts that the settings allow."""

    @property
    def warning(self) -> str | None:
        """The message if the limit is too small for the settings, with the fix."""
        if self.limit >= self.needed:
            return None
        return (
            f"the limit of file descriptors is {self.limit}: {self.sockets_max} requests fit at a time, fewer than"
            f" delivery.concurrency_total; raise it to {self.needed} (LimitNOFILE, ulimit -n) or lower the setting"
        )


def share_out(
    limit: int, *, concurrency_total: int, pool_size: int, listener_connections: int
) -> Descriptors:
    """Return the division for these settings under a limit of `limit` descriptors."""
    kept = pool_size + listener_connections + _SPARE
    needed = concurrency_total + pool_size + _OPEN_ANYWAY + kept
    # The full reserve is kept only if everything fits; otherwise a quarter, and deliveries get the rest.
    first_kept = limit - (kept if limit >= needed else min(kept, limit // 4))
    below = max(1, first_kept - _OPEN_ANYWAY - pool_size)
    return Descriptors(limit, first_kept, below, min(concurrency_total, below), needed)


def limit_in_force() -> int:
    """Return the descriptor limit of this process; a large number if there is none."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 - 1 if soft == resource.RLIM_INFINITY else soft
