"""The live tail as a stream of server-sent events: rows as data, which the script writes as text.

One shared poll feeds all viewers. Each viewer's batch is formatted in the viewer's language and zone. At
most the newest `ROWS_MAX` rows of a batch are sent, and the rest is counted. A viewer that reconnects
(`Last-Event-ID`) receives an event to reload the list, which has the attempts recorded in between.
Heartbeats keep proxies from closing a quiet stream. A viewer that has disconnected, or that does not
read its bytes, is dropped. The session is checked again once a minute, so that a revoked token stops
watching. A stream ends after an hour, and the browser opens another.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Final

import orjson
from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import delivery_filter, unreadable
from dispatcher.admin.console.labels import TONES, retry_count
from dispatcher.admin.console.times import NOTHING, moment
from dispatcher.admin.operations.tail import Batch
from dispatcher.admin.resources.delivery import Attempt, RecordedAttempt
from dispatcher.core.business_key import business_key
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.printable import escape

HEARTBEAT_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 1.0
"""How soon the disconnection of a viewer is noticed, so that its place is free for another one."""
WRITE_SECONDS_MAX: Final = 5.0
STREAM_SECONDS_MAX: Final = 3_600.0
SESSION_SECONDS_BETWEEN: Final = 60.0
ROWS_MAX: Final = 20
NAMES_MAX: Final = 10_000
"""Endpoint names cached for all viewers; a changed name is seen when the cache is cleared."""
BODY_CHARACTERS_MAX: Final = 120
RETRY_MILLISECONDS: Final = 3_000
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


async def tail(context: Context) -> web.StreamResponse:
    """Stream until the viewer disconnects, the session ends or the hour is over."""
    asked = delivery_filter(context)
    if asked.problems:
        raise InvalidRequestError(unreadable(asked.problems))
    async with context.operations.tail.watch(context.who, asked.query) as viewer:
        answer = web.StreamResponse(
            headers={**context.headers, "Content-Type": "text/event-stream; charset=utf-8",
                     "X-Accel-Buffering": "no"}
        )  # fmt: skip
        await answer.prepare(context.request)
        loop = asyncio.get_running_loop()
        ends_at, asks_at = loop.time() + STREAM_SECONDS_MAX, loop.time() + SESSION_SECONDS_BETWEEN
        number = _last_number(context.request.headers.get("Last-Event-ID"))
        first = f"retry: {RETRY_MILLISECONDS}\n\n"
        if number:
            first += "event: again\ndata: {}\n\n"
        with contextlib.suppress(ConnectionError, TimeoutError):
            await _write(answer, first.encode())
            beats_at = loop.time() + HEARTBEAT_SECONDS
            while loop.time() < ends_at and not _has_gone(context.request):
                batch = await viewer.next(LOOK_SECONDS)
                if loop.time() > asks_at:
                    if not await context.app.is_signed_in(context):
                        break
                    asks_at = loop.time() + SESSION_SECONDS_BETWEEN
                if batch.items:
                    number += 1
                    names = await _names(context, batch)
                    data = orjson.dumps(_batch(context, batch, names))
                    await _write(answer, b"id: %d\nevent: rows\ndata: %b\n\n" % (number, data))
                elif loop.time() > beats_at:
                    await _write(answer, b": alive\n\n")
                    beats_at = loop.time() + HEARTBEAT_SECONDS
        return answer


def _has_gone(request: web.Request) -> bool:
    """Return whether the viewer has closed the connection."""
    return request.transport is None or request.transport.is_closing()


async def _write(answer: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS_MAX):
        await answer.write(data)


def _last_number(text: str | None) -> int:
    """Return the number of the last batch that the browser has received; 0 for a first connection."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else 0


async def _names(context: Context, batch: Batch) -> Mapping[str, str]:
    """Return the endpoints' names; only those that are not cached are queried."""
    wanted = {one.delivery.endpoint_id for one in batch.items[-ROWS_MAX:]}
    known = context.app.names
    missing = [one for one in wanted if one not in known]
    if missing:
        if len(known) > NAMES_MAX:
            known.clear()
        found = await context.operations.endpoints.names(context.who, missing)
        known.update({one: name.name for one, name in found.items()})
    return known


def _batch(context: Context, batch: Batch, names: Mapping[str, str]) -> dict[str, object]:
    shown = batch.items[-ROWS_MAX:]
    left_out = batch.dropped_count + len(batch.items) - len(shown)
    note = context.text("tail.left_out", count=left_out) if left_out else None
    if batch.is_sample:
        note = context.text("tail.sample")
    return {"rows": [_row(context, one, names) for one in shown], "note": note}


def _error(attempt: Attempt) -> str:
    """Return the error of an attempt without a status code; with one, the code is enough."""
    return attempt.error or "" if attempt.response_code is None else ""


def _row(
    context: Context, item: RecordedAttempt, names: Mapping[str, str]
) -> dict[str, str | bool]:
    delivery, attempt = item.delivery, item.attempt
    at = moment(attempt.attempted_at, context.zone)
    next_at = moment(delivery.next_attempt_at, context.zone)
    code = attempt.response_code
    return {
        "fits": item.fits,
        "href": context.at(f"/deliveries/{delivery.id}"),
        "id": delivery.id,
        "at": "" if at is None else at.local,
        "machine": "" if at is None else at.machine,
        "utc": "" if at is None else at.utc,
        "endpoint_id": delivery.endpoint_id,
        "endpoint": names.get(delivery.endpoint_id, delivery.endpoint_id),
        "event_id": delivery.event_id,
        "key": escape(business_key(delivery.labels) or delivery.event_id),
        "type": delivery.event_type,
        "test": context.text("delivery.test_mark") if delivery.test else "",
        "tone": TONES[delivery.state],
        "reason": context.language.word("reason", delivery.reason) if delivery.reason else "",
        "label": context.text("delivery.select", id=delivery.id),
        "state": context.language.word("state", delivery.state),
        "code": str(code)
        if code is not None
        else context.language.word("outcome", attempt.outcome),
        "body": escape((attempt.response_body or _error(attempt))[:BODY_CHARACTERS_MAX]),
        "latency": f"{attempt.latency_seconds * 1000:.0f} {context.text('unit.ms')}",
        "retries": str(retry_count(delivery)),
        "next": next_at.local if next_at is not None else NOTHING,
    }


ROUTES: Final = (
    PageRoute("GET", "/deliveries/tail", tail, seconds=STREAM_SECONDS_MAX + 60, portal=True),
)
