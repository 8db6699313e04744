"""The address policy: rule by rule, in every disguise; rows A1, A2, A7 and A9."""

# ruff: noqa: RUF001, S104 -- the odd characters and addresses are what is tested

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dispatcher.core import addresses
from dispatcher.core.addresses import RULES, AddressPolicy, PortPolicy, embedded_ipv4
from dispatcher.core.errors import ConfigurationError

STRICT = AddressPolicy()
DENIED = {
    "0.0.0.0": "unspecified",
    "::": "unspecified",
    "0.1.2.3": "this_network",
    "10.1.2.3": "private",
    "100.64.0.1": "shared",
    "127.0.0.1": "loopback",
    "127.255.255.255": "loopback",
    "169.254.1.1": "link_local",
    "169.254.169.254": "metadata",
    "168.63.129.16": "metadata",
    "100.100.100.200": "metadata",
    "fd00:ec2::254": "metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.8": "special_purpose",
    "192.0.2.1": "documentation",
    "192.88.99.1": "special_purpose",
    "192.168.0.1": "private",
    "198.18.0.1": "special_purpose",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "reserved",
    "::1": "loopback",
    "100::1": "special_purpose",
    "2001:2::1": "special_purpose",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "5f00::1": "special_purpose",
    "fc00::1": "private",
    "fd12:3456::1": "private",
    "fe80::1": "link_local",
    "fec0::1": "site_local",
    "ff02::1": "multicast",
    "4000::1": "not_global_unicast",
    "1::1": "not_global_unicast",
}
DISGUISES = {
    "mapped": lambda four: f"::ffff:{four}",
    "compatible": lambda four: f"::{four}",
    "translated": lambda four: f"::ffff:0:{four}",
    "NAT64": lambda four: f"64:ff9b::{four}",
    "local NAT64": lambda four: f"64:ff9b:1::{four}",
    "6to4": lambda four: str(
        ipaddress.IPv6Address(0x2002 << 112 | int(ipaddress.IPv4Address(four)) << 80)
    ),
    "Teredo client": lambda four: str(
        ipaddress.IPv6Address(
            0x20010000 << 96
            | int(ipaddress.IPv4Address("8.8.8.8")) << 64
            | int(ipaddress.IPv4Address(four)) ^ 0xFFFFFFFF
        )
    ),
    "Teredo server": lambda four: str(
        ipaddress.IPv6Address(0x20010000 << 96 | int(ipaddress.IPv4Address(four)) << 64)
    ),
    "ISATAP": lambda four: f"2600::5efe:{four}",
    "ISATAP, global": lambda four: f"2600::200:5efe:{four}",
}
public_v4 = st.ip_addresses(v=4).filter(lambda one: addresses.denied_range(one) is None)


@pytest.mark.parametrize(("address", "rule"), DENIED.items())
def test_special_addresses_are_denied_by_name(address: str, rule: str):
    assert STRICT.denying_rule(address, 443) == rule


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1"])
def test_public_addresses_are_allowed(address: str):
    assert STRICT.denying_rule(address, 443) is None


@pytest.mark.parametrize("address", ["2606:4700::1111", "2a00:1450::1", "2001:4860:4860::8888"])
def test_public_ipv6_addresses_are_allowed(address: str):
    assert STRICT.denying_rule(address, 443) is None


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1", "[::1]", "１.1.1.1"],
)
def test_what_is_not_a_canonical_address_is_denied(text: str):
    assert STRICT.denying_rule(text, 443) == "unreadable"


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"])
def test_a2_an_ipv4_address_inside_an_ipv6_one_is_denied(disguise: str, address: str):
    dressed = DISGUISES[disguise](address)
    assert STRICT.denying_rule(dressed, 443) in {"embedded_ipv4", "metadata", "unspecified"}
    assert ipaddress.IPv4Address(address) in embedded_ipv4(ipaddress.ip_address(dressed))


@given(four=st.ip_addresses(v=4), disguise=st.sampled_from(sorted(DISGUISES)))
def test_a2_every_embedded_address_is_found_and_denied(four: ipaddress.IPv4Address, disguise: str):
    # `::` and `::1` are themselves; they are denied by their own names.
    assume(disguise != "compatible" or int(four) > 1)
    dressed = DISGUISES[disguise](str(four))
    assert four in embedded_ipv4(ipaddress.ip_address(dressed))
    assert STRICT.denying_rule(dressed, 443) is not None


def test_a2_nat64_prefix_allowed_still_validates_the_inner_address():
    policy = AddressPolicy.parse(allow_networks=["64:ff9b::/96"])
    assert policy.denying_rule("64:ff9b::8.8.8.8", 443) is None
    assert policy.denying_rule("64:ff9b::10.0.0.1", 443) == "private"
    assert policy.denying_rule("64:ff9b::169.254.169.254", 443) == "metadata"
    assert policy.denying_rule("64:ff9b::0.0.0.0", 443) == "unspecified"


def test_networks_are_allowed_by_cidr_and_no_further():
    policy = AddressPolicy.parse(allow_networks=["10.1.0.0/16", "fd00:1::/32"])
    assert policy.denying_rule("10.1.2.3", 443) is None
    assert policy.denying_rule("10.2.0.1", 443) == "private"
    assert policy.denying_rule("fd00:1::5", 443) is None
    assert policy.denying_rule("fd00:2::5", 443) == "private"


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "168.63.129.16"])
def test_a9_metadata_needs_its_flag_and_the_network(address: str):
    networks = ["0.0.0.0/0", "::/0"]
    assert AddressPolicy.parse(allow_networks=networks).denying_rule(address, 80) == "metadata"
    assert AddressPolicy.parse(allow_metadata=True).denying_rule(address, 80) == "metadata"
    both = AddressPolicy.parse(allow_networks=networks, allow_metadata=True)
    assert both.denying_rule(address, 80) is None


def test_a9_an_allow_list_of_everything_is_warned_of():
    policy = AddressPolicy.parse(allow_networks=["0.0.0.0/0"])
    assert len(policy.warnings) == 2
    assert "0.0.0.0/0" in policy.warnings[0]
    assert "metadata services stay denied" in policy.warnings[1]
    assert AddressPolicy.parse(allow_networks=["10.0.0.0/8"]).warnings == ()
    assert len(AddressPolicy.parse(allow_metadata=True).warnings) == 1


def test_a7_our_own_endpoints_are_denied_even_when_allow_listed():
    policy = AddressPolicy.parse(
        allow_networks=["0.0.0.0/0", "::/0"],
        deny_endpoints=[("127.0.0.1", 8080), ("10.0.0.5", 5433), ("0.0.0.0", 9090)],
    )
    assert policy.denying_rule("127.0.0.1", 8080) == "own_endpoint"
    assert policy.denying_rule("::ffff:127.0.0.1", 8080) == "own_endpoint"
    assert policy.denying_rule("127.0.0.1", 8081) is None
    assert policy.denying_rule("10.0.0.5", 5433) == "own_endpoint"
    assert policy.denying_rule("10.0.0.6", 5433) is None
    for loopback in ("127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"):
        assert policy.denying_rule(loopback, 9090) == "own_endpoint"
    assert policy.denying_rule("0.0.0.0", 8081) == "unspecified"
    assert policy.denying_rule("::", 8081) == "unspecified"


@pytest.mark.parametrize("port", [0, 1, 22, 25, 79, 81, 442, 1023, 3306, 5432, 6379, 65536])
def test_default_ports_leave_out_the_low_ones_and_the_databases(port: int):
    assert STRICT.denying_rule("8.8.8.8", port) == "port"


@pytest.mark.parametrize("port", [80, 443, 1024, 8080, 8443, 65535])
def test_default_ports_contain_what_web_servers_use(port: int):
    assert STRICT.denying_rule("8.8.8.8", port) is None


def test_a_database_port_counts_only_where_it_is_named_singly():
    assert not PortPolicy.parse(["1-65535"]).allows(5432)
    assert not PortPolicy.parse(["5432-5432"]).allows(5432)
    assert PortPolicy.parse(["1-65535", 5432]).allows(5432)
    assert PortPolicy.parse(["5432"]).allows(5432)


def test_an_empty_list_of_ports_allows_none():
    assert not PortPolicy.parse([]).allows(443)


def test_all_faults_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        AddressPolicy.parse(
            allow_networks=["10.0.0.1/8", "nonsense"],
            allow_ports=["x", "9-1", 0, 65536, "1-", "-1", "²"],
            deny_endpoints=[("localhost", 80)],
        )
    assert len(caught.value.problems) == 2 + 7 + 1


def test_remembered_verdicts_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(addresses, "_VERDICTS_KEPT_MAX", 10)
    policy = AddressPolicy()
    for number in range(100):
        assert policy.denying_rule(f"8.8.8.{number}", 443) is None
        assert policy.denying_rule(f"10.8.8.{number}", 443) == "private"
    assert len(policy._verdicts) <= 10


@given(
    address=st.ip_addresses(),
    port=st.integers(min_value=0, max_value=65_535),
    allow_metadata=st.booleans(),
)
def test_every_verdict_is_of_the_closed_set_and_never_changes(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, allow_metadata: bool
):
    policy = AddressPolicy.parse(allow_metadata=allow_metadata)
    verdict = policy.denying_rule(str(address), port)
    assert verdict is None or verdict in RULES
    assert policy.denying_rule(str(address), port) == verdict


@given(address=st.ip_addresses(), port=st.sampled_from([80, 443, 8080]))
def test_what_python_calls_private_is_never_allowed(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
):
    if not address.is_global or address.is_multicast:
        assert STRICT.denying_rule(str(address), port) is not None


@given(address=public_v4)
def test_public_ipv4_is_allowed_unless_it_is_metadata(address: ipaddress.IPv4Address):
    assert STRICT.denying_rule(str(address), 443) in {None, "metadata"}
