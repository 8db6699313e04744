"""Joins the producer's ledger, the receiver's log and Postgres, and counts what must not be.

    ledger (marker, event id, outcome) ──┐
    receiver (path, marker, status) ─────┼─▶ Report: lost, ghost, dup, phantom, altered, short, unrecorded
    Postgres (delivery, attempt) ────────┘

A pair is a committed event and an endpoint that was subscribed, worked out here from the test's own model and not from
the deliveries. Every figure is a list of names, so that a red test says what is wrong and not only how much of it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import orjson

from tests.support.ledger import Intent

NAMES_SHOWN = 5
UNREAD_SECONDS_MAX = 0.5
"""So long after its sender was killed the receiver may still find a request in its socket."""


class Subscriber(NamedTuple):
    """An endpoint, as the test meant it."""

    endpoint_id: str
    path: str
    profile: str = "standard"
    attempts_max: int = 8
    """What its schedule allows."""
    takes: Callable[[Intent], bool] = lambda _: True
    is_signed: bool = True


class Seen(NamedTuple):
    """A complete request at the receiver."""

    path: str
    marker: str
    event_id: str
    delivery_id: str
    sha256: str
    signature: str


class Answered(NamedTuple):
    """A status that was handed to the kernel."""

    path: str
    marker: str
    status: int
    asked_at: float = 0.0
    """When its request was complete, by the monotonic clock of the machine."""


class DeliveryFact(NamedTuple):
    """A row of the delivery view."""

    id: str
    event_id: str
    endpoint_id: str
    state: str
    reason: str | None
    attempt_count: int


class AttemptFact(NamedTuple):
    """A row of the attempt table."""

    delivery_id: str
    attempt_number: int
    outcome: str


@dataclass(kw_only=True)
class Report:
    """Every figure as the names behind it."""

    pairs: int = 0
    lost: list[str] = field(default_factory=list)
    ghost: list[str] = field(default_factory=list)
    dup: list[str] = field(default_factory=list)
    phantom: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        return {
            name: len(getattr(self, name))
            for name in ("lost", "ghost", "dup", "phantom", "altered", "short", "unrecorded")
        }

    def problems(self, **bounds: int) -> list[str]:
        """Returns each figure that is over its bound (0 unless given), with the first names behind it."""
        return [
            f"{name} {count} > {bounds.get(name, 0)}: {', '.join(getattr(self, name)[:NAMES_SHOWN])}"
            for name, count in self.figures().items()
            if count > bounds.get(name, 0)
        ]


def read_receiver(path: Path) -> tuple[list[Seen], list[Answered]]:
    """Returns what the receiver's log says."""
    seen, answered = [], []
    asked_at: dict[tuple[str, int], float] = {}
    for line in path.read_bytes().splitlines():
        entry: dict[str, Any] = orjson.loads(line)
        if entry["kind"] == "request":
            seen.append(Seen(*(entry[name] for name in Seen._fields)))
            asked_at[entry["connection"], entry["number"]] = entry["at"]
        else:
            request = (entry["connection"], entry["number"])
            answered.append(
                Answered(entry["path"], entry["marker"], entry["status"], asked_at[request])
            )
    return seen, answered


async def read_postgres(
    connection: asyncpg.Connection,
) -> tuple[list[DeliveryFact], list[AttemptFact]]:
    """Returns what the database says."""
    deliveries = await connection.fetch(
        "SELECT id, event_id, endpoint_id, state, reason, attempt_count FROM dispatcher.delivery WHERE NOT test"
    )
    attempts = await connection.fetch(
        "SELECT delivery_id, attempt_number, outcome FROM dispatcher.attempt_all"
    )
    return [DeliveryFact(*row) for row in deliveries], [AttemptFact(*row) for row in attempts]


def check(
    intents: Sequence[Intent],
    subscribers: Sequence[Subscriber],
    seen: Sequence[Seen],
    answered: Sequence[Answered],
    deliveries: Sequence[DeliveryFact],
    attempts: Sequence[AttemptFact],
) -> Report:
    """Returns every figure; `intents` have no unknown outcomes any more."""
    report = Report()
    committed = {intent.marker: intent for intent in intents if intent.outcome == "committed"}
    subscriber_of = {subscriber.path: subscriber for subscriber in subscribers}
    successes = Counter((a.path, a.marker) for a in answered if 200 <= a.status <= 299)
    requests: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for request in seen:
        requests[request.path, request.marker].append(request)
    rows = {(d.endpoint_id, d.event_id): d for d in deliveries}
    attempts_of: dict[str, list[AttemptFact]] = defaultdict(list)
    for attempt in attempts:
        attempts_of[attempt.delivery_id].append(attempt)

    for intent in committed.values():
        for subscriber in subscribers:
            if subscriber.takes(intent):
                report.pairs += 1
                pair = (subscriber.path, intent.marker)
                row = rows.get((subscriber.endpoint_id, intent.event_id))
                _judge_pair(
                    report,
                    subscriber,
                    intent,
                    row,
                    successes[pair],
                    len(requests[pair]),
                    attempts_of,
                )
    for (path, marker), same in requests.items():
        name = f"{path} {marker}"
        known = subscriber_of.get(path)
        if marker not in committed or known is None or not known.takes(committed[marker]):
            report.phantom.append(name)
            continue
        if _is_altered(same, known, committed[marker]):
            report.altered.append(name)
    for (path, marker), count in successes.items():
        report.dup.extend([f"{path} {marker}"] * (count - 1))
    return report


def repeats_without_a_kill(answered: Sequence[Answered], kills_at: Sequence[float]) -> list[str]:
    """Returns each repeat of a 2xx that has no kill of its own between the two requests.

    So a delivery is repeated once for each kill at most, and only by a kill that can have caused it.
    """
    asked: dict[tuple[str, str], list[float]] = defaultdict(list)
    for answer in answered:
        if 200 <= answer.status <= 299:
            asked[answer.path, answer.marker].append(answer.asked_at)
    unexplained = []
    for (path, marker), moments in asked.items():
        moments.sort()
        unused = sorted(kills_at)
        for first, second in pairwise(moments):
            own = [at for at in unused if first - UNREAD_SECONDS_MAX <= at <= second]
            if own:
                unused = [at for at in unused if at > own[0]]
            else:
                unexplained.append(f"{path} {marker}")
    return unexplained


def _judge_pair(
    report: Report,
    subscriber: Subscriber,
    intent: Intent,
    row: DeliveryFact | None,
    successes: int,
    requests: int,
    attempts_of: dict[str, list[AttemptFact]],
) -> None:
    name = f"{subscriber.path} {intent.marker}"
    is_open = row is None or row.state in {"pending", "retrying"}
    is_excused = row is not None and row.state in {"failed", "cancelled"} and row.reason is not None
    if is_open or (successes == 0 and not is_excused):
        report.lost.append(name)
    attempts = attempts_of[row.id] if row is not None else []
    recorded_successes = sum(attempt.outcome == "ok" for attempt in attempts)
    if row is not None and row.state == "succeeded" and successes == 0:
        report.ghost.append(name)
    report.ghost.extend([name] * max(0, recorded_successes - max(1, successes)))
    report.unrecorded.extend([name] * max(0, requests - len(attempts)))
    if row is None:
        return
    numbers = sorted(attempt.attempt_number for attempt in attempts)
    is_spent_early = (
        row.state == "failed"
        and row.reason == "schedule_spent"
        and len(attempts) < subscriber.attempts_max
    )
    if is_spent_early or numbers != list(range(1, row.attempt_count + 1)):
        report.short.append(name)


def _is_altered(same: list[Seen], subscriber: Subscriber, intent: Intent) -> bool:
    event_id = intent.event_id
    if subscriber.profile == "humansoft":
        event_id = "req_" + sha256(event_id.encode()).hexdigest()[:16]
    return (
        len({(request.sha256, request.delivery_id) for request in same}) > 1
        or any(request.event_id != event_id for request in same)
        or any(
            request.signature != ("good" if subscriber.is_signed else "none") for request in same
        )
    )
