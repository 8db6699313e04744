"""Opens connections as a database URL describes: hosts in turn, TLS, credentials, options of the socket.

The pool, the LISTEN connection, `migrate` and the other commands all connect through `Connector`.
The driver's own list of hosts is not used, because one time limit covers all of it there: a first
host that drops packets would use up the whole limit, and the second would never be tried. Here each
host has its own limit, and the next connection starts with the host that worked last.

A URL from a file is read again for each connection, and so are the password file and the
certificates, so that a rotated credential needs no restart. Reading happens in a thread: the event
loop never waits for a disk.
"""

import asyncio
import contextlib
import os
import random
import socket
import ssl
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

import asyncpg
import structlog

from dispatcher.config.database_url import DatabaseHost, DatabaseUrl, TlsParameters, UrlSource

if TYPE_CHECKING:
    from asyncpg import Connection, Record

_log = structlog.get_logger("dispatcher.store.connector")

SECONDS_PER_HOST_MIN: Final = 2.0
_NEXT_HOST: Final = (
    OSError,  # includes TimeoutError
    asyncpg.CannotConnectNowError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""What makes libpq try the next host. A refused password is not among it: all hosts share it."""
_VERIFYING: Final = frozenset({"verify-ca", "verify-full"})


class Connector:
    """Opens connections to whichever host of one URL works; cheap, and safe to share between tasks."""

    def __init__(self, source: UrlSource | str) -> None:
        """Validate the URL; connect to nothing.

        Raises:
            ConfigurationError: the URL is malformed or cannot be honoured.
        """
        self._source = UrlSource(source) if isinstance(source, str) else source
        self._first_index = 0
        self._connected: DatabaseHost | None = None
        self._warned = ""

    def seconds_in_all(self, seconds: float) -> float:
        """Return how long `connect(seconds=seconds)` may take when every host times out."""
        url = self._source.first
        return len(url.hosts) * _seconds_per_host(url, seconds)

    async def connect(
        self,
        *,
        seconds: float,
        purpose: str = "",
        **options: Any,  # noqa: ANN401 -- the driver's own
    ) -> "Connection[Record]":
        """Return a connection to the first host that accepts one and is what the URL asks for.

        Args:
            seconds: the limit for all hosts, where the URL sets no `connect_timeout` for each.
            purpose: appended to the application's name, for `pg_stat_activity`.
            options: arguments of `asyncpg.connect`.

        Raises:
            OSError: no host could be reached in time, or none can be written to.
            asyncpg.PostgresError: a host refused the connection.
        """
        url = await asyncio.to_thread(self._source.read, self._warn)
        limit = _seconds_per_host(url, seconds)
        failures: list[tuple[DatabaseHost, BaseException]] = []
        for index in self._order(url):
            server = url.hosts[index]
            # If the caller's limit ends this attempt, the next one starts with another host.
            self._first_index = (index + 1) % len(url.hosts)
            try:
                connection = await _connect_to(url, server, limit, purpose, options)
            except _NEXT_HOST as error:
                failures.append((server, error))
            else:
                self._first_index = index
                if len(url.hosts) > 1 and self._connected != server:
                    self._connected = server
                    _log.info("database.host_chosen", host=server.host, port=server.port)
                return connection
        if len(failures) == 1:
            raise failures[0][1]
        raise ConnectionError(
            "; ".join(
                f"{server.host or server.address}:{server.port}: {str(error) or type(error).__name__}"
                for server, error in failures
            )
        ) from failures[-1][1]

    def _order(self, url: DatabaseUrl) -> list[int]:
        indexes = list(range(len(url.hosts)))
        if url.shuffles:
            random.shuffle(indexes)
            return indexes
        return indexes[self._first_index :] + indexes[: self._first_index]

    def _warn(self, text: str) -> None:
        if text != self._warned:  # once, not for each connection
            self._warned = text
            _log.warning("database.url_file_rejected", reason=text)


def _seconds_per_host(url: DatabaseUrl, seconds: float) -> float:
    return url.connect_seconds or max(seconds / len(url.hosts), SECONDS_PER_HOST_MIN)


async def _connect_to(
    url: DatabaseUrl, server: DatabaseHost, limit: float, purpose: str, options: Mapping[str, Any]
) -> "Connection[Record]":
    settings = {
        "application_name": " ".join(filter(None, (url.application_name, purpose))),
        **({"options": url.options} if url.options else {}),
        **(options.get("server_settings") or {}),
    }
    prepared = await asyncio.to_thread(_prepare, url, server)
    connection = await asyncpg.connect(
        **{
            **options,
            **prepared,
            "host": server.address or server.host or None,
            "port": server.port,
            "user": url.user,
            "database": url.database,
            "target_session_attrs": url.target,
            "timeout": limit,
            "server_settings": settings,
        }
    )
    _set_socket_options(connection, url)
    return cast("Connection[Record]", connection)


def _prepare(url: DatabaseUrl, server: DatabaseHost) -> dict[str, Any]:
    """Read the password and certificates from their files. Blocks."""
    arguments: dict[str, Any] = {"password": url.password}
    passfile = _passfile(url)
    if url.password is None and passfile is not None:
        arguments["passfile"] = passfile
        if server.address:
            # The driver looks for the address that it connects to, libpq for the name.
            arguments["password"] = _password_of(passfile, url, server)
    if server.is_socket or url.tls.mode == "disable":
        return {**arguments, "ssl": False}
    if url.tls.mode in {"allow", "prefer"}:
        # These fall back to another mode, which only the driver can do; nothing is verified.
        files = {
            "sslmode": url.tls.mode,
            "sslcert": url.tls.certificate,
            "sslkey": url.tls.key,
            "sslpassword": url.tls.key_password,
            "ssl_min_protocol_version": url.tls.version_min,
            "ssl_max_protocol_version": url.tls.version_max,
        }
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in files.items() if value)
        return {**arguments, "dsn": f"postgresql:///?{query}"}
    return {**arguments, "ssl": _make_context(url.tls, server), "direct_tls": url.tls.is_direct}


class _NamedContext(ssl.SSLContext):
    """A context that verifies the certificate for `host` where the connection goes to `hostaddr`."""

    server_name: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        name = self.server_name or server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, name, session)


def _make_context(tls: TlsParameters, server: DatabaseHost) -> ssl.SSLContext:
    """Return what `require`, `verify-ca` and `verify-full` mean, as libpq reads them."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    if server.address and server.host:
        context.server_name = server.host
    context.check_hostname = tls.mode == "verify-full"
    roots = tls.roots or _default_file("root.crt")
    if tls.roots == "system":
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    elif roots:
        with _naming("sslrootcert", roots):
            context.load_verify_locations(cafile=roots)
    elif tls.mode in _VERIFYING:
        raise FileNotFoundError(
            f"sslrootcert: sslmode={tls.mode} needs the authority's certificate. Give its file, or sslrootcert=system"
        )
    else:
        context.verify_mode = ssl.CERT_NONE  # sslmode=require without roots encrypts, no more
    if context.verify_mode != ssl.CERT_NONE:
        revoked = tls.revoked or _default_file("root.crl")
        if revoked or tls.revoked_directory:
            with _naming("sslcrl", revoked or tls.revoked_directory):
                context.load_verify_locations(
                    cafile=revoked or None, capath=tls.revoked_directory or None
                )
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    certificate = tls.certificate or _default_file("postgresql.crt")
    if certificate and tls.sends_certificate:
        key = tls.key or _default_file("postgresql.key")
        with _naming("sslcert", certificate):
            context.load_cert_chain(certificate, key or None, lambda: tls.key_password)
    context.minimum_version = _version(tls.version_min)
    if tls.version_max:
        context.maximum_version = _version(tls.version_max)
    context.set_alpn_protocols(["postgresql"])  # required for direct TLS
    return context


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]


@contextlib.contextmanager
def _naming(key: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        raise ConnectionError(f"{key}: {path} cannot be used: {error}") from error


def _default_file(name: str) -> str:
    """Return a file below `~/.postgresql` if it is there, else an empty string."""
    try:
        path = Path.home() / ".postgresql" / name
        return str(path) if path.is_file() else ""
    except (RuntimeError, OSError):
        return ""


def _passfile(url: DatabaseUrl) -> Path | None:
    if url.passfile:
        return Path(url.passfile)
    try:
        return Path.home() / ".pgpass"
    except (RuntimeError, KeyError):
        return None


def _password_of(passfile: Path, url: DatabaseUrl, server: DatabaseHost) -> str | None:
    """Return the password of the first line that fits; a file that others can read is ignored, as by libpq."""
    try:
        mode = passfile.stat().st_mode
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            return None
        lines = passfile.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    user = url.user or ""
    wanted = (server.host or server.address, str(server.port), url.database or user, user)
    for line in lines:
        fields = _fields(line)
        if len(fields) == len(wanted) + 1 and all(
            field in {"*", value} for field, value in zip(fields, wanted, strict=False)
        ):
            return fields[-1]
    return None


def _fields(line: str) -> list[str]:
    """Split a line of a password file at its colons; a backslash escapes a colon and itself."""
    if not line or line.startswith("#"):
        return []
    fields, escaped = [""], False
    for character in line:
        if escaped or character not in "\\:":
            fields[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            fields.append("")
    return fields


def _set_socket_options(connection: "asyncpg.Connection[Any]", url: DatabaseUrl) -> None:
    """Set keepalive and the user timeout, as libpq does; Unix sockets have neither."""
    transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001 -- the driver offers no other way
    found = transport.get_extra_info("socket")
    if found is None or found.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    # The loop's own socket object refuses options; a copy of the descriptor is the same socket.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(found.fileno())) as copy:
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(url.tcp.keepalive))
        for name, value in (
            ("TCP_KEEPIDLE", url.tcp.idle_seconds),
            ("TCP_KEEPINTVL", url.tcp.interval_seconds),
            ("TCP_KEEPCNT", url.tcp.probes_max),
            ("TCP_USER_TIMEOUT", url.tcp.user_timeout_milliseconds),
        ):
            number = getattr(socket, name, None)  # not on every operating system
            if value and number is not None:
                copy.setsockopt(socket.IPPROTO_TCP, number, value)
