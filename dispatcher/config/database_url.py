"""Database URLs as libpq reads them: parsed once, by one function, for every connection of ours.

`parse_database_url` follows libpq's grammar (PostgreSQL 18, "Connection URIs"), including what
`urllib` reads differently: a password may hold `?` and `#`, and `+` is a plus sign. A parameter is
either honoured or reported by name: a URL never loses a guarantee silently. The variables that libpq
reads (`PGHOST`, `PGSSLMODE`, ...) fill in what a URL leaves out.

A URL that comes from a file is read again for each new connection (`UrlSource`), so that a rotated
password takes effect without a restart. Only the user and the password may change this way; hosts
are fixed at start because the egress guard protects them.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from dispatcher.config.database_parameters import (
    VARIABLES,
    VERSIONS,
    quoted,
    value_problem,
    variable_of,
)
from dispatcher.core.errors import ConfigurationError

PORT_DEFAULT: Final = 5432
PORT_MAX: Final = 65_535
URL_BYTES_MAX: Final = 1024 * 1024

_ADVICE: Final = "Use postgresql://user:password@host:5432/database."

_VERIFYING: Final = frozenset({"verify-ca", "verify-full"})


class DatabaseHost(NamedTuple):
    """One server of a URL."""

    host: str
    """A name, an address, or a directory that holds the socket; empty: the default directories."""
    port: int
    address: str = ""
    """The address to connect to, where `hostaddr` gives one; `host` is then the name in the certificate."""

    @property
    def is_socket(self) -> bool:
        """Whether the server is reached through a Unix socket."""
        return not self.address and self.host.startswith(("/", "@"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsParameters:
    """How the connection is encrypted; empty paths mean the defaults of libpq below `~/.postgresql`."""

    mode: str = "prefer"
    is_direct: bool = False
    certificate: str = ""
    key: str = field(default="", repr=False)
    key_password: str = field(default="", repr=False)
    sends_certificate: bool = True
    roots: str = ""
    """A file, `system` for the roots of the operating system, or empty."""
    revoked: str = ""
    revoked_directory: str = ""
    version_min: str = "TLSv1.2"
    version_max: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpParameters:
    """Options of the socket; 0 leaves a value to the operating system."""

    keepalive: bool = True
    idle_seconds: int = 0
    interval_seconds: int = 0
    probes_max: int = 0
    user_timeout_milliseconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """What a database URL means; credentials never appear in its `repr`."""

    hosts: tuple[DatabaseHost, ...]
    user: str | None = None
    """None: the name of the operating system's user."""
    password: str | None = field(default=None, repr=False)
    passfile: str | None = None
    database: str | None = None
    """None: the name of the user."""
    application_name: str = "dispatcher"
    options: str = ""
    target: str = "any"
    """`any`, `primary` or `read-write`."""
    shuffles: bool = False
    connect_seconds: int | None = None
    """For each host; None: the caller's limit."""
    tls: TlsParameters = TlsParameters()
    tcp: TcpParameters = TcpParameters()
    warnings: tuple[str, ...] = ()

    def addresses(self) -> list[tuple[str, int]]:
        """Return every (host or address, port) that a connection may be opened to, sockets excluded."""
        places: list[tuple[str, int]] = []
        for server in self.hosts:
            if server.is_socket:
                continue
            names = [name for name in (server.host, server.address) if name] or ["localhost"]
            places += [(name, server.port) for name in names]
        return list(dict.fromkeys(places))


def parse_database_url(text: str, environ: Mapping[str, str] | None = None) -> DatabaseUrl:
    """Return what a URL means, completed by the variables of libpq in `environ` (the process's own if None).

    Raises:
        ConfigurationError: the URL is malformed, or has parameters that cannot be honoured. Every
        problem is reported, without the variable's name, and without any value of the URL that may
        be secret.
    """
    problems: list[str] = []
    given = _split(text, problems)
    values = dict(given)
    for variable, key in VARIABLES.items():
        value = (os.environ if environ is None else environ).get(variable, "")
        if value and not values.get(key):
            values[key] = value
    names = {key: key if given.get(key) else variable_of(key) for key in values}
    for key, value in values.items():
        problem = value_problem(key, value)
        if problem:
            problems.append(f"{names[key]}: {problem}.")
    if problems:
        raise ConfigurationError(problems)
    hosts = _hosts(values, problems)
    tls, warnings = _tls(values, problems)
    if problems:
        raise ConfigurationError(problems)
    return DatabaseUrl(
        hosts=hosts,
        user=values.get("user") or None,
        password=values.get("password") or None,
        passfile=values.get("passfile") or None,
        database=values.get("dbname") or None,
        application_name=values.get("application_name")
        or values.get("fallback_application_name")
        or "dispatcher",
        options=values.get("options", ""),
        # Among several servers only the one that can be written to is of use.
        target=values.get("target_session_attrs") or ("any" if len(hosts) == 1 else "read-write"),
        shuffles=values.get("load_balance_hosts") == "random",
        connect_seconds=_number(values, "connect_timeout") or None,
        tls=tls,
        tcp=TcpParameters(
            keepalive=values.get("keepalives", "1") == "1",
            idle_seconds=_number(values, "keepalives_idle"),
            interval_seconds=_number(values, "keepalives_interval"),
            probes_max=_number(values, "keepalives_count"),
            user_timeout_milliseconds=_number(values, "tcp_user_timeout"),
        ),
        warnings=warnings,
    )


def database_addresses(
    text: str, environ: Mapping[str, str] | None = None
) -> list[tuple[str, int]]:
    """Return every (host or address, port) of a database URL: what the egress guard protects.

    Raises:
        ConfigurationError: as `parse_database_url`.
    """
    return parse_database_url(text, environ).addresses()


class UrlSource:
    """Where a database URL comes from: a string, or a file that is read again for each connection."""

    def __init__(self, text: str, path: Path | None = None) -> None:
        """Parse `text`, the URL at start; `path` is the file that it was read from.

        Raises:
            ConfigurationError: the URL is malformed or cannot be honoured.
        """
        self.path = path
        self._first = self._last = parse_database_url(text)

    @property
    def first(self) -> DatabaseUrl:
        """What the URL meant at start."""
        return self._first

    def read(self, warn: Callable[[str], None] = lambda _: None) -> DatabaseUrl:
        """Return the URL with the credentials that the file holds now. Blocks for one small read.

        A file that is absent or invalid for the moment leaves the credentials as they were, and
        `warn` receives the reason: the tool that rotates them may be writing the file at that moment.
        """
        if self.path is None:
            return self._first
        try:
            with self.path.open("rb") as file:
                text = file.read(URL_BYTES_MAX).decode("utf-8-sig").rstrip("\r\n")
            current = parse_database_url(text)
        except (OSError, UnicodeDecodeError, ConfigurationError) as error:
            reason = getattr(error, "strerror", None) or (
                "; ".join(error.problems)
                if isinstance(error, ConfigurationError)
                else "it is not UTF-8 text"
            )
            warn(f"{self.path} cannot be used: {reason} The previous credentials stay in use.")
            return self._last
        self._last = replace(self._first, user=current.user, password=current.password)
        if replace(current, user=None, password=None) != replace(
            self._first, user=None, password=None
        ):
            warn(
                f"{self.path} changed in more than the user and the password. Restart to apply it."
            )
        return self._last


def _split(text: str, problems: list[str]) -> dict[str, str]:
    """Return the parameters of a URL by libpq's names; the grammar is that of `conninfo_uri_parse_options`."""
    match = re.fullmatch(r"postgres(?:ql)?://(.*)", text, re.DOTALL)
    if match is None:
        problems.append(f"The URL does not begin with postgresql://. {_ADVICE}")
        return {}
    if re.search(r"[\x00-\x20\x7f]", text):
        problems.append(f"The URL contains spaces or control characters. {_ADVICE}")
        return {}
    rest = match[1]
    values: dict[str, str] = {}
    credentials = re.match(r"([^@/]*)@", rest)
    if credentials is not None:
        user, separator, password = credentials[1].partition(":")
        values["user"] = _decoded("user", user, problems)
        if separator:
            values["password"] = _decoded("password", password, problems)
        rest = rest[credentials.end() :]
    authority = re.match(r"(?:\[[^\]]*\]|[^/?\[])*", rest)
    place = authority[0] if authority else ""
    rest = rest[len(place) :]
    path, _, query = rest.partition("?")
    if path and not path.startswith("/"):
        problems.append(f"The URL is malformed after the host. {_ADVICE}")
        return {}
    if place:
        hosts, ports = [], []
        for number, entry in enumerate(place.split(","), start=1):
            found = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::([^:]*))?", entry)
            if found is None:
                problems.append(f"Host {number} of the URL is malformed. {_ADVICE}")
                return {}
            hosts.append(_decoded("host", found[1] or found[2] or "", problems))
            ports.append(_decoded("port", found[3] or "", problems))
        values["host"], values["port"] = ",".join(hosts), ",".join(ports)
        if not any(ports):
            del values["port"]
    if path[1:]:
        values["dbname"] = _decoded("dbname", path[1:], problems)
    for part in query.split("&") if query else []:
        name, separator, value = part.partition("=")
        key = _decoded("parameter", name, problems)
        if not separator or "=" in value or not key:
            problems.append(f"The query of the URL is malformed after ?. {_ADVICE}")
            continue
        decoded = _decoded(key, value, problems)
        if key == "ssl" and decoded == "true":  # what JDBC writes; libpq reads it this way too
            key, decoded = "sslmode", "require"
        values[key] = decoded
    return values


def _decoded(name: str, text: str, problems: list[str]) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})", text) or "%00" in text:
        problems.append(
            f"{name}: invalid percent encoding. Write % as %25, and no other than %01 to %FF."
        )
        return ""
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        problems.append(f"{name}: invalid percent encoding. Encode the bytes of UTF-8 text.")
        return ""


def _number(values: Mapping[str, str], key: str) -> int:
    return int(values.get(key) or "0")


def _hosts(values: Mapping[str, str], problems: list[str]) -> tuple[DatabaseHost, ...]:
    hosts = (values.get("host") or "").split(",")
    addresses = (values.get("hostaddr") or "").split(",")
    count = max(len(hosts), len(addresses))
    if len(addresses) == 1 and not addresses[0]:
        addresses = [""] * count
    if len(hosts) == 1 and not hosts[0]:
        hosts = [""] * count
    if not len(hosts) == len(addresses) == count:
        problems.append(
            f"hostaddr: {len(addresses)} addresses for {len(hosts)} hosts. Give one for each host."
        )
    ports = (values.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= count
    if len(ports) != count:
        problems.append(f"port: {len(ports)} ports for {count} hosts. Give one, or one for each.")
    problems += [
        f"port: {quoted(port)} is not a port. Use 1 to 65535."
        for port in ports
        if port and not (re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= PORT_MAX)
    ]
    for address in filter(None, addresses):
        try:
            ip_address(address.partition("%")[0])
        except ValueError:
            problems.append(
                f"hostaddr: {quoted(address)} is not an IP address. Use host for a name."
            )
    if problems:
        return ()
    return tuple(
        DatabaseHost(host, int(port or PORT_DEFAULT), address)
        for host, port, address in zip(hosts, ports, addresses, strict=True)
    )


def _tls(values: Mapping[str, str], problems: list[str]) -> tuple[TlsParameters, tuple[str, ...]]:
    warnings: list[str] = []
    roots = values.get("sslrootcert", "")
    # As libpq since version 16: the system's roots without verification would protect nothing.
    mode = values.get("sslmode") or ("verify-full" if roots == "system" else "prefer")
    if roots == "system" and mode != "verify-full":
        if mode in {"require", "verify-ca"}:
            problems.append(
                f"sslmode: {mode} is too weak for sslrootcert=system, because every server with a"
                " public certificate would pass. Use sslmode=verify-full."
            )
        else:
            warnings.append(
                f"sslrootcert=system has no effect with sslmode={mode}. Use sslmode=verify-full."
            )
    is_direct = values.get("sslnegotiation") == "direct"
    if is_direct and mode not in {"require", *_VERIFYING}:
        problems.append(
            "sslnegotiation: direct needs encryption. Use sslmode=require, verify-ca or verify-full."
        )
    low = values.get("ssl_min_protocol_version") or "TLSv1.2"
    high = values.get("ssl_max_protocol_version") or ""
    if high and VERSIONS.index(low) > VERSIONS.index(high):
        problems.append("ssl_min_protocol_version: above ssl_max_protocol_version. Lower it.")
    return (
        TlsParameters(
            mode=mode,
            is_direct=is_direct,
            certificate=values.get("sslcert", ""),
            key=values.get("sslkey", ""),
            key_password=values.get("sslpassword", ""),
            sends_certificate=values.get("sslcertmode") != "disable",
            roots=roots,
            revoked=values.get("sslcrl", ""),
            revoked_directory=values.get("sslcrldir", ""),
            version_min=low,
            version_max=high,
        ),
        tuple(warnings),
    )
