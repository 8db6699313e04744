"""Determines which endpoints this replica sends for: a lease on the process, and shards held under it.

Endpoints are divided into shards (`limits.SHARDS_COUNT`) by their row. A replica renews its lease by the
database's clock and holds shards. If the lease of a shard's owner has ended, any replica may claim the
shard, which increments its token. The recorder's statement refuses a result under an older token. A replica
that was frozen, cut off or slow can therefore write no result after another has taken over.

Invariants: only monotonic local time counts, from just before the request of the renewal, and no request is
started once `trusted_seconds` of it have passed. A lost lease stops new requests and is claimed again; it
never ends the process. Each start is a new incarnation. If a replica finds a living lease under its own
name, it watches for longer than a renewal interval. If the lease is not renewed, it is left over from a
crash and is expired, so that a restart resumes within seconds. Otherwise a second process has the same
name, and this one joins as one more replica. An incarnation identifies its process. If that process has
provably ended on this host, its lease is expired without the watch. A frozen process has not ended.

With several replicas, each claims its fair share, and releases excess shards once they have no request in
flight.
"""

import asyncio
import random
import secrets
from collections.abc import Callable
from typing import NamedTuple

import structlog

from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.limits import SHARDS_COUNT
from dispatcher.delivery.inventory import Inventory
from dispatcher.delivery.ports import LeaseStore
from dispatcher.runtime import identity, probe
from dispatcher.runtime.backoff import Outage
from dispatcher.runtime.clock import Clock
from dispatcher.telemetry.metrics import Metrics

_log = structlog.get_logger("dispatcher.delivery.shards")

TRUSTED_SHARE = 0.8
"""The share of a lease after which no request is started."""
NAMESAKE_SECONDS = 2.5
PROMPTED_SECONDS_MIN = 0.05
"""Minimum interval of prompted renewals, because any role can notify as often as it likes."""
COMPANY_SECONDS = 30.0
"""How long after its last lease another replica's transactions may still commit."""


def new_incarnation(name: str) -> str:
    """Return a unique name for this start, which identifies its process to later starts."""
    return f"{name[:40]}-{secrets.token_hex(8)}@{identity.mark()}"


def _has_ended(incarnation: str) -> bool:
    return identity.is_gone(incarnation.rpartition("@")[2])


class Replica(NamedTuple):
    """The identity of this process among the replicas."""

    name: str
    incarnation: str
    version: str


class Shards:
    """This replica's lease and shards; `run` is the only writer."""

    def __init__(
        self,
        leases: LeaseStore,
        inventory: Inventory,
        replica: Replica,
        *,
        metrics: Metrics,
        clock: Clock,
        lease_seconds: float,
        renew_seconds: float,
    ) -> None:
        self._leases = leases
        self._inventory = inventory
        self._name, self._incarnation, self._version = replica
        self._metrics = metrics
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._renew_seconds = renew_seconds
        self._trusted_seconds = lease_seconds * TRUSTED_SHARE
        self._trusted_until = 0.0
        self._stopping = asyncio.Event()
        self.outage = Outage(_log, "lease.stalled", "lease.renewed")
        self._woken = asyncio.Event()
        self.tokens: dict[int, int] = {}
        """The shards of this replica, with their tokens."""
        self.leaving: set[int] = set()
        """Shards that are being released; no new request is sent for them."""
        self._others_seen_at = float("-inf")
        self._joins_count: int | None = None
        """How often replicas had joined when this one last read it."""
        self.changed: Callable[[], None] = lambda: None
        """Called when the shards to send for have changed, so that the lanes are updated."""

    def has_company(self) -> bool:
        """Return whether other replicas fan out, or did recently, and may create deliveries for our endpoints."""
        return self._clock.monotonic() - self._others_seen_at < COMPANY_SECONDS

    def follow_joins(self, count: int) -> None:
        """Note that another replica has joined if replicas have joined more often than this one knows."""
        if count != self._joins_count:
            self._joins_count = count
            self._others_seen_at = self._clock.monotonic()
            probe.hit("shards.company_noticed")

    def is_trusted(self) -> bool:
        """Return whether requests may be started; called immediately before each."""
        return self._clock.monotonic() < self._trusted_until

    def stop(self) -> None:
        """End `run`; the lease is kept until `leave`."""
        self._stopping.set()
        self._woken.set()

    def poll_now(self) -> None:
        """Renew at once, because another replica released shards. A hint; the next renewal sees them anyway."""
        self._woken.set()

    async def run(self) -> None:
        """Join, renew the lease, and balance the shards until stopped."""
        joined = False
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                if not joined:
                    await self._watch_namesakes()
                    await self._join()
                joined = await self._renew()
                self.outage.ended()
            except StoreUnavailableError as error:
                self.outage.began(error)
            seconds = self._renew_seconds * random.uniform(0.8, 1.0) if joined else 0.2  # noqa: S311 -- no secret
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                continue
            if not self._stopping.is_set():
                await asyncio.sleep(PROMPTED_SECONDS_MIN)

    async def _join(self) -> None:
        number = await self._leases.join(
            self._incarnation, self._name, self._version, self._lease_seconds
        )
        if self._joins_count is None or number == self._joins_count + 1:
            self._joins_count = number
        else:
            self.follow_joins(number)  # another one joined before this one joined again

    async def _watch_namesakes(self) -> None:
        """Expire the lease that a crash of this replica left, so that its shards are free at once."""
        seen = await self._leases.namesakes(self._name, self._incarnation)
        if not all(_has_ended(incarnation) for incarnation, _ in seen):
            try:
                async with asyncio.timeout(NAMESAKE_SECONDS):
                    await self._stopping.wait()
            except TimeoutError:
                pass
        for incarnation, renewed_at in seen:
            if await self._leases.expire(incarnation, renewed_at):
                # Its last transaction may still commit, and create deliveries of ours without a notification.
                self._others_seen_at = self._clock.monotonic()
                _log.info("lease.taken_over", name=self._name, incarnation=incarnation)
            else:
                _log.warning("lease.name_rejected", name=self._name, incarnation=incarnation)

    async def _renew(self) -> bool:
        """Renew the lease and apply the shards that it holds now; return whether it was renewed."""
        asked_at = self._clock.monotonic()
        renewal = await self._leases.renew(self._incarnation, self._lease_seconds)
        if renewal is None:
            self._follow({})
            return False
        if renewal.others_count:
            self._others_seen_at = self._clock.monotonic()
        tokens = renewal.tokens
        share = -(-SHARDS_COUNT // (renewal.others_count + 1))
        if len(tokens) < share and renewal.free_count:
            tokens = tokens | await self._leases.take(self._incarnation, share - len(tokens))
        if len(tokens) > share and renewal.others_count:
            tokens = await self._give_back(tokens, len(tokens) - share)
            kept = False
        else:
            kept = any(shard in tokens for shard in self.leaving)
            self.leaving.clear()
        self._trusted_until = asked_at + self._trusted_seconds
        self._follow(tokens, anew=kept)
        return True

    async def _give_back(self, tokens: dict[int, int], count: int) -> dict[int, int]:
        """Stop sending for the shards above the fair share, and release those without requests in flight."""
        self.leaving = set(sorted(tokens)[-count:])
        self.changed()
        quiet = [shard for shard in self.leaving if self._inventory.is_quiet(shard)]
        if quiet:
            await self._leases.release(self._incarnation, quiet)
        return {shard: token for shard, token in tokens.items() if shard not in quiet}

    def _follow(self, tokens: dict[int, int], *, anew: bool = False) -> None:
        """Apply the shards that are held now; `anew`: shards that were to be released are kept."""
        lost = [
            shard
            for shard, token in self.tokens.items()
            if tokens.get(shard) != token and shard not in self.leaving
        ]
        if lost:
            self._metrics.leases_lost.inc(len(lost))
            _log.warning("lease.lost", shards=len(lost))
        changed = anew or tokens != self.tokens
        self.tokens = tokens
        if changed:
            self.changed()
            probe.hit("shards.changed", count=len(tokens))

    def held(self) -> dict[int, int]:
        """Return the shards to send for, with their tokens."""
        return {shard: token for shard, token in self.tokens.items() if shard not in self.leaving}

    async def leave(self) -> None:
        """Release all shards and the lease, so that another replica or the next start can claim them at once."""
        self._trusted_until = 0.0
        try:
            await self._leases.release(self._incarnation, list(self.tokens))
            await self._leases.leave(self._incarnation)
        except StoreUnavailableError as error:
            _log.warning("lease.release_failed", error=str(error))
        self.tokens = {}
