"""Records the results of attempts, and the new states of their deliveries.

An attempt, the delivery's new state and its next due time commit together, under the token that the
endpoint's shard has at that moment. A batch moves its deliveries in one statement and commits in one
transaction; repeated after an unknown commit, it changes nothing. A delivery that the statement does not
move is either fenced (another replica owns the shard) or late (it ended meanwhile). Late attempts are
recorded one by one for the ended delivery.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, cast

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from dispatcher.core import codes
from dispatcher.core.errors import StoreUnavailableError
from dispatcher.core.model import DeliveryId, DeliveryState
from dispatcher.store.attempts import ATTEMPT_COLUMNS, AttemptRow, attempt_values
from dispatcher.store.day_walk import PLAN_FOR_VALUES
from dispatcher.store.delivery_ids import delivery_ids_of, uuid_of, uuids_of
from dispatcher.store.pool import Database, columns, is_about_rows
from dispatcher.store.statements import statement

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

_RECORD = statement("delivery_record")
_RECORD_FIRST = statement("delivery_record_first")
_RECORD_LATE = statement("delivery_record_late")
_SAY_FAILED = statement("outbox_insert_failed")
_SETTLE = statement("delivery_request_settle")


class MoveRow(NamedTuple):
    """The new state of a delivery after an attempt, in the order of the statement's parameters."""

    shard: int
    delivery_id: DeliveryId
    attempt_number: int
    state: str
    reason: str | None
    schedule_position: int
    due_in_seconds: float | None


_DONE_COLUMNS = (
    *("id", "day", "event_id", "endpoint_no", "event_type_code", "state", "reason"),
    *("attempt_count", "schedule_position", "warnings"),
)
_DONE_WITH_ATTEMPT_COLUMNS = (
    *_DONE_COLUMNS,
    *("trigger", "outcome", "flags", "attempted_at", "latency_seconds", "dns_seconds"),
    *("connect_seconds", "wait_seconds", "read_seconds", "reused", "peer", "revision"),
    "response_code",
)
_NO_ATTEMPT = (None,) * (len(_DONE_WITH_ATTEMPT_COLUMNS) - len(_DONE_COLUMNS))
_ENDS = frozenset({DeliveryState.SUCCEEDED, DeliveryState.FAILED})


class Recorded(NamedTuple):
    """The deliveries of a recorded batch that were not moved."""

    fenced: frozenset[DeliveryId]
    """Not recorded, because the shard has another owner now."""
    late: frozenset[DeliveryId]
    """Those of a delivery that had ended meanwhile, or had gone on."""
    superseded: frozenset[DeliveryId] = frozenset()
    """The late ones whose attempt was not recorded: another one of its number had been."""


class Results:
    """The statements that record results: those of the recorder, and of deliveries that receivers fetch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        """Record attempts and the new states of their deliveries, element by element.

        `tokens` has the token under which each shard of the batch was held.

        Raises:
            StoreUnavailableError: the batch may or may not be recorded; retry it unchanged.
            asyncpg.PostgresError: one of the rows is invalid.
        """
        try:
            if not self._database.is_distributed and all(map(_is_plain, moves, attempts)):
                return await self._record_first(moves, attempts, tokens)
            return await self._record(moves, attempts, tokens)
        except asyncpg.PostgresError as error:
            if is_about_rows(error):
                raise
            raise StoreUnavailableError(f"results cannot be recorded: {error}") from error

    async def _record_first(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        """Record successful first attempts in one statement, and in a transaction those that it leaves."""
        code = codes.event_type_code
        async with self._database.connection() as connection:
            left = await connection.fetch(
                _RECORD_FIRST,
                list(tokens),
                list(tokens.values()),
                [
                    (
                        move.shard, uuid_of(move.delivery_id), attempt.day, attempt.event_id,
                        attempt.endpoint_no, code(attempt.event_type), move.schedule_position,
                        codes.TRIGGER_CODES[attempt.trigger],
                        codes.OUTCOME_CODES[attempt.outcome], *attempt[9:19],
                    )
                    for move, attempt in zip(moves, attempts, strict=True)
                ],
            )  # fmt: skip
        if not left:
            return Recorded(frozenset(), frozenset())
        ids = delivery_ids_of([row["delivery_id"] for row in left])
        fenced = frozenset(i for i, row in zip(ids, left, strict=True) if row["fenced"])
        rest = set(ids) - fenced
        if not rest:
            return Recorded(fenced, frozenset())
        pairs = [p for p in zip(moves, attempts, strict=True) if p[0].delivery_id in rest]
        recorded = await self._record([p[0] for p in pairs], [p[1] for p in pairs], tokens)
        return recorded._replace(fenced=fenced | recorded.fenced)

    @staticmethod
    async def _record_late(
        connection: "Reach", pairs: Sequence[tuple[MoveRow, AttemptRow]], tokens: dict[int, int]
    ) -> frozenset[DeliveryId]:
        """Record attempts on deliveries that had ended; return those that were not recorded."""
        superseded: set[DeliveryId] = set()
        await connection.execute(PLAN_FOR_VALUES)
        for move, attempt in pairs:
            is_recorded = await connection.fetchval(
                _RECORD_LATE,
                move.shard,
                tokens[move.shard],
                *attempt_values(attempt, uuid_of(move.delivery_id)),
            )
            if not is_recorded:
                superseded.add(move.delivery_id)
        return frozenset(superseded)

    async def _record(
        self, moves: Sequence[MoveRow], attempts: Sequence[AttemptRow], tokens: dict[int, int]
    ) -> Recorded:
        ids = uuids_of([move.delivery_id for move in moves])
        async with self._database.transaction() as connection:
            left = await connection.fetch(
                _RECORD,
                list(tokens),
                list(tokens.values()),
                [move.shard for move in moves],
                ids,
                [move.attempt_number for move in moves],
                [move.state in _ENDS for move in moves],
                [move.schedule_position for move in moves],
                [move.due_in_seconds for move in moves],
            )
            fenced: set[UUID] = set()
            late: set[UUID] = set()
            warnings: dict[UUID, list[str]] = {}
            for row in left:
                if row["is_moved"]:
                    warnings[row["delivery_id"]] = row["warnings"]
                elif row["fenced"]:
                    fenced.add(row["delivery_id"])
                else:
                    late.add(row["delivery_id"])
            done: list[tuple[object, ...]] = []
            apart: list[tuple[object, ...]] = []
            failed: list[tuple[object, ...]] = []
            for move, attempt, uuid in zip(moves, attempts, ids, strict=True):
                if left and (uuid in fenced or uuid in late):
                    continue
                in_done = False
                if move.state in _ENDS:
                    in_done = _fits_its_delivery(attempt)
                    done.append(_done(move, attempt, uuid, warnings.get(uuid), in_done=in_done))
                    if move.state == DeliveryState.FAILED:
                        failed.append(_failure(move, attempt))
                if not in_done:
                    apart.append(attempt_values(attempt, uuid))
            if done:
                await connection.copy_records_to_table(
                    "delivery_done",
                    schema_name="dispatcher",
                    columns=_DONE_WITH_ATTEMPT_COLUMNS,
                    records=done,
                )
            if apart:
                await connection.copy_records_to_table(
                    "attempt", schema_name="dispatcher", columns=ATTEMPT_COLUMNS, records=apart
                )
            if failed:
                await connection.execute(_SAY_FAILED, *columns(failed, 8))
            superseded: frozenset[DeliveryId] = frozenset()
            if late:
                rows = zip(moves, attempts, ids, strict=True)
                pairs = [(move, attempt) for move, attempt, uuid in rows if uuid in late]
                superseded = await self._record_late(connection, pairs, tokens)
            return Recorded(
                frozenset(delivery_ids_of(list(fenced))),
                frozenset(delivery_ids_of(list(late))),
                superseded,
            )

    async def settle_requests(self, attempts: Sequence[tuple[DeliveryId, datetime, bool]]) -> None:
        """Delete the resend requests that these attempts (id, attempted at, succeeded) have carried out."""
        ids, attempted_at, succeeded = columns(attempts, 3)
        await self._database.execute(
            _SETTLE, uuids_of(cast("list[str]", ids)), attempted_at, succeeded
        )


def _fits_its_delivery(attempt: AttemptRow) -> bool:
    """Return whether the attempt is part of its delivery's row rather than a row of its own."""
    return (
        attempt.attempt_number == 1
        and attempt.response_body is None
        and attempt.response_headers is None
        and attempt.error is None
    )


def _is_plain(move: MoveRow, attempt: AttemptRow) -> bool:
    """Return whether the result is a success without anything unusual."""
    return (
        move.state == DeliveryState.SUCCEEDED
        and attempt.flags is None
        and _fits_its_delivery(attempt)
    )


def _done(
    move: MoveRow,
    attempt: AttemptRow,
    uuid: UUID,
    warnings: list[str] | None,
    *,
    in_done: bool,
) -> tuple[object, ...]:
    """Return the row of a delivery that ended, with its attempt if `in_done`, without it otherwise."""
    return (
        uuid,
        attempt.day,
        attempt.event_id,
        attempt.endpoint_no,
        codes.event_type_code(attempt.event_type),
        codes.STATE_CODES[move.state],
        codes.reason_code(move.reason),
        attempt.attempt_number,
        move.schedule_position,
        warnings,
        *(
            (
                codes.TRIGGER_CODES[attempt.trigger],
                codes.OUTCOME_CODES[attempt.outcome],
                *attempt[8:19],
            )
            if in_done
            else _NO_ATTEMPT
        ),
    )


def _failure(move: MoveRow, attempt: AttemptRow) -> tuple[object, ...]:
    """Return the facts for the event about a failed delivery, in the order of the statement's parameters."""
    return (
        attempt.delivery_id,
        attempt.event_id,
        attempt.event_type,
        attempt.endpoint_no,
        move.reason,
        attempt.attempt_number,
        attempt.outcome,
        attempt.response_code,
    )
