"""Access tokens: one request for all that wait, a refresh before the end, and failures that name their reason."""

import asyncio
from typing import Any

import orjson
import pytest

from dispatcher.core.credentials import AccessGranted, OAuthGrant, read_token
from dispatcher.core.secret import Secret
from dispatcher.outbound.access_tokens import FAILED_SECONDS, AccessTokens
from dispatcher.outbound.documents import Document, DocumentError

GRANT = OAuthGrant("https://auth.test/token", "id:1", Secret("s+cret &"), "a b")


class Server:
    """A token endpoint that responds when it is let go."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False
        self.lifetime: object = 100

    async def post(self, _url: str, form: Any, headers: Any) -> Document:
        self.forms.append(dict(form))
        self.headers.append(dict(headers))
        await self.go.wait()
        if self.fails:
            raise DocumentError("connection refused")
        body = {"access_token": f"t{len(self.forms)}", "expires_in": self.lifetime}
        return Document(200, orjson.dumps(body))


class Clock:
    now = 0.0


def tokens_of(server: Server, clock: Clock, tasks: list[asyncio.Task[None]]) -> AccessTokens:
    def spawn(coroutine: Any) -> asyncio.Task[None]:
        tasks.append(asyncio.ensure_future(coroutine))
        return tasks[-1]

    documents: Any = server
    return AccessTokens(GRANT, documents, spawn=spawn, monotonic=lambda: clock.now)


async def test_fetch_many_callers_share_one_request():
    server, tasks = Server(), list[asyncio.Task[None]]()
    tokens = tokens_of(server, Clock(), tasks)
    assert tokens.current() is None
    server.go.clear()
    waiting = [asyncio.ensure_future(tokens.fetch()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    server.go.set()
    await asyncio.wait(waiting)
    assert {one.result() for one in waiting[1:]} == {AccessGranted("t1", 100.0)}
    assert server.forms == [{"grant_type": "client_credentials", "scope": "a b"}]
    assert server.headers == [{"Authorization": "Basic aWQlM0ExOnMlMkJjcmV0KyUyNg=="}]
    assert tokens.current() == "t1"


async def test_current_refreshes_before_the_end_and_never_after_it():
    server, clock, tasks = Server(), Clock(), list[asyncio.Task[None]]()
    tokens = tokens_of(server, clock, tasks)
    await tokens.fetch()
    clock.now = 79.0
    assert tokens.current() == "t1"
    assert len(server.forms) == 1
    clock.now = 81.0
    assert [tokens.current() for _ in range(3)] == ["t1"] * 3
    await asyncio.wait(tasks)
    assert (len(server.forms), tokens.current()) == (2, "t2")
    clock.now = 300.0
    assert tokens.current() is None
    tokens.reject("t1")
    await tokens.fetch()
    tokens.reject("t3")
    assert tokens.current() is None


async def test_failure_is_shared_for_a_second_and_then_tried_again():
    server, clock, tasks = Server(), Clock(), list[asyncio.Task[None]]()
    server.fails = True
    tokens = tokens_of(server, clock, tasks)
    failure = await tokens.fetch()
    assert failure == "the token endpoint cannot be used: connection refused"
    assert await tokens.fetch() == failure
    assert len(server.forms) == 1
    clock.now = FAILED_SECONDS
    server.fails = False
    assert await tokens.fetch() == AccessGranted("t2", 100.0)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"access_token":"a.b","expires_in":"60"}', AccessGranted("a.b", 60.0)),
        (200, b'{"access_token":"a","expires_in":1e99}', AccessGranted("a", 86_400.0)),
        (200, b'{"access_token":"a","expires_in":-1}', AccessGranted("a", 300.0)),
        (200, b'{"access_token":"a","token_type":"BEARER"}', AccessGranted("a", 300.0)),
        (200, b'{"access_token":"a","token_type":"mac"}', "another type"),
        (200, b'{"access_token":"a\\r\\nX: y"}', "no usable access_token"),
        (200, b'{"access_token":""}', "no usable access_token"),
        (200, b"[1]", "no usable access_token"),
        (200, b"<html>", "no usable access_token"),
        (401, b'{"error":"invalid_client"}', "401 (invalid_client)"),
        (500, b'{"error":"s+cret <&"}', "500"),
        (302, b"", "302"),
    ],
)
def test_read_token_takes_a_bearer_token_or_names_the_reason(
    status: int, body: bytes, expected: AccessGranted | str
):
    found = read_token(status, body)
    if isinstance(expected, str):
        assert isinstance(found, str)
        assert expected in found
        assert "s+cret" not in found
    else:
        assert found == expected
