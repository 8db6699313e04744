"""Commands that go on until they are stopped: `listen --endpoint` and `delivery list --watch`, next to a daemon."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

SECONDS_MAX = 30.0


class Running:
    """A command that is running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def reads(self, stream: asyncio.StreamReader | None, part: str) -> str:
        """Return the next line that contains a text."""
        assert stream is not None
        async with asyncio.timeout(SECONDS_MAX):
            async for line in stream:
                if part in line.decode():
                    return line.decode().strip()
        raise AssertionError(f"it ended without {part!r}")

    async def out(self, part: str) -> str:
        return await self.reads(self.process.stdout, part)

    async def err(self, part: str) -> str:
        return await self.reads(self.process.stderr, part)

    async def ended(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(SECONDS_MAX):
            return await self.process.wait()


@asynccontextmanager
async def running(environ: dict[str, str], *arguments: str) -> AsyncIterator[Running]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher", *arguments, env=environ, stdout=pipe, stderr=pipe
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def names(sql: Any) -> list[str]:
    rows = await sql.fetch("SELECT name FROM dispatcher.endpoint WHERE deleted_at IS NULL")
    return [row["name"] for row in rows]


async def publish(sql: Any, event_type: str = "order.created") -> str:
    return str(
        await sql.fetchval(
            "INSERT INTO dispatcher.outbox (type, data) VALUES ($1, '{}') RETURNING id", event_type
        )
    )


async def test_listen_as_an_endpoint_receives_and_deletes_it(bench, sql):
    daemon = await bench.daemon().started()
    environ = {**daemon.environ, "DISPATCHER_HOME": "/nonexistent"}
    listen = ("listen", "--port", "0", "--endpoint", "laptop", "--event-types", "order.*")

    async with running(environ, *listen) as first:
        secret = await first.err("secret: ")
        assert await names(sql) == ["laptop"]
        async with running(environ, *listen) as second:
            assert "is running already" in await second.err("dispatcher:")
            assert await second.ended() == 1
        async with running(environ, "delivery", "list", "--watch", "-o", "json") as watch:
            event_id = await publish(sql)
            assert (await first.out("POST / ")).endswith("200 valid")
            seen = orjson.loads(await watch.out('"succeeded"'))
            assert (seen["event_id"], seen["event_type"]) == (event_id, "order.created")
            await publish(sql, "stock.changed")
            assert await watch.ended(signal.SIGINT) == 0
        first.process.kill()  # as a crash: the endpoint stays
        await first.process.wait()
    assert await names(sql) == ["laptop"]

    of_another_machine = (
        "UPDATE dispatcher.endpoint SET headers = jsonb_set(headers, '{X-Dispatcher-Listen}', $1)"
    )
    mark = await sql.fetchval("SELECT headers->'X-Dispatcher-Listen' FROM dispatcher.endpoint")
    await sql.execute(of_another_machine, '"elsewhere/1"')
    async with running(environ, *listen) as refused:
        assert "is running already (elsewhere/1)" in await refused.err("dispatcher:")
        assert await refused.ended() == 1
    await sql.execute(of_another_machine, mark)

    async with running(environ, *listen) as third:
        await third.err("took over the endpoint laptop")
        assert await third.err("secret: ") == secret
        waiting = await publish(sql)
        while waiting not in await third.out("{"):
            pass
        assert await third.ended(signal.SIGTERM) == 0
    assert await names(sql) == []


async def test_listen_never_takes_a_persons_endpoint(bench, sql):
    environ = {**bench.daemon().environ, "DISPATCHER_HOME": "/nonexistent"}
    create = (
        "endpoint",
        "create",
        "--name",
        "ERP",
        "--url",
        "https://example.com/",
        "--event-types",
        "*",
    )
    async with running(environ, *create) as made:
        assert await made.ended() == 0
    async with running(environ, "listen", "--port", "0", "--endpoint", "ERP") as listen:
        assert "already has an endpoint named" in await listen.err("dispatcher:")
        assert await listen.ended() == 1
    url = await sql.fetchval("SELECT url FROM dispatcher.endpoint WHERE deleted_at IS NULL")
    assert url == "https://example.com/"
