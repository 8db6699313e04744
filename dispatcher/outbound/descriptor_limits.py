"""Which file descriptors requests may use, so that they starve neither the listener nor the database.

The kernel gives the lowest free number. A socket to a receiver that gets a number of the kept range
is closed again at once, so that range is only ever used by others: Postgres, the admin listener,
the resolver, files. Nothing is counted and nothing can leak. As many attempts as fit below it are
in flight at most; what is beyond that waits in its lane and costs nothing.

What is always true: the kept range is a quarter of the limit at most, so a small limit slows
deliveries down and stops none. The limit is read once, at start, as the process found it.
"""

import resource
from typing import Final, NamedTuple

# Standard streams, the loop, signals, the resolver, the listening socket: 15 were found open in an idle daemon.
_OPEN_ANYWAY: Final = 24
# Connections of API, console, LISTEN and a test event, files of a reload, a second address family while connecting.
_SPARE: Final = 32


class Descriptors(NamedTuple):
    """How the descriptors of this process are shared out."""

    limit: int
    """RLIMIT_NOFILE as it is in force."""
    first_kept: int
    """Sockets to receivers have numbers below this."""
    connections_max: int
    """So many of them fit below, beside what is open anyway: busy and idle ones."""
    sockets_max: int
    """So many attempts may be in flight: what fits, and what the settings allow."""
    needed: int
    """With this limit all attempts that the settings allow would fit."""

    @property
    def warning(self) -> str | None:
        """Says that the limit is too small for the settings, and what to do."""
        if self.limit >= self.needed:
            return None
        return (
            f"the limit of file descriptors is {self.limit}: {self.sockets_max} requests fit at a time, fewer than"
            f" delivery.concurrency_total; raise it to {self.needed} (LimitNOFILE, ulimit -n) or lower the setting"
        )


def share_out(
    limit: int, *, concurrency_total: int, pool_size: int, listener_connections: int
) -> Descriptors:
    """Returns the shares for these settings under a limit of `limit` descriptors."""
    kept = pool_size + listener_connections + _SPARE
    needed = concurrency_total + pool_size + _OPEN_ANYWAY + kept
    # Only where all fits is the whole of it kept; else a quarter, and deliveries get the rest.
    first_kept = limit - (kept if limit >= needed else min(kept, limit // 4))
    below = max(1, first_kept - _OPEN_ANYWAY - pool_size)
    return Descriptors(limit, first_kept, below, min(concurrency_total, below), needed)


def limit_in_force() -> int:
    """Returns how many descriptors this process may have; a large number where there is no bound."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 - 1 if soft == resource.RLIM_INFINITY else soft
