"""Resolve names: one query per name at a time, a cache with clamped lifetimes, a deadline, a bound.

What it is. `Resolver.look_up` returns every address of a name and checks none of them, so that a new
address policy takes effect at once and the cache stays valid. There are two implementations:
c-ares (`AresLookup`), which does not use the loop's thread pool, and the system's resolver in separate
threads (`ThreadedLookup`), for hosts that need nsswitch or mDNS. uvloop's own `getaddrinfo` is not
used, because it handles two slow names at a time (16 names of 0.5 s took 4.0 s, measured).

Invariants. A look-up ends within `DNS_SECONDS_MAX`, with addresses or with a `NameLookupError`.
A name is queried once at a time, regardless of the number of waiters. A response is cached for 5 to
60 s regardless of its TTL, a failure for 5 or 15 s. A slow name does not delay others (R23). Running
out of descriptors is a local failure, not the name's: it is a plain OSError and never cached (F7).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol

import aiodns
import pycares

from dispatcher.core.errors import DispatcherError

DNS_SECONDS_MAX: Final = 3.0
# A TTL of 0 is a known trick to return another address at the next look-up (A4).
ANSWER_SECONDS_MIN: Final = 5.0
ANSWER_SECONDS_MAX: Final = 60.0
# A failing name server usually recovers sooner than a missing name is created.
FAILURE_SECONDS: Final = 5.0
ABSENCE_SECONDS: Final = 15.0
# More addresses for one name do not help; all are checked, but only these many are dialled.
ADDRESSES_MAX: Final = 16
# A response is at most this much older than its clamped lifetime.
CHANNEL_SECONDS_MAX: Final = 60.0
_NAMES_KEPT_MAX: Final = 10_000
# c-ares waits for five times the latency of earlier responses, at least 0.25 s, and ignores a late
# response. The waits double with each try, less up to half of each as jitter: four tries take 2 to 4 s.
_TRIES: Final = 4
_TRY_SECONDS: Final = 1.0
# A query that is older than the shortest wait is sent again by a channel that has measured nothing.
_PATIENT_AFTER_SECONDS: Final = 0.25
# Each such channel has a thread of its own.
_PATIENT_CHANNELS_MAX: Final = 8
_THREADS_MAX: Final = 16
_ABSENT: Final = frozenset({pycares.errno.ARES_ENOTFOUND, pycares.errno.ARES_ENODATA})
_ABSENT_SYSTEM: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

type_spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


class NameLookupError(DispatcherError, OSError):
    """A name could not be turned into addresses; an OSError for aiohttp."""

    def __init__(self, text: str, *, is_absent: bool = False) -> None:
        """Set `is_absent` if the name server responded that the name does not exist."""
        self.is_absent = is_absent
        super().__init__(text)


class Found(NamedTuple):
    """The result of one query: numeric addresses, and their TTL in seconds."""

    addresses: tuple[str, ...]
    ttl_seconds: float


class Lookup(Protocol):
    """An implementation of name look-ups."""

    async def ask(self, host: str) -> Found:
        """Query once, without a cache.

        Raises:
            NameLookupError: no address was found.
        """

    async def aclose(self) -> None:
        """Free all resources; running queries fail."""


class AresLookup:
    """Queries name servers with c-ares, which also reads /etc/hosts and /etc/resolv.conf.

    c-ares caches responses for up to an hour, and its binding cannot switch that off.
    The channel is therefore renewed every minute, and the previous one lives until the next renewal, for
    its open queries.

    c-ares also shortens its timeout once responses have been fast, and nothing in its binding
    switches that off either: a name that took 0.8 s failed after 0.6 s. A query without a response
    after 0.25 s is therefore repeated on a fresh channel, which waits for the whole deadline.
    """

    def __init__(
        self, servers: Sequence[str] = (), *, renew_seconds: float = CHANNEL_SECONDS_MAX
    ) -> None:
        """Use these `servers` (`address` or `address:port`); empty means the system's."""
        self._servers = list(servers)
        self._renew_seconds = renew_seconds
        self._current = self._make()
        self._before: aiodns.DNSResolver | None = None
        self._made_at = asyncio.get_running_loop().time()
        self._patient_count = 0

    async def ask(self, host: str) -> Found:
        """Query A and AAAA records at once."""
        if asyncio.get_running_loop().time() - self._made_at >= self._renew_seconds:
            await self._renew()
        first = asyncio.ensure_future(_query(self._current, host))
        tasks = {first}
        try:
            await asyncio.wait(tasks, timeout=_PATIENT_AFTER_SECONDS)
            if not first.done() and self._patient_count < _PATIENT_CHANNELS_MAX:
                self._patient_count += 1
                patient = asyncio.ensure_future(self._query_patiently(host))
                patient.add_done_callback(self._patient_ended)
                tasks.add(patient)
            while True:
                done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                # Addresses first, then a "no such name" response; any other failure decides only
                # when no query is left.
                for task in sorted(done, key=lambda one: one.exception() is not None):
                    fault = task.exception()
                    if fault is None or not tasks or getattr(fault, "is_absent", False):
                        return task.result()
        finally:
            for task in tasks:
                task.cancel()

    def _patient_ended(self, _: "asyncio.Task[Found]") -> None:
        # Here and not in the coroutine: one that is cancelled before its start never runs.
        self._patient_count -= 1

    async def _query_patiently(self, host: str) -> Found:
        """Query on a channel without earlier measurements, so that its timeout is the configured one."""
        channel = aiodns.DNSResolver(
            nameservers=self._servers or None, timeout=DNS_SECONDS_MAX, tries=1
        )
        try:
            return await _query(channel, host)
        finally:
            await channel.close()

    async def aclose(self) -> None:
        """Close the c-ares channels."""
        await self._current.close()
        if self._before is not None:
            await self._before.close()

    def _make(self) -> aiodns.DNSResolver:
        return aiodns.DNSResolver(
            nameservers=self._servers or None, timeout=_TRY_SECONDS, tries=_TRIES
        )

    async def _renew(self) -> None:
        retired, self._before, self._current = self._before, self._current, self._make()
        self._made_at = asyncio.get_running_loop().time()
        if retired is not None:
            await retired.close()


def _query(channel: aiodns.DNSResolver, host: str) -> Coroutine[Any, Any, Found]:
    """Send the queries for A and AAAA records at once, and return an awaitable of the responses.

    Raises:
        NameLookupError: the name cannot be encoded.
    """
    try:
        response = channel.getaddrinfo(host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
    except UnicodeError as fault:
        raise NameLookupError(str(fault)) from fault
    return _found(response)


async def _found(response: Awaitable[Any]) -> Found:
    try:
        answer = await response
    except (aiodns.error.DNSError, UnicodeError) as fault:
        raise NameLookupError(
            str(fault.args[-1]) if fault.args else "the look-up failed",
            is_absent=bool(fault.args) and fault.args[0] in _ABSENT,
        ) from fault
    return Found(
        tuple(dict.fromkeys(_text(node.addr[0]) for node in answer.nodes)),
        min((float(node.ttl) for node in answer.nodes), default=0.0),
    )


def _text(address: bytes | str) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address


class ThreadedLookup:
    """Queries the system's resolver in separate threads; a stuck name occupies one of them."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="dispatcher-dns")

    async def ask(self, host: str) -> Found:
        """Call getaddrinfo, which returns no TTL."""
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(
                self._executor,
                lambda: socket.getaddrinfo(
                    host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
                ),
            )
        except (socket.gaierror, UnicodeError) as fault:
            code = fault.errno if isinstance(fault, socket.gaierror) else None
            raise NameLookupError(str(fault), is_absent=code in _ABSENT_SYSTEM) from fault
        return Found(tuple(dict.fromkeys(str(answer[4][0]) for answer in answers)), 0.0)

    async def aclose(self) -> None:
        """Shut the threads down without waiting for a stuck name."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class _Entry(NamedTuple):
    expires_at: float
    addresses: tuple[str, ...]
    fault: NameLookupError | None


class Resolver:
    """The cache in front of a `Lookup`; used from one event loop."""

    def __init__(
        self, lookup: Lookup, *, spawn: type_spawn, monotonic: Callable[[], float]
    ) -> None:
        """Use `spawn` for the query tasks, so that a cancelled attempt cancels no look-up."""
        self._lookup = lookup
        self._spawn = spawn
        self._monotonic = monotonic
        self._entries: dict[str, _Entry] = {}
        self._asking: dict[str, asyncio.Task[_Entry | OSError]] = {}

    async def look_up(self, host: str) -> tuple[str, ...]:
        """Return every numeric address of a name, at least one, in the server's order.

        Raises:
            NameLookupError: there is none, or no server responded in time.
            OSError: this process ran out of descriptors; the name was not queried.
        """
        entry = self._entries.get(host)
        if entry is None or entry.expires_at <= self._monotonic():
            task = self._asking.get(host)
            if task is None:
                task = self._spawn(self._ask(host))
                self._asking[host] = task
                task.add_done_callback(lambda _: self._asking.pop(host, None))
            entry = await _outcome(asyncio.shield(task))
        if entry.fault is not None:
            # A new object: one that is raised repeatedly would collect tracebacks.
            raise NameLookupError(str(entry.fault), is_absent=entry.fault.is_absent)
        return entry.addresses

    async def aclose(self) -> None:
        """Cancel running queries and close the look-up."""
        for task in tuple(self._asking.values()):
            task.cancel()
        await self._lookup.aclose()

    async def _ask(self, host: str) -> "_Entry | OSError":
        try:
            async with asyncio.timeout(DNS_SECONDS_MAX):
                found = await self._lookup.ask(host)
        except TimeoutError:
            fault = NameLookupError(f"no name server answered within {DNS_SECONDS_MAX:g} s")
            return self._remember(host, (), FAILURE_SECONDS, fault)
        except NameLookupError as fault:
            local = _descriptor_shortage()
            if local is not None:
                return local
            life_seconds = ABSENCE_SECONDS if fault.is_absent else FAILURE_SECONDS
            return self._remember(host, (), life_seconds, fault)
        if not found.addresses:
            absence = NameLookupError("the name has no address", is_absent=True)
            return self._remember(host, (), ABSENCE_SECONDS, absence)
        life_seconds = min(max(found.ttl_seconds, ANSWER_SECONDS_MIN), ANSWER_SECONDS_MAX)
        return self._remember(host, found.addresses, life_seconds, None)

    def _remember(
        self,
        host: str,
        addresses: tuple[str, ...],
        life_seconds: float,
        fault: NameLookupError | None,
    ) -> _Entry:
        entry = _Entry(self._monotonic() + life_seconds, addresses, fault)
        self._entries.pop(host, None)
        while len(self._entries) >= _NAMES_KEPT_MAX:
            del self._entries[next(iter(self._entries))]
        self._entries[host] = entry
        return entry


async def _outcome(asked: "Awaitable[_Entry | OSError]") -> _Entry:
    answer = await asked
    if isinstance(answer, OSError):
        raise OSError(answer.errno, answer.strerror)
    return answer


def _descriptor_shortage() -> OSError | None:
    """Return the error of opening a socket, if any, because c-ares does not report it separately."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as fault:
        return fault
    return None
