"""A7: every form of a database URL protects the database's own addresses, today's and tomorrow's."""

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from dispatcher.config.settings import Settings
from dispatcher.config.settings_reader import load_settings
from dispatcher.core.addresses import AddressPolicy
from dispatcher.outbound.own_addresses import OwnAddresses, protected_addresses

URLS = {
    "plain": ("postgresql://u:p@127.0.0.5:6001/db", {("127.0.0.5", 6001)}),
    "no port": ("postgresql://u:p@127.0.0.5/db", {("127.0.0.5", 5432)}),
    "IPv6": ("postgresql://u:p@[::1]:6001/db", {("::1", 6001)}),
    "host=": ("postgresql://u:p@/db?host=127.0.0.5&port=6001", {("127.0.0.5", 6001)}),
    "host= replaces": (
        "postgresql://u:p@127.0.0.9:6009/db?host=127.0.0.5&port=6001",
        {("127.0.0.5", 6001)},
    ),
    "two hosts": (
        "postgresql://u:p@127.0.0.4:6000,127.0.0.5:6001/db",
        {("127.0.0.4", 6000), ("127.0.0.5", 6001)},
    ),
    "one port for two hosts": (
        "postgresql://u:p@/db?host=127.0.0.4,127.0.0.5&port=6001",
        {("127.0.0.4", 6001), ("127.0.0.5", 6001)},
    ),
    "lists": (
        "postgresql://u:p@/db?host=127.0.0.4,127.0.0.5&port=6000,6001",
        {("127.0.0.4", 6000), ("127.0.0.5", 6001)},
    ),
    "hostaddr": (
        "postgresql://u:p@127.0.0.4:6001/db?hostaddr=127.0.0.5",
        {("127.0.0.4", 6001), ("127.0.0.5", 6001)},
    ),
    "socket": ("postgresql://u:p@/db?host=/run/postgresql&port=6001", {("127.0.0.1", 6001)}),
    "encoded socket": ("postgresql://u:p@%2Frun%2Fpostgresql:6001/db", {("::1", 6001)}),
    "socket and host": (
        "postgresql://u:p@/db?host=/run/postgresql,127.0.0.5&port=6000,6001",
        {("127.0.0.1", 6000), ("127.0.0.5", 6001)},
    ),
    "no host": ("postgresql:///db?port=6001", {("127.0.0.1", 6001), ("::1", 6001)}),
}


def settings_of(**environ: str) -> Settings:
    return load_settings(None, {f"DISPATCHER_{name}": text for name, text in environ.items()})


def policy_of(settings: Settings) -> AddressPolicy:
    return AddressPolicy.parse(
        allow_networks=["127.0.0.0/8", "::1/128", "10.0.0.0/8"],
        allow_ports=["1-65535", 5432],
        deny_endpoints=protected_addresses(settings),
    )


@pytest.mark.parametrize("variable", ["DATABASE_URL", "LISTEN_DATABASE_URL"])
@pytest.mark.parametrize("form", URLS)
def test_a7_every_form_of_a_database_url_is_protected(variable: str, form: str):
    url, protected = URLS[form]
    policy = policy_of(settings_of(**{variable: url}))
    assert {policy.denying_rule(*place) for place in protected} == {"own_endpoint"}
    assert policy.denying_rule("127.0.0.7", 6001) is None or "socket" in form or form == "no host"
    assert policy.denying_rule("127.0.0.5", 6002) is None


def test_a7_the_variables_of_libpq_are_protected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGHOST", "127.0.0.5")
    monkeypatch.setenv("PGPORT", "6001")
    policy = policy_of(settings_of(DATABASE_URL="postgresql:///db"))
    assert policy.denying_rule("127.0.0.5", 6001) == "own_endpoint"


def test_a7_both_ports_of_the_listener_are_protected():
    policy = policy_of(settings_of(HTTP__PORT="8081", HTTP__PROBE_PORT="8082"))
    assert policy.denying_rule("127.0.0.1", 8081) == "own_endpoint"
    assert policy.denying_rule("127.0.0.1", 8082) == "own_endpoint"


@pytest.mark.parametrize("form", ["host=", "two hosts", "hostaddr", "socket"])
def test_a7_control_the_host_of_the_url_alone_misses_the_others(form: str):
    url, protected = URLS[form]
    parts = urlsplit(url)
    try:
        known_bad = {(parts.hostname, parts.port or 5432)}
    except ValueError:
        known_bad = set()
    assert not protected <= known_bad


async def test_a7_addresses_follow_the_name_of_the_database(monkeypatch: pytest.MonkeyPatch):
    records = {"db.internal": ["10.0.0.1"]}

    def resolve(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        if host not in records:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(0, 0, 0, "", (address, port)) for address in records[host]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    own = OwnAddresses(settings_of(DATABASE_URL="postgresql://u:p@db.internal:6001,late:6001/db"))
    policy = AddressPolicy.parse(
        allow_networks=["10.0.0.0/8"], allow_ports=["1-65535"], deny_endpoints=own.resolve()
    )
    assert own.unresolved == ["127.0.0.1", "late"]
    drops: list[str] = []
    pauses: list[float] = []
    round_over = asyncio.Event()
    go_on = asyncio.Semaphore(0)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        round_over.set()
        await go_on.acquire()

    async def one_round() -> None:
        round_over.clear()
        go_on.release()
        await round_over.wait()

    assert policy.denying_rule("10.0.0.1", 6001) == "own_endpoint"
    assert policy.denying_rule("10.0.0.2", 6001) is None
    following = asyncio.ensure_future(
        own.follow(policy, lambda: drops.append("dropped"), pause=pause)
    )
    await round_over.wait()
    await one_round()
    assert drops == []
    records |= {"db.internal": ["10.0.0.2"], "late": ["10.0.0.3"], "127.0.0.1": ["127.0.0.1"]}
    await one_round()
    assert drops == ["dropped"]
    assert policy.denying_rule("10.0.0.1", 6001) is None
    assert policy.denying_rule("10.0.0.2", 6001) == "own_endpoint"
    assert policy.denying_rule("10.0.0.3", 6001) == "own_endpoint"
    assert own.unresolved == []
    # A name server that is away changes nothing.
    records.clear()
    await one_round()
    assert policy.denying_rule("10.0.0.2", 6001) == "own_endpoint"
    assert pauses == [2.0, 4.0, 15.0, 15.0]
    following.cancel()
