"""The HTTP client of one process: resolver, egress guard and connections, built from the settings.

`dispatcher run` and the commands that send a single request (a test event) use the same client.
"""

from collections.abc import Iterable
from ssl import PROTOCOL_TLS_CLIENT, SSLContext, SSLError

from dispatcher.config.sections import RESERVED_SEATS
from dispatcher.config.settings import Settings
from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.credentials import Credentials, OAuthGrant
from dispatcher.core.url import CanonicalUrl
from dispatcher.outbound.access_tokens import AccessTokens
from dispatcher.outbound.descriptor_limits import Descriptors, limit_in_force, share_out
from dispatcher.outbound.dialer import Egress
from dispatcher.outbound.documents import DocumentClient
from dispatcher.outbound.pool import Connections, Target
from dispatcher.outbound.resolver import AresLookup, Resolver, ThreadedLookup
from dispatcher.outbound.tls import TlsContexts
from dispatcher.runtime.clock import Clock
from dispatcher.runtime.tasks import TaskSet


class HttpClient:
    """The client that sends every outgoing request; needs a running loop."""

    def __init__(
        self,
        settings: Settings,
        tasks: TaskSet,
        clock: Clock,
        *,
        protected: Iterable[tuple[str, int]],
    ) -> None:
        egress = settings.egress
        self._tasks = tasks
        self._clock = clock
        self._tls = TlsContexts(
            ca_file=egress.ca_file or None, is_strict=egress.strict_certificates
        )
        self.policy = address_policy(settings, protected)
        lookup = AresLookup(egress.dns_servers) if egress.resolver == "aiodns" else ThreadedLookup()
        self.resolver = Resolver(
            lookup,
            spawn=lambda coroutine: tasks.spawn("resolve", coroutine),
            monotonic=clock.monotonic,
        )
        self.descriptors = descriptors_for(settings)
        self.egress = Egress(
            self.policy,
            self.resolver,
            monotonic=clock.monotonic,
            first_kept_descriptor=self.descriptors.first_kept,
        )
        self.connections = Connections(
            self.egress,
            spawn=lambda coroutine: tasks.spawn("connect", coroutine),
            monotonic=clock.monotonic,
            idle_seconds_max=egress.keep_alive_seconds,
            open_count_max=self.descriptors.connections_max,
            keeps_successes=settings.attempts.keep_response == "all",
        )

    def documents(self) -> DocumentClient:
        """Return a client for small documents, behind the same egress guard."""
        return DocumentClient(self.egress, self._tls.trust(None))

    def make_target(
        self,
        url: CanonicalUrl,
        ca_pem: str | None,
        label: str,
        credentials: Credentials | None = None,
    ) -> Target:
        """Return the target of a URL; its TLS context is built when a connection needs it.

        Raises:
            ValueError: `ca_pem` does not have the form of certificates.
        """
        grant = None if credentials is None else credentials.grant
        access = None if grant is None else self._access(grant)
        if url.scheme == "http":
            return Target(url.scheme, url.host, url.port, label=label, access=access)
        client = None if credentials is None else credentials.client
        tls = self._tls.trust(ca_pem, client)
        return Target(url.scheme, url.host, url.port, tls=tls, label=label, access=access)

    def _access(self, grant: OAuthGrant) -> AccessTokens:
        return AccessTokens(
            grant,
            self.documents(),
            spawn=lambda coroutine: self._tasks.spawn("access_token", coroutine),
            monotonic=self._clock.monotonic,
        )

    def drop_target(self, target: Target) -> None:
        """Close the idle connections of a target that is no longer used."""
        self.connections.drop(target)

    async def close(self) -> None:
        """Abort every connection."""
        await self.connections.aclose()
        await self.egress.aclose()
        self._tls.close()


def address_policy(settings: Settings, protected: Iterable[tuple[str, int]]) -> AddressPolicy:
    """Return the addresses that requests may be sent to."""
    egress = settings.egress
    return AddressPolicy.parse(
        allow_networks=[str(network) for network in egress.allow_networks],
        allow_ports=egress.allow_ports,
        deny_endpoints=protected,
        allow_metadata=egress.allow_metadata,
    )


def descriptors_for(settings: Settings) -> Descriptors:
    """Return how this process divides its file descriptors."""
    return share_out(
        limit_in_force(),
        concurrency_total=settings.delivery.concurrency_total,
        pool_size=settings.database.pool_size,
        listener_connections=settings.http.connections_max + RESERVED_SEATS,
    )


def trust_problems(settings: Settings) -> list[str]:
    """Return the problems of the certificate authorities in the settings."""
    ca_file = settings.egress.ca_file
    if not ca_file:
        return []
    try:
        SSLContext(PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)
    except (OSError, SSLError) as error:
        reason = (
            error.strerror
            if isinstance(error, FileNotFoundError)
            else "it holds no certificate in PEM form"
        )
        return [f"egress.ca_file: {ca_file} cannot be used: {reason}"]
    return []
