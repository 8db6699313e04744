"""Who may send for whom: replicas' leases and the shards they hold, all by the database's clock."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from dispatcher.store.pool import Database
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_JOIN = statement("replica_join")
_NAMESAKES = statement("replica_namesakes")
_EXPIRE = statement("replica_expire")
_RENEW = statement("replica_renew")
_LEAVE = statement("replica_leave")
_TAKE = statement("shard_claim")
_RELEASE = statement("shard_release")
_COUNT = statement("replica_count")
_WITHOUT_KEY = statement("replica_list_without_key")
_SYSTEM_REPLICAS = statement("replica_list")


class Renewal(NamedTuple):
    """The result of renewing a lease."""

    others_count: int
    """Other replicas whose lease runs."""
    tokens: dict[int, int]
    """Shard to token, of the shards that are ours."""
    free_count: int
    """Shards without a living owner."""


class ReplicaRow(NamedTuple):
    """A living replica and what it has in memory; `figures` is empty until it published them."""

    incarnation: str
    name: str
    version: str
    started_at: datetime
    expires_at: datetime
    renewed_seconds_ago: float
    shards_count: int
    figures_at: datetime | None
    figures: dict[str, Any]


class Leases:
    """The replica's and the shards' rows."""

    def __init__(self, database: Database, key_ids: Iterable[str] = ()) -> None:
        """`key_ids` are those of the keys of this replica; it publishes them."""
        self._database = database
        self._key_ids = sorted(key_ids)

    async def join(self, incarnation: str, name: str, version: str, lease_seconds: float) -> int:
        """Insert this incarnation, if it is not there; return the number of its join."""
        number: int = await self._database.fetch_value(
            _JOIN, incarnation, name, version, lease_seconds, self._key_ids
        )
        return number

    async def namesakes(self, name: str, incarnation: str) -> list[tuple[str, datetime]]:
        """Return other living incarnations under this name, and when each last renewed its lease."""
        return [
            (row[0], row[1]) for row in await self._database.fetch(_NAMESAKES, name, incarnation)
        ]

    async def expire(self, incarnation: str, renewed_at: datetime) -> bool:
        """Expire an incarnation that has not renewed its lease since; return whether that was so."""
        return await self._database.fetch_value(_EXPIRE, incarnation, renewed_at) is not None

    async def renew(self, incarnation: str, lease_seconds: float) -> Renewal | None:
        """Renew the lease; None if the incarnation has expired and has to join again."""
        row = await self._database.fetch_row(_RENEW, incarnation, lease_seconds)
        if row is None:
            return None
        return Renewal(
            row["others"], dict(zip(row["shards"], row["tokens"], strict=True)), row["free"]
        )

    async def take(self, incarnation: str, shards_max: int) -> dict[int, int]:
        """Claim shards without a living owner; return shard to token."""
        rows = await self._database.fetch(_TAKE, incarnation, shards_max)
        return {row["shard"]: row["token"] for row in rows}

    async def release(self, incarnation: str, shards: Sequence[int]) -> None:
        """Release shards."""
        await self._database.execute(_RELEASE, incarnation, list(shards))

    async def leave(self, incarnation: str) -> None:
        """Delete the incarnation's row."""
        await self._database.execute(_LEAVE, incarnation)


async def replicas_alive(connection: "Reach") -> int:
    """Return how many dispatchers hold a lease."""
    return int(await connection.fetchval(_COUNT))


async def replicas_without_key(connection: "Reach | Database", key_id: str) -> list[str]:
    """Return the names of living replicas that have not published this key."""
    return [row["name"] for row in await connection.fetch(_WITHOUT_KEY, key_id)]


async def read_replicas(connection: "Reach") -> list[ReplicaRow]:
    """Return the living replicas."""
    return [
        ReplicaRow._make((*row[:8], orjson.loads(row["figures"] or "{}")))
        for row in await connection.fetch(_SYSTEM_REPLICAS)
    ]
