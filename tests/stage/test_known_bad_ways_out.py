"""The controls of A3, A6-A9, A24, R15, R17, R23, R24: a way out that is wrong in one point reaches too far, or waits.

Each plays one name server or receiver against the known-bad way and against ours; counted is what the
receiver saw, or the time.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.model import Outcome
from dispatcher.core.url import canonical_url
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.pool import Connections, Target
from dispatcher.outbound.resolver import AresLookup, Resolver, ThreadedLookup
from dispatcher.outbound.tls import make_tls_context
from tests.support.certificates import Authority
from tests.support.fake_dns import Answerer, FakeDns, Reply
from tests.support.pace import within
from tests.support.raw_receiver import OK, RawReceiver, answering
from tests.support.sending import Sender, spawn

QUICK_SECONDS_MAX = 0.2


@asynccontextmanager
async def named_by(answerer: Answerer, policy: AddressPolicy) -> AsyncIterator[Sender]:
    """A sender of ours whose names come from a fake name server."""
    async with FakeDns(answerer) as dns:
        lookup = AresLookup([dns.address])
        egress = Egress(policy, Resolver(lookup, spawn=spawn, monotonic=time.monotonic))
        pool = Connections(egress, spawn=spawn)
        try:
            yield Sender(egress, pool)
        finally:
            await pool.aclose()
            await egress.aclose()


class Fixed(AbstractResolver):
    """Resolves every name to the addresses that a rule leaves of these."""

    def __init__(self, *addresses: str, keeps: AddressPolicy | None = None) -> None:
        self._addresses = addresses
        self._keeps = keeps

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
            if self._keeps is None or self._keeps.denying_rule(address, port) is None
        ]

    async def close(self) -> None:
        """Holds nothing."""


async def post(
    url: str, *, connector: aiohttp.BaseConnector | None = None, trust_env: bool = False
) -> int:
    """Posts with aiohttp's own session."""
    async with (
        aiohttp.ClientSession(connector=connector, trust_env=trust_env) as session,
        session.post(url, data=b"{}") as response,
    ):
        await response.read()
        return response.status


async def test_a3_control_keeping_the_allowed_answers_lets_the_name_through(policy: AddressPolicy):
    answers = ("10.0.0.1", "127.0.0.1")
    async with RawReceiver(answering(OK)) as receiver:
        connector = aiohttp.TCPConnector(resolver=Fixed(*answers, keeps=policy))
        await post(f"http://mixed.test:{receiver.port}/", connector=connector)
        assert receiver.connection_count == 1
        async with named_by(lambda _name, _kind: Reply(answers), policy) as sender:
            ours = await sender.answer(Target("http", "mixed.test", receiver.port))
        assert ours.outcome is Outcome.BLOCKED_ADDRESS
        assert receiver.connection_count == 1


DENIED_HOSTS = {"127.0.0.1", "localhost", "evil.test", "0.0.0.0"}  # noqa: S104 -- what is denied
READ_DIFFERENTLY = [
    "http://１２７.0.0.1/",  # noqa: RUF001 -- the odd characters are what is tested
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://127．0．0．1/",  # noqa: RUF001 -- the same
]


def test_a6_control_checking_one_url_and_sending_another_is_not_denied():
    """Counted: URLs whose host the check allowed, and whose host the client then reads as a denied one."""
    reached = {"theirs": 0, "ours": 0}
    for text in READ_DIFFERENTLY:
        checked = urlsplit(text).hostname
        assert checked not in DENIED_HOSTS
        reached["theirs"] += yarl.URL(text).host in DENIED_HOSTS
        with contextlib.suppress(InvalidRequestError):
            reached["ours"] += canonical_url(text, https_only=False).host in DENIED_HOSTS
    assert reached["ours"] == 0
    assert reached["theirs"] >= 2, "the control no longer fails: the row has lost its meaning"


async def test_a7_control_allow_list_asked_first_reaches_our_own_listener(
    sender: Sender,
):
    class AllowedFirst(AddressPolicy):
        def denying_rule(self, ip: str, port: int) -> str | None:
            if any(ip_address(ip) in network for network in self.allow_networks):
                return None
            return AddressPolicy.denying_rule(self, ip, port)

    async with RawReceiver(answering(OK)) as receiver:
        target = Target("http", "127.0.0.1", receiver.port)
        for kind, count in ((AllowedFirst, 1), (AddressPolicy, 1)):
            sender.egress.policy = kind.parse(
                allow_networks=["127.0.0.0/8"],
                allow_ports=["1024-65535"],
                deny_endpoints=[("127.0.0.1", receiver.port)],
            )
            await sender.answer(target)
            sender.pool.drop()
            assert receiver.connection_count == count, kind


async def test_a8_control_a_client_that_trusts_the_environment_tells_the_proxy(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
):
    async with RawReceiver(answering(OK)) as receiver, RawReceiver(answering(OK)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        await post(f"http://127.0.0.1:{receiver.port}/", trust_env=True)
        assert (receiver.connection_count, proxy.connection_count) == (0, 1)
        await sender.answer(Target("http", "127.0.0.1", receiver.port))
        assert (receiver.connection_count, proxy.connection_count) == (1, 1)


def test_a9_control_unvalidated_list_opens_metadata_silently():
    everything = ["0.0.0.0/0"]
    ours = AddressPolicy.parse(allow_networks=everything)
    metadata = ["169.254.169.254", "169.254.170.2", "168.63.129.16"]
    opened = [one for one in metadata if any(ip_address(one) in ip_network(n) for n in everything)]
    assert opened == metadata
    assert [one for one in metadata if ours.denying_rule(one, 80) is None] == []
    assert ours.warnings


async def test_a24_control_test_event_with_its_own_client_evades_the_policy(
    sender: Sender,
):
    sender.egress.policy = AddressPolicy.parse(allow_ports=["1024-65535"])
    async with RawReceiver(answering(OK)) as receiver:
        ours = await sender.answer(Target("http", "127.0.0.1", receiver.port))
        assert (ours.outcome, receiver.connection_count) == (Outcome.BLOCKED_ADDRESS, 0)
        await post(f"http://127.0.0.1:{receiver.port}/")
        assert receiver.connection_count == 1


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """Listens and never accepts, with its queue full: a SYN to it is dropped without an answer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


async def test_r15_control_one_address_after_the_other_waits_in_the_black_hole(
    policy: AddressPolicy,
):
    """IPv6 leads nowhere, IPv4 is good: within a second both, or the IPv6 address was waited for."""
    addresses = ("::1", "127.0.0.1")
    async with RawReceiver(answering(OK)) as receiver:
        with black_hole("::1", receiver.port):
            connector = aiohttp.TCPConnector(resolver=Fixed(*addresses), happy_eyeballs_delay=None)
            one_by_one = asyncio.get_running_loop().create_task(
                post(f"http://dual.test:{receiver.port}/", connector=connector)
            )
            began_at = time.monotonic()
            async with named_by(lambda _name, _kind: Reply(addresses), policy) as sender:
                ours = sender.answer(Target("http", "dual.test", receiver.port))
                answer = await within(0.8, ours)
            assert (answer.outcome, answer.peer) == (Outcome.OK, "127.0.0.1")
            await asyncio.wait([one_by_one], timeout=1.0 - (time.monotonic() - began_at))
            assert not one_by_one.done(), "the control no longer fails"
            one_by_one.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await one_by_one


async def test_r17_control_a_client_that_verifies_nothing_tells_everyone(
    sender: Sender, authority: Authority
):
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    told = {"theirs": 0, "ours": 0}
    for server in (
        authority.server_context("127.0.0.1", is_expired=True),
        authority.server_context("127.0.0.1", is_self_signed=True),
        authority.server_context("127.0.0.9"),
    ):
        async with RawReceiver(answering(OK), tls=server) as receiver:
            context = make_tls_context(ca_pem=authority.pem)
            await sender.answer(Target("https", "127.0.0.1", receiver.port, tls=context))
            told["ours"] += len(receiver.requests)
            connector = aiohttp.TCPConnector(ssl=blind)
            await post(f"https://127.0.0.1:{receiver.port}/", connector=connector)
            told["theirs"] += len(receiver.requests)
    assert told == {"theirs": 3, "ours": 0}


async def test_r23_control_default_resolver_delays_a_quick_name_by_slow_ones(
    policy: AddressPolicy, monkeypatch: pytest.MonkeyPatch
):
    """Sixteen names that take 0.3 s each, and one that is there: through the loop's threads, and through ours."""
    found = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
        if host.startswith("slow"):
            # A thread that waits for a name server is what is tested.
            time.sleep(0.3)
        return found("127.0.0.1", *rest, **more)

    async def took(looking_up: Awaitable[object]) -> float:
        began_at = time.monotonic()
        await looking_up
        return time.monotonic() - began_at

    def slow(name: str, _kind: int) -> Reply | None:
        return None if name.startswith("slow") else Reply(("127.0.0.1",))

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    theirs = Resolver(ThreadedLookup(), spawn=spawn, monotonic=time.monotonic)
    names = [f"slow{number}.test" for number in range(16)]
    waiting = [spawn(theirs.look_up(name)) for name in names]
    await asyncio.sleep(0)
    assert await took(theirs.look_up("quick.test")) > QUICK_SECONDS_MAX
    await asyncio.wait(waiting)
    await theirs.aclose()
    async with named_by(slow, policy) as sender:
        starts = partial(sender.start, timeout_seconds=0.4)
        attempts = [starts(Target("http", name, 9))[1] for name in names]
        await within(QUICK_SECONDS_MAX, sender.result(Target("http", "quick.test", 9)))
        await asyncio.wait(attempts)


def descriptor_count() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_r24_control_a_resolver_for_each_request_leaves_descriptors_behind():
    """Counted: descriptors that are open after thirty requests by name, beyond those of the first."""
    async with FakeDns(lambda _name, _kind: Reply(("127.0.0.1",))) as dns:
        lookups: list[AresLookup] = []

        async def theirs(number: int) -> None:
            lookups.append(AresLookup([dns.address]))
            assert (await lookups[-1].ask(f"n{number}.test")).addresses == ("127.0.0.1",)

        one = AresLookup([dns.address])
        ours = Resolver(one, spawn=spawn, monotonic=time.monotonic)
        left = {}
        for name, ask in (("ours", lambda n: ours.look_up(f"n{n}.test")), ("theirs", theirs)):
            await ask(0)
            before = descriptor_count()
            for number in range(1, 31):
                await ask(number)
            left[name] = descriptor_count() - before
        for lookup in lookups:
            await lookup.aclose()
        await ours.aclose()
    assert left["ours"] <= 1
    assert left["theirs"] >= 30
