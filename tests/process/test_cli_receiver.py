"""The receiver of `listen` and `dev`: verdicts, repeats, and misbehaviour as told."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from dispatcher.dev import receiver as module
from dispatcher.dev.receiver import Behaviour, Receiver, ReceiverRoute

SECRET = "a-secret-of-wms"  # noqa: S105 -- made up
OTHER = "another-secret"
Start = Callable[..., Awaitable[tuple[Receiver, str]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    receivers = []

    async def make(
        behaviour: Behaviour | None = None, secrets: list[str] | None = None
    ) -> tuple[Receiver, str]:
        receiver = Receiver(
            ReceiverRoute(secrets=secrets or [], behaviour=behaviour or Behaviour())
        )
        receivers.append(receiver)
        return receiver, f"http://127.0.0.1:{await receiver.start()}/hook"

    yield make
    for receiver in receivers:
        await receiver.stop()


async def post(
    url: str, body: bytes = b'{"id":"evt_1"}', *, secret: str = SECRET
) -> tuple[int, str | None, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-WMS-Signature": f"sha256={digest}"}
    async with (
        aiohttp.ClientSession() as client,
        client.post(url, data=body, headers=headers) as answer,
    ):
        return answer.status, answer.headers.get("Retry-After"), await answer.text()


async def test_it_knows_the_format_by_its_header_and_refuses_a_wrong_signature(start: Start):
    receiver, url = await start(secrets=[SECRET])
    assert (await post(url))[0] == 200
    assert (await post(url, secret=OTHER))[0] == 401
    assert [one.profile for one in receiver.received] == ["wms", "wms"]
    assert [one.verdict.split(":")[0] for one in receiver.received] == ["valid", "wrong_secret"]
    assert receiver.invalid_count == 1


async def test_it_tells_repeats(start: Start):
    receiver, url = await start()
    for body in (b'{"id":"a"}', b'{"id":"b"}', b'{"id":"a"}'):
        await post(url, body)
    assert [one.is_repeat for one in receiver.received] == [False, False, True]


async def test_it_fails_at_first_and_then_recovers(start: Start):
    _, url = await start(Behaviour(fail_first=2, retry_after="7"))
    assert [(await post(url))[:2] for _ in range(3)] == [(503, "7"), (503, "7"), (200, None)]


async def test_it_answers_what_it_is_told_to_even_drop_by_drop(start: Start):
    _, url = await start(Behaviour(status=410, drip_seconds=0.02))
    assert await post(url) == (410, None, "this receiver answers 410\n")


async def test_it_cuts_the_connection_after_a_stall(start: Start):
    _, url = await start(Behaviour(stall_seconds=0.01))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await post(url)


async def test_it_passes_requests_on_and_answers_as_that_server_does(start: Start):
    behind, target = await start(Behaviour(status=422), secrets=[SECRET])
    _, url = await start(Behaviour(forward_to=target))
    assert (await post(url))[0] == 422
    assert behind.received[0].verdict == "valid"
    assert (await post((await start(Behaviour(forward_to="http://127.0.0.1:1/")))[1]))[0] == 502


async def test_what_it_keeps_is_bounded(start: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "KEPT_IDS_MAX", 2)
    receiver, url = await start()
    for number in (1, 2, 3, 1):
        await post(url, b'{"id":"%d"}' % number)
    assert not receiver.received[-1].is_repeat
    await post(url, b"x" * 100_000)
    assert len(receiver.received[-1].body) == module.KEPT_BODY_BYTES_MAX
    assert receiver.received[-1].body_bytes == 100_000
    assert receiver.received.maxlen == module.KEPT_REQUESTS_MAX


async def test_waiting_for_requests_ends_when_they_have_come(start: Start):
    receiver, url = await start()
    waiting = asyncio.ensure_future(receiver.wait_for(2))
    await post(url)
    assert not waiting.done()
    await post(url)
    await waiting
