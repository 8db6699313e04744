"""Delivery ids and attempts for tests that write rows of their own (words.sql)."""

from datetime import date
from typing import Any

from dispatcher.core import ids
from dispatcher.core.model import DeliveryId
from dispatcher.runtime.clock import SystemClock
from dispatcher.store.attempts import AttemptRow

_NOW = SystemClock.now()
_UNIX_MS = ids.delivery_unix_ms(_NOW, _NOW.date())


def wh(number: int, *, event_id: str | None = None, endpoint_id: str = "ep") -> DeliveryId:
    """Returns the id of a delivery of today; of two, the one with the higher number sorts later."""
    return ids.delivery_id(_UNIX_MS + number, event_id or f"evt{number}", endpoint_id)


def attempt_row(day: date, delivery_id: str, event_id: str, **changes: Any) -> AttemptRow:
    """Returns a first attempt that succeeded, to the first endpoint; `changes` by name."""
    row = AttemptRow(
        day=day,
        event_id=event_id,
        event_type="a.b",
        endpoint_no=1,
        delivery_id=DeliveryId(delivery_id),
        attempt_number=1,
        trigger="scheduled",
        outcome="ok",
        flags=None,
        attempted_at=SystemClock.now(),
        latency_seconds=0.1,
        dns_seconds=None,
        connect_seconds=None,
        wait_seconds=0.1,
        read_seconds=0.0,
        reused=True,
        peer="127.0.0.1",
        revision=1,
        response_code=200,
        response_body=None,
        error=None,
        response_headers=None,
    )
    return row._replace(**changes)
