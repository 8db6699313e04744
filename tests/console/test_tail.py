"""The live tail: rows in the viewer's words, nobody else's, heartbeats, and an end for whoever has gone."""

import asyncio
from typing import Any, Self

import orjson
import pytest

from dispatcher.admin.operations import tail as source
from dispatcher.admin.resources.delivery import RecordedAttempt
from tests.console.conftest import ALL, Client, Served
from tests.support.daemon import until
from tests.support.endpoints import create_endpoint
from tests.support.resources import make_attempt, make_delivery

pytestmark = pytest.mark.postgres


def batch(tenant: str = "default", **changes: Any) -> RecordedAttempt:
    """Return what the shared poll distributes: a delivery and its attempt."""
    delivery = make_delivery(tenant=tenant, **changes)
    attempt = make_attempt(response_body="<b>no</b>", latency_seconds=0.0471)
    return RecordedAttempt(delivery=delivery, attempt=attempt)


class Stream:
    """Reads one viewer's events."""

    def __init__(self, client: Client, **headers: str) -> None:
        self._client = client
        self._headers = {"Accept-Language": "th", **headers}

    async def __aenter__(self) -> Self:
        self._answer = await self._client.session.get(
            self._client.base + "/deliveries/tail", headers=self._headers
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._answer.close()

    @property
    def status(self) -> int:
        return self._answer.status

    async def until(self, start: bytes) -> bytes:
        """Returns the first line that begins so."""
        async with asyncio.timeout(10):
            while True:
                line = await self._answer.content.readline()
                assert line, "the stream has ended"
                if line.startswith(start):
                    return line.removeprefix(start).strip()


async def viewers(served: Served, count: int) -> list[source.Viewer]:
    """Waits until so many watch."""
    watching = served.operations.tail._viewers

    async def so_many() -> bool:
        return len(watching) == count

    await until(so_many, seconds=10, what=f"{count} viewers")
    return list(watching)


async def test_rows_come_in_the_viewers_words_with_the_endpoints_name(
    served: Served, admin: Client
) -> None:
    made = await create_endpoint(
        served.operations.endpoints,
        ALL,
        {"name": "erp", "url": "https://example.com/", "event_types": ["*"]},
    )
    async with Stream(admin) as stream:
        assert stream.status == 200
        (viewer,) = await viewers(served, 1)
        viewer.put(batch(endpoint_id=made.id))
        sent = orjson.loads(await stream.until(b"data:"))
    (row,) = sent["rows"]
    assert row["endpoint"] == "erp"
    assert row["state"] == "รอลองใหม่"
    assert (row["code"], row["retries"], row["latency"]) == ("500", "1", "47 ms")
    assert row["body"] == "<b>no</b>"
    assert (row["key"], row["fits"]) == ("evt_1", True)
    assert sent["note"] is None
    await viewers(served, 0)


async def test_a_flood_is_cut_and_counted(served: Served, admin: Client) -> None:
    async with Stream(admin) as stream:
        await stream.until(b"retry:")
        (viewer,) = await viewers(served, 1)
        for number in range(600):
            viewer.put(batch(id=f"wh_{number}"))
        sent = orjson.loads(await stream.until(b"data:"))
    assert len(sent["rows"]) == 20
    assert sent["rows"][-1]["id"] == "wh_599"
    assert "580" in sent["note"]


async def test_a_viewer_who_comes_back_is_told_to_read_the_list_anew(
    served: Served, admin: Client
) -> None:
    async with Stream(admin, **{"Last-Event-ID": "7"}) as stream:
        assert await stream.until(b"event:") == b"again"
        (viewer,) = await viewers(served, 1)
        viewer.put(batch())
        assert await stream.until(b"id:") == b"8"


async def test_a_quiet_stream_beats_and_ends_with_its_session(
    served: Served, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.admin.console.pages.tail.HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr("dispatcher.admin.console.pages.tail.SESSION_SECONDS_BETWEEN", 0.0)
    async with Stream(admin) as stream:
        await stream.until(b": alive")
        csrf = (await admin.get("/preferences")).hidden("csrf")
        assert (await admin.post("/sign-out", {"csrf": csrf})).status == 303
        with pytest.raises(AssertionError, match="ended"):
            await stream.until(b"nothing")
    await viewers(served, 0)


async def test_nobody_watches_without_a_session_or_beyond_the_bound(
    served: Served, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await served.client().get("/deliveries/tail")).status == 303
    monkeypatch.setattr(source, "VIEWERS_MAX", 1)
    async with Stream(admin):
        await viewers(served, 1)
        second = await admin.get("/deliveries/tail")
        assert second.status == 429
        assert second.headers["Retry-After"]
    await viewers(served, 0)
