"""Decides where a request may go: the deny table, the allow-list, the ports; one verdict per address.

The order of the rules is the policy, and each rule wins over the ones below it:

1. what is denied regardless of the settings: the unspecified addresses, and the pairs of address and
   port that are ourselves (our listener, the database);
2. the port;
3. cloud metadata services, unless `allow_metadata` is set, and then they still need rule 4;
4. `allow_networks`, by CIDR;
5. an IPv6 address that carries an IPv4 address: denied in every form, a public one too, because a
   gateway between may deliver it anywhere; a deployment with such a gateway names its prefix under
   rule 4, and then the IPv4 address inside is checked by these rules as well;
6. the deny table: special-purpose and multicast ranges of both families;
7. IPv6 outside global unicast (2000::/3).

`ipaddress.is_global` is not asked: it calls NAT64, `::a.b.c.d`, fec0::1 and multicast addresses
global (measured on Python 3.11 to 3.13), and its results change between versions.

Sources: the IANA special-purpose registries (RFC 6890), RFC 4291, 4380, 5214, 6052, 8215.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

from dispatcher.core.errors import ConfigurationError

_PORT_MAX: Final = 65_535
# A verdict costs some microseconds and the same few addresses come back with each connection.
_VERDICTS_KEPT_MAX: Final = 4_096

DATABASE_PORTS: Final = frozenset(
    {
        1433,  # SQL Server
        1521,  # Oracle
        2379,  # etcd
        3306,  # MySQL
        5432,  # PostgreSQL
        5984,  # CouchDB
        6379,  # Redis
        6432,  # PgBouncer
        7687,  # Neo4j
        8086,  # InfluxDB
        8123,  # ClickHouse
        9042,  # Cassandra
        9200,  # Elasticsearch
        9300,  # Elasticsearch
        11211,  # memcached
        33060,  # MySQL X
        26257,  # CockroachDB
        27017,  # MongoDB
    }
)
"""Ports where a forged POST could reach a store; a range in the settings does not open them."""

_METADATA: Final = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, Azure, Google, OpenStack and others
            "169.254.169.253",  # AWS name server
            "169.254.170.2",  # AWS container credentials
            "169.254.170.23",  # AWS pod identity
            "169.254.42.42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure wire server: a public address that is none
            "192.0.0.192",  # Oracle
            "fd00:ec2::254",  # AWS
            "fd00:ec2::253",  # AWS name server
            "fd00:ec2::23",  # AWS pod identity
            "fd20:ce::254",  # Google
            "fd00:42::42",  # Scaleway
        ),
    )
)

_DENIED_V4: Final = tuple(
    (IPv4Network(network), rule)
    for network, rule in (
        ("0.0.0.0/8", "this_network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link_local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "special_purpose"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "special_purpose"),
        ("192.52.193.0/24", "special_purpose"),
        ("192.88.99.0/24", "special_purpose"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "special_purpose"),
        ("198.18.0.0/15", "special_purpose"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)

_DENIED_V6: Final = tuple(
    (IPv6Network(network), rule)
    for network, rule in (
        ("::1/128", "loopback"),
        ("100::/64", "special_purpose"),
        ("100:0:0:1::/64", "special_purpose"),
        ("2001::/23", "special_purpose"),
        ("2001:db8::/32", "documentation"),
        ("2620:4f:8000::/48", "special_purpose"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "special_purpose"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link_local"),
        ("fec0::/10", "site_local"),
        ("ff00::/8", "multicast"),
    )
)

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")

_EMBEDDED_LOW: Final = tuple(
    map(
        IPv6Network,
        (
            "::/96",  # IPv4-compatible
            "::ffff:0:0/96",  # IPv4-mapped
            "::ffff:0:0:0/96",  # IPv4-translated
            "64:ff9b::/96",  # NAT64
            "64:ff9b:1::/48",  # NAT64 for local use; a layout other than /96 reads as denied
        ),
    )
)
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_LOOPBACK_V6: Final = IPv6Address(1)
_ISATAP_INTERFACES: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
_LOW_32: Final = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class PortPolicy:
    """The ports that a URL may name; database ports count only where they are named singly."""

    single: frozenset[int]
    ranges: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[int | str]) -> "PortPolicy":
        """Reads the setting's form: numbers, and ranges such as "1024-65535", both ends included.

        Raises:
            ConfigurationError: an entry is no port or no range; all faults at once.
        """
        single: set[int] = set()
        ranges: list[tuple[int, int]] = []
        problems: list[str] = []
        for entry in entries:
            first, dash, last = str(entry).partition("-")
            bounds = [_port(first), _port(last if dash else first)]
            if None in bounds or (bounds[0] or 0) > (bounds[1] or 0):
                problems.append(f"egress.allow_ports: {entry!r} is not a port or a range of ports")
            elif dash:
                ranges.append((int(first), int(last)))
            else:
                single.add(int(first))
        if problems:
            raise ConfigurationError(problems)
        return cls(frozenset(single), tuple(ranges))

    def allows(self, port: int) -> bool:
        """Return whether a request may go to this port."""
        if port in self.single:
            return True
        if port in DATABASE_PORTS:
            return False
        return any(first <= port <= last for first, last in self.ranges)


def _port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= _PORT_MAX:
        return None
    return int(text)


DEFAULT_PORTS: Final = PortPolicy(frozenset({80, 443}), ((1024, _PORT_MAX),))


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The egress policy of a deployment; immutable, except for the addresses that are our own.

    `deny_endpoints` are pairs of address and port that are us: an unspecified address there (a
    listener on all interfaces) denies that port on every loopback address, and a person who knows the
    interfaces' addresses lists them too.
    """

    allow_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    allow_ports: PortPolicy = DEFAULT_PORTS
    deny_endpoints: frozenset[tuple[IPv4Address | IPv6Address, int]] = frozenset()
    allow_metadata: bool = False
    _verdicts: dict[tuple[str, int], str | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def parse(
        cls,
        *,
        allow_networks: Iterable[str] = (),
        allow_ports: Iterable[int | str] | None = None,
        deny_endpoints: Iterable[tuple[str, int]] = (),
        allow_metadata: bool = False,
    ) -> "AddressPolicy":
        """Reads the settings' form: CIDRs, ports and ranges, numeric addresses.

        Raises:
            ConfigurationError: a CIDR, a port or an address cannot be read; all faults at once.
        """
        problems: list[str] = []
        networks: list[IPv4Network | IPv6Network] = []
        for text in allow_networks:
            try:
                networks.append(ip_network(text))
            except ValueError as fault:
                problems.append(f"egress.allow_networks: {fault}")
        denied: set[tuple[IPv4Address | IPv6Address, int]] = set()
        for address, port in deny_endpoints:
            try:
                denied.add((ip_address(address), port))
            except ValueError as fault:
                problems.append(f"address to protect: {fault}")
        ports = DEFAULT_PORTS
        if allow_ports is not None:
            try:
                ports = PortPolicy.parse(allow_ports)
            except ConfigurationError as fault:
                problems += fault.problems
        if problems:
            raise ConfigurationError(problems)
        return cls(tuple(networks), ports, frozenset(denied), allow_metadata)

    def protect(self, endpoints: Iterable[tuple[str, int]]) -> bool:
        """Replace `deny_endpoints`, because names resolve to other addresses now; return whether they changed.

        Connections that are open stay open: the caller drops them.
        """
        denied = frozenset((ip_address(address), port) for address, port in endpoints)
        if denied == self.deny_endpoints:
            return False
        object.__setattr__(self, "deny_endpoints", denied)
        self._verdicts.clear()
        return True

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the warnings about this policy that are logged at start."""
        told = [
            f"egress.allow_networks contains {network}: every IPv{network.version} address is open "
            "to everyone who may save an endpoint, internal services included"
            for network in self.allow_networks
            if network.prefixlen == 0
        ]
        if told and not self.allow_metadata:
            told.append("egress.allow_metadata is not set: metadata services stay denied")
        if self.allow_metadata:
            told.append(
                "egress.allow_metadata is set: endpoints may read the credentials of this machine "
                "where egress.allow_networks contains a metadata address"
            )
        return tuple(told)

    def denying_rule(self, ip: str, port: int) -> str | None:
        """Return None when a connection may be opened, else the name of the rule that denies it.

        `ip` is numeric, IPv6 without brackets. What cannot be read as an address is denied
        (`unreadable`): only a canonical spelling means the same to us and to the kernel.
        """
        key = (ip, port)
        try:
            return self._verdicts[key]
        except KeyError:
            pass
        try:
            verdict = self._judge(ip_address(ip), port)
        except ValueError:
            verdict = "unreadable"
        if len(self._verdicts) >= _VERDICTS_KEPT_MAX:
            self._verdicts.clear()
        self._verdicts[key] = verdict
        return verdict

    def _judge(self, address: IPv4Address | IPv6Address, port: int) -> str | None:
        embedded = embedded_ipv4(address)
        for one in (address, *embedded):
            if one.is_unspecified:
                return "unspecified"
            if (one, port) in self.deny_endpoints or (
                one.is_loopback and self._is_denied_everywhere(port)
            ):
                return "own_endpoint"
        if not self.allow_ports.allows(port):
            return "port"
        if not self.allow_metadata and not _METADATA.isdisjoint((address, *embedded)):
            return "metadata"
        if any(address in network for network in self.allow_networks):
            verdicts = (self._judge(one, port) for one in embedded)
            return next((verdict for verdict in verdicts if verdict), None)
        if embedded:
            return "embedded_ipv4"
        if address in _METADATA:
            return "metadata"
        return denied_range(address)

    def _is_denied_everywhere(self, port: int) -> bool:
        return any(one.is_unspecified and denied == port for one, denied in self.deny_endpoints)


def denied_range(address: IPv4Address | IPv6Address) -> str | None:
    """Return the name of the denied range that holds the address; embedded forms aside."""
    if isinstance(address, IPv4Address):
        return next((rule for network, rule in _DENIED_V4 if address in network), None)
    for network, rule in _DENIED_V6:
        if address in network:
            return rule
    return None if address in _GLOBAL_UNICAST else "not_global_unicast"


def embedded_ipv4(address: IPv4Address | IPv6Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that an IPv6 address carries: mapped, NAT64, 6to4, Teredo, ISATAP.

    Empty for IPv4, for `::` and `::1`, and for plain IPv6. Teredo carries two: its server's and
    its client's.
    """
    if isinstance(address, IPv4Address) or address.is_unspecified or address == _LOOPBACK_V6:
        return ()
    number = int(address)
    if any(address in network for network in _EMBEDDED_LOW):
        return (IPv4Address(number & _LOW_32),)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(number >> 80 & _LOW_32),)
    if address in _TEREDO:
        return (IPv4Address(number >> 64 & _LOW_32), IPv4Address(~number & _LOW_32))
    if number >> 32 & _LOW_32 in _ISATAP_INTERFACES:
        return (IPv4Address(number & _LOW_32),)
    return ()


RULES: Final = frozenset(
    {rule for _, rule in (*_DENIED_V4, *_DENIED_V6)}
    | {
        "unspecified",
        "own_endpoint",
        "port",
        "metadata",
        "embedded_ipv4",
        "not_global_unicast",
        "unreadable",
    }
)
"""Every rule that `denying_rule` can return: the values of a metric's label."""
