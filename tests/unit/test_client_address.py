"""Where a request came from: a proxy's word counts only where the settings trust it."""

from ipaddress import ip_network

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from dispatcher.admin.client_address import address_of, counted_address, is_encrypted, is_loopback

PROXIES = (ip_network("10.0.0.0/8"), ip_network("127.0.0.1/32"))


def asked(remote: str | None, **headers: str) -> web.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = make_mocked_request("GET", "/", headers=named)
    return request.clone(remote="" if remote is None else remote)


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("192.0.2.1", None, "192.0.2.1"),
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7, 10.1.1.1", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7, nonsense", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2, 10.0.0.3", "10.0.0.2"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", None, "2001:db8:1:2::/64"),
        ("fe80::1%eth0", None, "fe80::/64"),
        (None, None, "unknown"),
    ],
)
def test_the_nearest_address_that_is_no_trusted_proxy_counts(remote, forwarded, address):
    headers = {} if forwarded is None else {"X_Forwarded_For": forwarded}
    assert address_of(asked(remote, **headers), PROXIES) == address


def test_only_a_trusted_proxy_may_say_that_it_was_encrypted():
    assert is_encrypted(asked("10.0.0.1", X_Forwarded_Proto="https"), PROXIES)
    assert not is_encrypted(asked("10.0.0.1", X_Forwarded_Proto="http"), PROXIES)
    assert not is_encrypted(asked("192.0.2.1", X_Forwarded_Proto="https"), PROXIES)
    assert not is_encrypted(asked("10.0.0.1"), PROXIES)


def test_a_proxy_on_this_machine_does_not_make_its_callers_local():
    assert is_loopback(asked("127.0.0.1"), PROXIES)
    assert is_loopback(asked("::1"), PROXIES)
    assert not is_loopback(asked("127.0.0.1", X_Forwarded_For="198.51.100.7"), PROXIES)
    assert not is_loopback(asked("192.0.2.1"), PROXIES)


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff::2", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
    ],
)
def test_a_sockets_address_counts_with_its_neighbours(text, counted):
    assert counted_address(text) == counted
