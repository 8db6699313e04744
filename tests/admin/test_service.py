"""How the API behaves as a service: limits, an absent database, its own description, its headers."""

import asyncio
import subprocess
import sys
import threading

import asyncpg
import pytest

from dispatcher.admin.api import body, docs
from dispatcher.cli.session import deployment_of
from dispatcher.config.settings_reader import load_settings
from dispatcher.store.pool import Database
from tests.admin.conftest import environment
from tests.admin.serving import served

pytestmark = pytest.mark.postgres


async def test_a_token_that_asks_too_often_is_told_when_to_come_back(database):
    pool = Database(database, connections_max=2)
    await pool.open()
    environ = environment(database) | {"DISPATCHER_HTTP__REQUESTS_PER_SECOND": "1"}
    try:
        async with served(deployment_of(load_settings(None, environ), pool)) as api:
            replies = [await api.ask("GET", "/event-types") for _ in range(4)]
            assert [reply.status for reply in replies[:2]] == [200, 200]
            refused = replies[-1]
            assert refused.status == 429
            assert refused.headers["Retry-After"] == "1"
            assert (await api.ask("GET", "//livez")).status == 200
    finally:
        await pool.close()


async def test_an_absent_database_is_503_and_no_hang(api, deployment):
    token = await api.token_of("viewer")
    assert (await api.ask("GET", "/endpoints", token=token)).status == 200
    await deployment.database.close()
    for known in (token, None):
        refused = await api.ask("GET", "/endpoints", token=known)
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["Content-Type"] == "application/problem+json"


async def test_an_error_of_ours_is_500_and_tells_nothing(api, monkeypatch):
    async def fails(*_: object, **__: object) -> None:
        raise asyncpg.PostgresError("secret words of the database")

    monkeypatch.setattr(type(api.operations.events), "show", fails)
    refused = await api.ask("GET", "/events/x")
    assert refused.status == 500
    assert b"secret" not in refused.raw


async def test_the_description_needs_no_token_and_nothing_from_elsewhere(api):
    for path, kind in (
        ("//openapi.json", "application/json"),
        ("//docs", "text/html"),
        ("//docs/docs.css", "text/css"),
    ):
        reply = await api.ask("GET", path, token="")
        assert reply.status == 200
        assert reply.headers["Content-Type"].startswith(kind)
        assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert b"<script" not in reply.raw
        assert b"style=" not in reply.raw
        assert (
            b"//" not in reply.raw.replace(b"https://erp.example.com", b"") or kind != "text/html"
        )


async def test_the_description_is_made_once_with_the_first_request(api, monkeypatch):
    threads: list[int] = []

    def make(make=docs._make):
        threads.append(threading.get_ident())
        return make()

    monkeypatch.setattr(docs, "_make", make)
    async with asyncio.TaskGroup() as group:
        for path in ("//docs", "//openapi.json", "//docs"):
            group.create_task(api.ask("GET", path, token=""))
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()  # the loop goes on meanwhile


def test_the_thread_that_makes_the_description_completes_no_model():
    """A completion replaces parts of a model, which another thread may be using."""
    code = (
        "from pydantic import BaseModel\n"
        "from dispatcher.admin.api import docs, route_table\n"
        "def below(model):\n"
        "    for one in model.__subclasses__(): yield one; yield from below(one)\n"
        "def incomplete(): return {one for one in below(BaseModel) if not one.__pydantic_complete__}\n"
        "before = incomplete()\n"
        "for model in docs.models_to_complete(): model.model_rebuild()\n"
        "completed = incomplete(); docs._make()\n"
        "assert before > completed == incomplete()"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


async def test_answers_are_guessed_by_nobody_and_kept_by_nobody(api):
    for path in ("/endpoints", "/nothing", "//livez"):
        headers = (await api.ask("GET", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] == "dispatcher"


async def test_a_wrong_token_is_challenged(api):
    missing = await api.ask("GET", "/endpoints", token="")
    wrong = await api.ask("GET", "/endpoints", token="dsp_wrong")  # noqa: S106 -- a wrong one
    basic = await api.ask("GET", "/endpoints", headers={"Authorization": "Basic eDp5"})
    assert [one.status for one in (missing, wrong, basic)] == [401, 401, 401]
    assert missing.headers["WWW-Authenticate"] == 'Bearer realm="dispatcher"'
    assert 'error="invalid_token"' in wrong.headers["WWW-Authenticate"]


async def test_a_body_that_drips_ends_with_408(api, monkeypatch):
    monkeypatch.setattr(body, "READ_SECONDS_MAX", 0.2)
    port = int(api.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.token}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{{".encode())
    try:
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
