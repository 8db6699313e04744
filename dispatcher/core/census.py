"""Which tenants wait in a backlog of the outbox, so that a claim can serve them in turns.

A claim takes the oldest events. If one tenant has inserted 200,000 rows, the next event of another
tenant is the 200,001st, and waits for all of them. While a backlog exists, the census therefore
knows the positions of each tenant's waiting events and picks from them round-robin.

Tenants without an endpoint have the one name `""`: producers choose the tenant, and each of 20,000
invented tenants would otherwise have a turn of its own.

The census is a hint. A position that it names may have been claimed by another replica, and an event
that it does not know is claimed when it is the oldest. Nothing of it survives a crash, and nothing
has to. Without a backlog there is no census and no statement that fills it.

Commits come out of order, so each scan begins where the scans of half a second ago ended, and the
census starts again from the oldest event every few seconds. Scans leave out the tenant whose event is
the oldest, since the claim by position serves it: collecting its positions would cost 15 times as much
as passing over them. The census keeps at most `POSITIONS_MAX` positions of `TENANTS_MAX` tenants
(about 12 MB); the rest is claimed in the order of position.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

POSITIONS_MAX: Final = 200_000
POSITIONS_PER_TENANT_MAX: Final = 10_000
TENANTS_MAX: Final = 20_000
TRAIL_SECONDS: Final = 0.5
"""Most transactions commit within this time of their INSERT."""
RESTART_SECONDS_MIN: Final = 5.0
RESTART_COST_SHARE: Final = 0.02
"""A scan of the whole backlog may take this share of the time."""
IDLE_SECONDS: Final = 1.0
"""A census that was not used for so long belongs to an earlier backlog."""
LEFT_MAX: Final = 10_000
_NEVER: Final = 2**63 - 1
"""Beyond every position: nothing is scanned twice yet."""


class Pick(NamedTuple):
    """Events to claim out of order."""

    tenants: dict[int, str]
    """Whose event has each position, in the order of turns."""
    per_tenant_max: int
    """The largest number of events that one tenant has among them."""


class Census:
    """The waiting events of one replica's view, by tenant; times are monotonic seconds."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[int]] = {}
        self._turns: deque[str] = deque()
        self._count = 0
        self._oldest_tenant: str | None = None
        self._left_out: str | None = None
        self._claimed_to = 0
        self._since = self._next_since = _NEVER
        self._reached = 0
        self._older: set[int] = set()
        self._newer: set[int] = set()
        self._trailed_at = self._used_at = self._restarts_at = self._began_at = float("-inf")
        self._scan_seconds = 0.0
        self._left: set[int] = set()

    def scan_from(self, now: float) -> int:
        """Return the position after which to scan: occasionally the whole backlog, otherwise only new events."""
        is_idle = now - self._used_at > IDLE_SECONDS
        self._used_at = now
        if is_idle:
            self._since = self._next_since = _NEVER
            self._trailed_at = now
        elif now - self._trailed_at >= TRAIL_SECONDS:
            self._since, self._next_since = self._next_since, self._reached
            self._older, self._newer = self._newer, set()
            self._trailed_at = now
        if is_idle or now >= self._restarts_at:
            self._restart(now)
        elif self._left_out != self._oldest_tenant:  # its events are waiting for a turn now
            self._restarts_at = min(self._restarts_at, self._began_at + self._affordable_seconds())
        return max(min(self._since, self._reached), self._claimed_to)

    def _restart(self, now: float) -> None:
        self._waiting.clear()
        self._turns.clear()
        self._count = 0
        self._reached = self._claimed_to
        self._older, self._newer = set(), set()
        self._began_at = now
        self._restarts_at = now + RESTART_SECONDS_MIN
        self._scan_seconds = 0.0
        self._left_out = self._oldest_tenant

    def _affordable_seconds(self) -> float:
        """Return how long after the last scan of everything the next may begin."""
        return self._scan_seconds / RESTART_COST_SHARE

    def left_out(self) -> list[str]:
        """Return the tenants whose events a scan need not return."""
        full = [
            tenant
            for tenant, positions in self._waiting.items()
            if len(positions) >= POSITIONS_PER_TENANT_MAX
        ]
        return full if self._left_out is None else [self._left_out, *full]

    def scanned(
        self, positions_by_tenant: Mapping[str, Sequence[int]], reached: int, seconds: float
    ) -> None:
        """Add the events that a scan found, each tenant's in the order of position."""
        self._scan_seconds += seconds
        self._restarts_at = max(self._restarts_at, self._began_at + self._affordable_seconds())
        self._reached = max(self._reached, reached)
        trail = min(self._since, self._next_since)
        for tenant, positions in positions_by_tenant.items():
            queue = self._waiting.get(tenant)
            if queue is None:
                if len(self._waiting) >= TENANTS_MAX:
                    continue
                queue = self._waiting[tenant] = deque()
                self._turns.append(tenant)
            room = min(POSITIONS_PER_TENANT_MAX, POSITIONS_MAX // len(self._waiting)) - len(queue)
            for position in positions:
                if room <= 0 or self._count >= POSITIONS_MAX:
                    break
                if position in self._newer or position in self._older or position in self._left:
                    continue
                queue.append(position)
                if position > trail:
                    self._newer.add(position)
                self._count += 1
                room -= 1

    def pick(self, count: int) -> Pick:
        """Remove and return up to `count` events, one of each tenant a turn.

        The tenant whose event is the oldest has no part in it: the claim by position serves it.
        """
        picked: dict[int, str] = {}
        shares: Counter[str] = Counter()
        aside: str | None = None
        while self._turns and len(picked) < count:
            tenant = self._turns.popleft()
            if tenant == self._oldest_tenant:
                aside = tenant
                continue
            queue = self._waiting[tenant]
            while queue and queue[0] <= self._claimed_to:
                queue.popleft()
                self._count -= 1
            if not queue:
                del self._waiting[tenant]
                continue
            picked[queue.popleft()] = tenant
            self._count -= 1
            shares[tenant] += 1
            self._turns.append(tenant)
        if aside is not None:
            self._turns.append(aside)
        return Pick(picked, max(shares.values(), default=0))

    def put_back(self, tenants: dict[int, str]) -> None:
        """Add picked events again that a claim had no room for; they are the next of their tenants."""
        for position, tenant in reversed(tenants.items()):
            queue = self._waiting.get(tenant)
            if queue is None:
                queue = self._waiting[tenant] = deque()
                self._turns.append(tenant)
            queue.appendleft(position)
            self._count += 1

    def claimed(self, oldest_tenant: str, last_position: int) -> None:
        """Note a committed claim of the oldest events: whose was the first, and the last position."""
        self._oldest_tenant = oldest_tenant
        self._claimed_to = max(self._claimed_to, last_position)

    def leave(self, position: int) -> None:
        """Exclude a position for as long as this process runs: it is claimed when it is the oldest."""
        if len(self._left) >= LEFT_MAX:
            self._left.clear()
        self._left.add(position)

    def forget(self) -> None:
        """Forget everything, after a claim of unknown outcome."""
        left = self._left
        Census.__init__(self)
        self._left = left
