"""Where requests may go: literals, names, rebinding, TLS; rows A1 to A5, A8, R15, R17 and R23."""

# ruff: noqa: RUF001, S104 -- the odd characters and addresses are what is tested

import asyncio
import base64
import contextlib
import errno
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiodns
import aiohttp
import pytest
from aiohttp import http_parser
from aiohttp.abc import ResolveResult

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.model import Outcome
from dispatcher.core.url import canonical_url
from dispatcher.outbound import dialer as egress_module
from dispatcher.outbound import resolver as resolver_module
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.pool import Connections, Target
from dispatcher.outbound.resolver import (
    AresLookup,
    NameLookupError,
    Resolver,
    ThreadedLookup,
)
from dispatcher.outbound.self_test import SelfTestError, self_test
from dispatcher.outbound.tls import TlsContexts, make_tls_context
from tests.support.certificates import (
    AUTHORITY_KEY_IDENTIFIER,
    CRITICAL_BASIC_CONSTRAINTS,
    KEY_USAGE,
    SUBJECT_KEY_IDENTIFIER,
    Authority,
)
from tests.support.fake_dns import NXDOMAIN, SERVFAIL, Answerer, FakeDns, Reply
from tests.support.pace import in_time, within
from tests.support.raw_receiver import OK, RawReceiver, Script, Wire, answering
from tests.support.sending import Sender, spawn

STRICT = AddressPolicy.parse(allow_ports=["1-65535"])


class HandClock:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Named:
    """A sender whose names come from a fake name server."""

    def __init__(self, dns: FakeDns, policy: AddressPolicy) -> None:
        self.dns = dns
        self.clock = HandClock()
        # Time moves by hand here, and c-ares' own cache would not know.
        lookup = AresLookup([dns.address], renew_seconds=0.0)
        self.resolver = Resolver(lookup, spawn=spawn, monotonic=self.clock)
        egress = Egress(policy, self.resolver)
        self.sender = Sender(egress, Connections(egress, spawn=spawn))

    async def aclose(self) -> None:
        await self.sender.pool.aclose()
        assert len(self.sender.pool._open) == 0
        await self.sender.egress.aclose()


@pytest.fixture
async def named(policy: AddressPolicy) -> AsyncIterator[Callable[[Answerer], object]]:
    """Makes senders over a fake name server, and closes them."""
    made: list[Named] = []
    servers: list[FakeDns] = []

    async def make(answerer: Answerer, policy: AddressPolicy = policy) -> Named:
        dns = await FakeDns(answerer).__aenter__()
        servers.append(dns)
        made.append(Named(dns, policy))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()
    for dns in servers:
        await dns.__aexit__(None, None, None)


# --- A30: what errors disclose -------------------------------------------------------------------


async def _refused(_wire: Wire) -> None:
    """Never runs: the port of this case does not listen."""


async def _silent(wire: Wire) -> None:
    await wire.gone.wait()


async def _hanging_up(wire: Wire) -> None:
    wire.close()


@pytest.mark.parametrize("script", [_refused, _silent, _hanging_up])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a30_no_error_names_the_address_of_a_name(
    named, authority: Authority, script: Script, scheme: str
):
    """Several addresses too: asyncio joins the texts of their errors, addresses included."""
    addresses = ("127.0.0.1", "127.0.0.2", "::1")
    policy = AddressPolicy.parse(
        allow_networks=["127.0.0.0/8", "::1/128"], allow_ports=["1024-65535"]
    )
    setup = await named(lambda _name, _kind: Reply(addresses), policy)
    tls = TlsContexts().trust(authority.pem) if scheme == "https" else None
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(RawReceiver(script))
        target = Target(scheme, "inside.test", receiver.port, tls=tls)
        if script is _refused:
            await stack.aclose()
        answer = await setup.sender.answer(target, timeout_seconds=0.5)
    assert answer.outcome is not Outcome.OK
    assert answer.peer in addresses
    _discloses_nothing(answer.error)


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "169.254.169.254", "fd00::7"])
async def test_a30_a_denied_name_does_not_disclose_its_address(named, address: str):
    setup = await named(lambda _name, _kind: Reply((address,)), STRICT)
    answer = await setup.sender.answer(Target("http", "inside.test", 80))
    assert (answer.outcome, answer.peer) == (Outcome.BLOCKED_ADDRESS, address)
    _discloses_nothing(answer.error)


def test_a30_control_the_text_of_a_system_error_names_the_address():
    fault = OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 8080)")
    assert "127.0.0.1" in str(fault)
    assert "127.0.0.1" in (fault.strerror or "")


def _discloses_nothing(error: str | None) -> None:
    assert error
    assert not re.search(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+|::|fd00", error), error


# --- A1: literals --------------------------------------------------------------------------------

SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "１２７.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[0:0:0:0:0:0:0:1]",
    "0.0.0.0",
    "[::]",
    "localhost",
    "169.254.169.254",
    "[fd00:ec2::254]",
    "10.0.0.1",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a1_no_spelling_of_a_local_address_is_dialled(sender: Sender, spelling: str):
    sender.egress.policy = STRICT
    async with RawReceiver(answering(OK)) as v4, RawReceiver(answering(OK), host="::1") as v6:
        for receiver in (v4, v6):
            try:
                url = canonical_url(f"http://{spelling}:{receiver.port}/", https_only=False)
            except InvalidRequestError:
                host = spelling.strip("[]")
            else:
                host = url.host
            # What a row in the database could hold is sent to as well, refused on save or not.
            answer = await sender.answer(Target("http", host, receiver.port))
            assert answer.outcome in (Outcome.BLOCKED_ADDRESS, Outcome.DNS_ERROR)
            if host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "127.1", "2130706433"):
                assert answer.outcome is Outcome.BLOCKED_ADDRESS
        assert v4.connection_count == v6.connection_count == 0


async def test_a1_control_a_filter_in_the_resolver_never_sees_a_literal():
    class Refusing(aiohttp.ThreadedResolver):
        async def resolve(self, *_: object, **__: object) -> list[ResolveResult]:
            raise OSError(None, "denied")

    connector = aiohttp.TCPConnector(resolver=Refusing())
    async with (
        RawReceiver(answering(OK)) as receiver,
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://127.0.0.1:{receiver.port}/") as response,
    ):
        await response.read()
        assert receiver.connection_count == 1


async def test_a_blocked_attempt_names_the_address_and_is_counted(sender: Sender):
    sender.egress.policy = STRICT
    answer = await sender.answer(Target("http", "169.254.169.254", 80))
    assert answer.outcome is Outcome.BLOCKED_ADDRESS
    assert answer.error == "the receiver's address is denied by the address policy (metadata)"
    assert answer.peer == "169.254.169.254"
    assert sender.pool.blocked_counts == {"metadata": 1}


async def test_a7_our_own_listener_is_denied_even_where_its_network_is_allowed(sender: Sender):
    async with RawReceiver(answering(OK)) as receiver:
        sender.egress.policy = AddressPolicy.parse(
            allow_networks=["127.0.0.0/8"],
            allow_ports=["1024-65535"],
            deny_endpoints=[("0.0.0.0", receiver.port)],
        )
        for host in ("127.0.0.1", "127.0.0.2"):
            answer = await sender.answer(Target("http", host, receiver.port))
            assert answer.outcome is Outcome.BLOCKED_ADDRESS
            assert "own_endpoint" in (answer.error or "")
        assert receiver.connection_count == 0


async def test_a_new_policy_holds_for_idle_connections_once_they_are_dropped(sender: Sender):
    async with RawReceiver(answering(OK)) as receiver:
        target = Target("http", "127.0.0.1", receiver.port)
        assert (await sender.answer(target)).outcome is Outcome.OK
        sender.egress.policy = STRICT
        sender.pool.drop()
        assert (await sender.answer(target)).outcome is Outcome.BLOCKED_ADDRESS


async def test_a8_proxies_of_the_environment_are_ignored(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
):
    async with RawReceiver(answering(OK)) as receiver, RawReceiver(answering(OK)) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        answer = await sender.answer(Target("http", "127.0.0.1", receiver.port))
        assert answer.outcome is Outcome.OK
        assert proxy.connection_count == 0


# --- A3, A4: names -------------------------------------------------------------------------------


async def test_a_name_is_resolved_and_its_connection_kept(named):
    setup = await named(lambda _name, _kind: Reply(("127.0.0.1",)))
    async with RawReceiver(answering(OK)) as receiver:
        target = Target("http", "receiver.test", receiver.port)
        first = await setup.sender.answer(target)
        second = await setup.sender.answer(target)
        await setup.sender.pool.aclose()
    assert first.outcome is second.outcome is Outcome.OK
    assert (first.peer, second.reused) == ("127.0.0.1", True)
    assert first.phases.dns is not None


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(("10.0.0.1",)), id="private"),
        pytest.param(Reply(("127.0.0.1", "10.0.0.1")), id="good and private"),
        pytest.param(Reply(("10.0.0.1", "127.0.0.1")), id="private and good"),
        pytest.param(Reply(("127.0.0.1", "::ffff:10.0.0.1")), id="good and mapped"),
        pytest.param(Reply(("127.0.0.1", "fd00::1")), id="good A, private AAAA"),
        pytest.param(Reply(("10.0.0.1",), alias="inside.test"), id="by way of a CNAME"),
        pytest.param(Reply(("169.254.169.254",), ttl=0), id="metadata"),
    ],
)
async def test_a3_one_denied_answer_denies_the_name(named, reply: Reply):
    setup = await named(lambda _name, _kind: reply)
    async with RawReceiver(answering(OK)) as receiver:
        answer = await setup.sender.answer(Target("http", "receiver.test", receiver.port))
        assert receiver.connection_count == 0
    assert answer.outcome is Outcome.BLOCKED_ADDRESS


async def test_a3_a_flood_of_answers_is_capped(named):
    flood = tuple(f"127.0.0.{number}" for number in range(1, 61))
    wide = AddressPolicy.parse(allow_networks=["127.0.0.0/8"], allow_ports=["1024-65535"])
    setup = await named(lambda _name, _kind: Reply(flood), wide)
    judging = egress_module._JudgingResolver(setup.sender.egress, setup.resolver, time.monotonic)
    assert len(await setup.resolver.look_up("many.test")) == 60
    assert len(await judging.resolve("many.test", 8080)) == resolver_module.ADDRESSES_MAX


def by_turns(*replies: Reply) -> Answerer:
    turn = 0

    def answer(_name: str, kind: int) -> Reply:
        nonlocal turn
        if kind == 1:
            turn += 1
        return replies[turn % len(replies)]

    return answer


@pytest.mark.timeout(600)
async def test_a4_rebinding_reaches_nothing(named, long_run):
    rounds = 10_000 if long_run else 500
    # The allowed address stands for the public one that the name shows first.
    shown = AddressPolicy.parse(allow_networks=["127.0.0.2/32"], allow_ports=["1024-65535"])
    setup = await named(by_turns(Reply(("127.0.0.2",), ttl=0), Reply(("127.0.0.1",), ttl=0)), shown)
    outcomes = []
    async with RawReceiver(answering(OK)) as receiver:
        target = Target("http", "rebinding.test", receiver.port)
        for _ in range(rounds):
            outcomes.append((await setup.sender.answer(target)).outcome)
            setup.clock.seconds += 5.1
        assert receiver.connection_count == 0
    blocked, refused = map(outcomes.count, (Outcome.BLOCKED_ADDRESS, Outcome.CONNECT_ERROR))
    assert blocked + refused == rounds
    # A query that a busy machine delays is repeated, which shifts the turns of the name server.
    assert min(blocked, refused) > 0.4 * rounds


async def test_a4_control_checking_and_then_connecting_by_name_is_rebound(named):
    setup = await named(by_turns(Reply(("127.0.0.1",), ttl=0), Reply(("127.0.0.2",), ttl=0)))
    lookup = AresLookup([setup.dns.address])
    async with RawReceiver(answering(OK)) as receiver:
        assert (await lookup.ask("rebinding.test")).addresses == ("127.0.0.2",)
        dialled = (await lookup.ask("rebinding.test")).addresses[0]
        _, writer = await asyncio.open_connection(dialled, receiver.port)
        writer.close()
        await writer.wait_closed()
        await receiver.connected(1)
    await lookup.aclose()


async def test_r15_a_dead_ipv6_address_does_not_hold_up_a_good_ipv4_one(named):
    setup = await named(lambda _name, _kind: Reply(("::1", "127.0.0.1")))
    async with RawReceiver(answering(OK)) as receiver:
        ours = setup.sender.answer(Target("http", "dual.test", receiver.port))
        answer = await within(1.0, ours)
        await setup.sender.pool.aclose()
    assert (answer.outcome, answer.peer) == (Outcome.OK, "127.0.0.1")


# --- DNS that is slow ----------------------------------------------------------------------------


def _slow_by_name(name: str, _kind: int) -> Reply:
    kind, _, rest = name.removesuffix(".test").partition("-")
    delay = float(rest) / 1000 if kind == "slow" else 0.0
    return Reply(("127.0.0.1",), delay_seconds=delay)


async def test_r23_a_slow_name_resolves_after_many_fast_ones():
    async with FakeDns(_slow_by_name) as dns:
        lookup = AresLookup([dns.address])
        resolver = Resolver(lookup, spawn=spawn, monotonic=time.monotonic)
        for number in range(30):
            await resolver.look_up(f"plain{number}.test")
        names = ["slow-400.test", "slow-800.test", "slow-1500.test", "slow-2000.test"]
        async with asyncio.TaskGroup() as group:
            found = [group.create_task(resolver.look_up(name)) for name in names]
        await resolver.aclose()
    assert [task.result() for task in found] == [("127.0.0.1",)] * len(names)


async def test_r23_control_the_timeout_of_c_ares_shrinks_with_fast_responses():
    async with FakeDns(_slow_by_name) as dns:
        channel = aiodns.DNSResolver(nameservers=[dns.address], timeout=1.0, tries=2)
        for number in range(30):
            await channel.getaddrinfo(f"plain{number}.test", family=socket.AF_INET)
        began_at = time.monotonic()
        with pytest.raises(aiodns.error.DNSError, match="Timeout"):
            await channel.getaddrinfo("slow-1500.test", family=socket.AF_INET)
        assert in_time(time.monotonic() - began_at, 1.5)
        await channel.close()


async def test_many_slow_names_use_a_bounded_number_of_threads():
    async with FakeDns(lambda _name, _kind: None) as dns:
        lookup = AresLookup([dns.address])
        before = threading_count()
        asking = [asyncio.ensure_future(lookup.ask(f"silent{number}.test")) for number in range(60)]
        await asyncio.sleep(0.5)  # longer than the wait before a query is repeated
        assert threading_count() - before <= 12
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        await lookup.aclose()


def threading_count() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


# --- DNS in trouble ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [NXDOMAIN, SERVFAIL])
async def test_a_name_that_cannot_be_resolved_is_a_dns_error(named, code: int):
    setup = await named(lambda _name, _kind: Reply(code=code))
    answer = await setup.sender.answer(Target("http", "absent.test", 8080))
    assert answer.outcome is Outcome.DNS_ERROR
    assert "the name was not resolved" in (answer.error or "")


async def test_a_name_without_addresses_is_a_dns_error(named):
    setup = await named(lambda _name, _kind: Reply())
    answer = await setup.sender.answer(Target("http", "empty.test", 8080))
    assert answer.outcome is Outcome.DNS_ERROR


async def test_failures_are_remembered_for_a_while(named):
    setup = await named(lambda _name, _kind: Reply(code=NXDOMAIN))
    target = Target("http", "absent.test", 8080)
    await setup.sender.answer(target)
    asked_count = setup.dns.asked_count("absent.test")
    setup.clock.seconds += resolver_module.ABSENCE_SECONDS - 0.1
    await setup.sender.answer(target)
    assert setup.dns.asked_count("absent.test") == asked_count
    setup.clock.seconds += 0.2
    await setup.sender.answer(target)
    assert setup.dns.asked_count("absent.test") > asked_count


@pytest.mark.parametrize(("ttl", "life_seconds"), [(0, 5.0), (30, 30.0), (86_400, 60.0)])
async def test_answers_live_as_long_as_their_clamped_ttl(named, ttl: int, life_seconds: float):
    setup = await named(lambda _name, _kind: Reply(("127.0.0.1",), ttl=ttl))
    await setup.resolver.look_up("a.test")
    asked_count = setup.dns.asked_count("a.test")
    setup.clock.seconds += life_seconds - 0.1
    await setup.resolver.look_up("a.test")
    assert setup.dns.asked_count("a.test") == asked_count
    setup.clock.seconds += 0.2
    await setup.resolver.look_up("a.test")
    assert setup.dns.asked_count("a.test") > asked_count


@pytest.mark.parametrize(("renew_seconds", "asked_count"), [(60.0, 2), (0.0, 6)])
async def test_a_renewed_channel_forgets_what_c_ares_kept(renew_seconds: float, asked_count: int):
    async with FakeDns(lambda _name, _kind: Reply(("127.0.0.1",), ttl=86_400)) as dns:
        lookup = AresLookup([dns.address], renew_seconds=renew_seconds)
        for _ in range(3):
            assert (await lookup.ask("a.test")).addresses == ("127.0.0.1",)
        await lookup.aclose()
        assert dns.asked_count("a.test") == asked_count


async def test_a_name_is_asked_for_once_however_many_wait(named):
    setup = await named(lambda _name, _kind: Reply(("127.0.0.1",)))
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(setup.resolver.look_up("busy.test"))
    assert setup.dns.asked_count("busy.test") == 2


async def test_r23_a_silent_name_server_for_one_name_delays_no_other(
    named, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resolver_module, "DNS_SECONDS_MAX", 0.4)
    setup = await named(
        lambda name, _kind: None if name.startswith("slow") else Reply(("127.0.0.1",))
    )
    async with RawReceiver(answering(OK)) as receiver:
        slow = [
            setup.sender.start(Target("http", f"slow{number}.test", receiver.port))[1]
            for number in range(16)
        ]
        began_at = time.monotonic()
        quick = setup.sender.answer(Target("http", "quick.test", receiver.port))
        answer = await within(0.2, quick)
        results = [await future for future in slow]
        await setup.sender.pool.aclose()
    assert answer.outcome is Outcome.OK
    assert {getattr(result, "outcome", None) for result in results} == {Outcome.DNS_ERROR}
    assert in_time(time.monotonic() - began_at, 1.0)


async def test_a_deadline_in_the_look_up_is_a_timeout_that_says_so(named):
    setup = await named(lambda _name, _kind: None)
    answer = await setup.sender.answer(Target("http", "slow.test", 8080), timeout_seconds=0.2)
    assert answer.outcome is Outcome.TIMEOUT
    assert answer.error == "the name was not resolved within 0.2 s"


async def test_the_threaded_look_up_reads_the_systems_own_names():
    resolver = Resolver(ThreadedLookup(), spawn=spawn, monotonic=time.monotonic)
    assert set(await resolver.look_up("localhost")) <= {"127.0.0.1", "::1"}
    with pytest.raises(NameLookupError):
        await resolver.look_up("a" * 70 + ".test")
    await resolver.aclose()


async def test_names_kept_are_bounded(named, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resolver_module, "_NAMES_KEPT_MAX", 3)
    setup = await named(lambda _name, _kind: Reply(("127.0.0.1",)))
    for number in range(6):
        await setup.resolver.look_up(f"n{number}.test")
    assert list(setup.resolver._entries) == ["n3.test", "n4.test", "n5.test"]


# --- R17: TLS ------------------------------------------------------------------------------------


async def test_r17_a_name_is_asked_for_and_verified(named, authority: Authority):
    setup = await named(lambda _name, _kind: Reply(("127.0.0.1",)))
    seen: list[str] = []
    tls = authority.server_context("receiver.test")
    tls.sni_callback = lambda _socket, name, _context: seen.append(name)
    async with RawReceiver(answering(OK), tls=tls) as receiver:
        context = make_tls_context(ca_pem=authority.pem)
        good = await setup.sender.answer(
            Target("https", "receiver.test", receiver.port, tls=context)
        )
        wrong = await setup.sender.answer(Target("https", "other.test", receiver.port, tls=context))
        await setup.sender.pool.aclose()
    assert good.outcome is Outcome.OK
    assert wrong.outcome is Outcome.TLS_ERROR
    assert "other.test" in (wrong.error or "")
    assert seen == ["receiver.test", "other.test"]


async def test_r17_faulty_certificates_are_tls_errors(sender: Sender, authority: Authority):
    context = make_tls_context(ca_pem=authority.pem)
    for server, words in (
        (authority.server_context("127.0.0.1", is_expired=True), "expired"),
        (authority.server_context("127.0.0.1", is_self_signed=True), "self-signed"),
        (authority.server_context("127.0.0.9"), "IP address mismatch"),
    ):
        async with RawReceiver(answering(OK), tls=server) as receiver:
            answer = await sender.answer(Target("https", "127.0.0.1", receiver.port, tls=context))
            assert receiver.requests == []
        assert answer.outcome is Outcome.TLS_ERROR
        assert words in (answer.error or "")


MISSING = [
    (AUTHORITY_KEY_IDENTIFIER, False, "Missing Authority Key Identifier"),
    (SUBJECT_KEY_IDENTIFIER, True, "Missing Subject Key Identifier"),
    (KEY_USAGE, True, "CA cert does not include key usage extension"),
    (CRITICAL_BASIC_CONSTRAINTS, True, "Basic Constraints of CA cert not marked critical"),
]


@pytest.mark.parametrize(("extension", "is_authority", "reason"), MISSING)
async def test_r17_a_missing_extension_is_named_and_can_be_allowed(
    sender: Sender, tmp_path: Path, extension: str, is_authority: bool, reason: str
):
    """The same on every Python: 3.13 made the strict check its default."""
    authority = Authority(tmp_path, without=extension if is_authority else None)
    tls = authority.server_context("127.0.0.1", without=None if is_authority else extension)
    answers = []
    async with RawReceiver(answering(OK), tls=tls) as receiver:
        for is_strict in (True, False):
            trust = TlsContexts(is_strict=is_strict).trust(authority.pem)
            target = Target("https", "127.0.0.1", receiver.port, tls=trust)
            answers.append(await sender.answer(target))
        await sender.pool.aclose()
    strict, lenient = answers
    assert lenient.outcome is Outcome.OK, lenient.error
    assert strict.outcome is Outcome.TLS_ERROR
    assert reason in (strict.error or "")
    assert "egress.strict_certificates = false" in (strict.error or "")


def test_contexts_verify_alike_on_every_python():
    x509_flags = ssl.VerifyFlags
    expected = x509_flags.VERIFY_X509_TRUSTED_FIRST | x509_flags.VERIFY_X509_PARTIAL_CHAIN
    assert make_tls_context(is_strict=False).verify_flags == expected
    assert make_tls_context().verify_flags == expected | x509_flags.VERIFY_X509_STRICT


async def test_an_endpoint_with_certificates_trusts_these_alone(
    sender: Sender, authority: Authority, tmp_path: Path
):
    other = Authority(tmp_path, name="Another authority")
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(authority.pem)
    contexts = TlsContexts(ca_file=str(ca_file))
    outcomes = []
    async with RawReceiver(answering(OK), tls=authority.server_context("127.0.0.1")) as receiver:
        for ca_pem in (None, authority.pem, other.pem):
            trust = contexts.trust(ca_pem)
            target = Target("https", "127.0.0.1", receiver.port, tls=trust)
            outcomes.append((await sender.answer(target)).outcome)
        await sender.pool.aclose()
    assert outcomes == [Outcome.OK, Outcome.OK, Outcome.TLS_ERROR]
    assert (await contexts.context(authority.pem)).cert_store_stats()["x509_ca"] == 1


async def test_contexts_are_made_on_use_once_and_at_most_so_many(tmp_path: Path):
    pems = [Authority(tmp_path).pem for _ in range(4)]
    contexts = TlsContexts(kept_max=3)
    trusts = [contexts.trust(pem) for pem in pems]
    assert contexts.built_count == 0
    async with asyncio.TaskGroup() as group:
        same = [group.create_task(trusts[0].context()) for _ in range(5)]
    assert len({task.result() for task in same}) == 1
    first = same[0].result()
    await trusts[1].context()
    await trusts[2].context()
    assert await trusts[0].context() is first
    await trusts[3].context()  # the second is the least recently used
    assert (contexts.built_count, len(contexts._kept)) == (4, 3)
    assert await trusts[0].context() is first
    await trusts[1].context()
    assert contexts.built_count == 5
    contexts.close()


async def test_an_open_connection_outlives_its_context(sender: Sender, authority: Authority):
    contexts = TlsContexts(kept_max=0)
    async with RawReceiver(answering(OK), tls=authority.server_context("127.0.0.1")) as receiver:
        trust = contexts.trust(authority.pem)
        target = Target("https", "127.0.0.1", receiver.port, tls=trust)
        for _ in range(3):
            assert (await sender.answer(target)).outcome is Outcome.OK
        await sender.pool.aclose()
    assert receiver.connection_count == 1
    assert len(contexts._kept) == 0


@pytest.mark.parametrize(
    "ca_pem", ["", "text", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----"]
)
def test_text_without_certificates_is_refused_before_use(ca_pem: str):
    with pytest.raises(ValueError, match="ca_pem: "):
        TlsContexts().trust(ca_pem)


async def test_unusable_certificates_are_a_tls_error(sender: Sender):
    body = base64.b64encode(b"\x30\x03abc").decode()
    ca_pem = f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
    answer = await sender.answer(
        Target("https", "127.0.0.1", 8443, tls=TlsContexts().trust(ca_pem))
    )
    assert answer.outcome is Outcome.TLS_ERROR
    assert "certificates that this endpoint trusts cannot be used" in (answer.error or "")


async def test_r17_an_authority_that_nobody_named_is_not_trusted(
    sender: Sender, authority: Authority
):
    async with RawReceiver(answering(OK), tls=authority.server_context("127.0.0.1")) as receiver:
        target = Target("https", "127.0.0.1", receiver.port, tls=make_tls_context())
        answer = await sender.answer(target)
    assert answer.outcome is Outcome.TLS_ERROR
    assert "certificate is not trusted" in (answer.error or "")


async def test_r17_old_versions_of_tls_are_refused(sender: Sender, authority: Authority):
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old = authority.server_context("127.0.0.1", version=ssl.TLSVersion.TLSv1)
    async with RawReceiver(answering(OK), tls=old) as receiver:
        context = make_tls_context(ca_pem=authority.pem)
        answer = await sender.answer(Target("https", "127.0.0.1", receiver.port, tls=context))
    assert answer.outcome is Outcome.TLS_ERROR


async def test_r12_a_plain_receiver_behind_https_is_a_tls_error(sender: Sender):
    async def script(wire: Wire) -> None:
        await wire.head_began()
        wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await wire.gone.wait()

    async with RawReceiver(script) as receiver:
        target = Target("https", "127.0.0.1", receiver.port, tls=make_tls_context())
        answer = await sender.answer(target)
    assert answer.outcome is Outcome.TLS_ERROR


@pytest.mark.parametrize("ending", [Wire.close, Wire.reset])
async def test_r12_a_receiver_that_ends_the_handshake_is_a_tls_error(
    sender: Sender, ending: Callable[[Wire], None]
):
    async def script(wire: Wire) -> None:
        await wire.head_began()
        ending(wire)

    async with RawReceiver(script) as receiver:
        target = Target("https", "127.0.0.1", receiver.port, tls=make_tls_context())
        answer = await sender.answer(target)
    assert answer.outcome is Outcome.TLS_ERROR


# --- The self-test -------------------------------------------------------------------------------


async def test_the_installed_aiohttp_passes_the_self_test():
    await self_test()


async def test_an_aiohttp_without_its_c_parser_fails_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(http_parser, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(SelfTestError, match="C parser"):
        await self_test()


async def test_an_aiohttp_whose_connect_has_changed_fails_the_self_test(
    monkeypatch: pytest.MonkeyPatch,
):
    async def connect(_self: aiohttp.TCPConnector, _request: object) -> None:
        raise AssertionError

    monkeypatch.setattr(aiohttp.TCPConnector, "connect", connect)
    with pytest.raises(SelfTestError, match="does not open connections as expected"):
        await self_test()
