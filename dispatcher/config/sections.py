"""The settings as types: one frozen class per section of `dispatcher.toml`.

What each key means, its unit, its reason and the one meaning of its 0 or empty value stand in
`config/dispatcher.toml`; a test holds that file and these classes together. Numbers are never
negative, and 0 is refused wherever the file gives it no meaning.
"""

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from dispatcher.core.limits import (
    CUSTOM_HEADERS_BYTES_MAX,
    LABELS_COUNT_MAX,
    SUBSCRIPTION_TYPES_COUNT_MAX,
)
from dispatcher.core.origins import ORIGINS_MAX, PATTERN

Network = IPv4Network | IPv6Network

RESERVED_SEATS = 32
"""Connections beyond `http.connections_max` that are kept for probes; each is a descriptor too."""

_PORT_MAX = 65_535
_SECONDS_MAX = 86_400.0
_DAYS_MAX = 3_650


def _network(value: object) -> Network:
    try:
        return ip_network(value) if isinstance(value, str) else _refuse()
    except ValueError as error:
        raise ValueError(f'give a network such as "10.1.0.0/16" ({error})') from None


def _refuse() -> Network:
    raise ValueError("not a text")


def _port(value: object) -> int | str:
    """Accepts a port or a text "first-last"; a port named singly stays a number."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _PORT_MAX:
        return value
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", value)
        if match and 1 <= int(match[1]) <= int(match[2]) <= _PORT_MAX:
            return f"{int(match[1])}-{int(match[2])}"
    raise ValueError('give a port from 1 to 65535, or a range such as "1024-65535"')


def _server(value: object) -> str:
    """Accepts an address, or an address and a port: `10.0.0.2`, `10.0.0.2:5353`, `[fd00::2]:53`."""
    if isinstance(value, str):
        match = re.fullmatch(r"(?:\[([^\]]+)\]|([0-9.]+)):([0-9]{1,5})", value)
        host = (match[1] or match[2]) if match else value
        if match is None or 1 <= int(match[3]) <= _PORT_MAX:
            try:
                ip_address(host)
            except ValueError:
                pass
            else:
                return value
    raise ValueError('give the address of a DNS server, such as "10.0.0.2" or "10.0.0.2:5353"')


def _text(pattern: str, advice: str) -> Callable[[object], str]:
    compiled = re.compile(pattern)

    def check(value: object) -> str:
        if isinstance(value, str) and compiled.fullmatch(value):
            return value
        raise ValueError(advice)

    return check


Port = Annotated[int | str, PlainValidator(_port)]
Networks = tuple[Annotated[Network, PlainValidator(_network)], ...]
Seconds = Annotated[float, Field(gt=0, le=_SECONDS_MAX, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=1, le=_DAYS_MAX)]
PortNumber = Annotated[int, Field(ge=0, le=_PORT_MAX)]
UserAgent = Annotated[
    str,
    PlainValidator(_text(r"|[!-~]([ -~]{0,198}[!-~])?", "up to 200 printable ASCII characters")),
]
OtlpUrl = Annotated[
    str,
    PlainValidator(
        _text(r"|https?://[!-~]{1,2000}", 'a URL such as "http://127.0.0.1:4318/v1/traces"')
    ),
]
PublicUrl = Annotated[
    str,
    PlainValidator(
        _text(
            r"|https?://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?",
            'a URL without path and final slash, such as "https://webhooks.example.com"',
        )
    ),
]
FrameAncestor = Annotated[
    str,
    PlainValidator(
        _text(
            PATTERN,
            'an origin in lower case without a path, such as "https://app.example.com" or "https://*.example.com";'
            " http is for localhost and 127.0.0.1 only",
        )
    ),
]
FilePath = Annotated[str, PlainValidator(_text(r"[^\x00]*", "the path of a file"))]
HostName = Annotated[
    str, PlainValidator(_text(r"[A-Za-z0-9._:%-]{1,255}", "an address or a host name"))
]
SmtpHost = Annotated[
    str, PlainValidator(_text(r"|[A-Za-z0-9._:-]{1,255}", "an address or a host name"))
]
SmtpText = Annotated[
    str, PlainValidator(_text(r"|[ -~]{1,254}", "up to 254 printable ASCII characters"))
]
IssuerUrl = Annotated[
    str,
    PlainValidator(
        _text(
            r"|https://[!-~]{1,2000}|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[!-~]{0,2000})?",
            'an https URL such as "https://login.example.com/realms/main"; http is for this machine only',
        )
    ),
]
GroupName = Annotated[str, PlainValidator(_text(r"[^\x00-\x1f]{1,256}", "up to 256 characters"))]
RuleTenant = Annotated[
    str,
    PlainValidator(_text(r"\*|[a-z0-9_-]{1,64}", 'the name of a tenant, or "*" for all tenants')),
]
ScopeName = Annotated[
    str, PlainValidator(_text(r"[!#-\[\]-~]{1,128}", "up to 128 printable ASCII characters"))
]
ClaimName = Annotated[
    str, PlainValidator(_text(r"[!-~]{1,256}", "up to 256 printable ASCII characters"))
]
ProfileName = Annotated[
    str, PlainValidator(_text(r"[a-z][a-z0-9_-]{0,63}", 'the name of a profile, such as "wms"'))
]
ReplicaName = Annotated[
    str,
    PlainValidator(_text(r"[A-Za-z0-9._-]{0,64}", "up to 64 letters, digits, dots, - and _")),
]


class Section(BaseModel):
    """A table of the file: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DatabaseSettings(Section):
    """Connections to Postgres."""

    pool_size: int = Field(default=10, ge=2, le=200)
    pooler: bool = False


class IntakeSettings(Section):
    """How committed events are polled and claimed."""

    notify: bool = True
    poll_seconds: Seconds = 1.0
    batch_events: int = Field(default=1200, ge=1, le=5_000)


class FanoutSettings(Section):
    """How events become deliveries."""

    synchronous_commit: bool = False
    batch_bytes_max: int = Field(default=16_777_216, ge=2_097_152, le=268_435_456)


class DeliverySettings(Section):
    """How much is sent at once, and how much waits in memory."""

    concurrency_per_endpoint: int = Field(default=10, ge=1, le=500)
    concurrency_per_host: int = Field(default=50, ge=1, le=10_000)
    concurrency_total: int = Field(default=500, ge=1, le=10_000)
    hold_days: Days = 7
    drain_seconds: float = Field(default=30.0, ge=0, le=3_600, allow_inf_nan=False)
    wheel_horizon_seconds: Seconds = 600.0
    wheel_timers_max: int = Field(default=200_000, ge=1_000, le=5_000_000)
    bodies_bytes_max: int = Field(default=67_108_864, ge=4_194_304, le=8_589_934_592)

    @model_validator(mode="after")
    def _limits_nest(self) -> Self:
        if self.concurrency_per_host > self.concurrency_total:
            raise ValueError("concurrency_per_host is above concurrency_total")
        return self


class AttemptsSettings(Section):
    """The parts of attempts that are stored."""

    keep_response: Literal["failures", "all"] = "failures"


class DisablingSettings(Section):
    """When an endpoint that keeps failing is switched off."""

    failing_hours: int = Field(default=120, ge=1, le=8_760)
    failed_attempts_min: int = Field(default=20, ge=1, le=1_000_000)


class HealthSettings(Section):
    """When an endpoint counts as down."""

    down_after_minutes: float = Field(default=5.0, ge=0.05, le=1_440, allow_inf_nan=False)


class LimitsSettings(Section):
    """How much one tenant may configure. A lower value leaves what is saved already as it is."""

    endpoints_per_tenant: int = Field(default=2_000, ge=1, le=100_000)
    event_types_per_endpoint: int = Field(default=500, ge=1, le=SUBSCRIPTION_TYPES_COUNT_MAX)
    labels_per_endpoint: int = Field(default=20, ge=1, le=LABELS_COUNT_MAX)
    header_bytes_per_endpoint: int = Field(default=8_192, ge=1, le=CUSTOM_HEADERS_BYTES_MAX)


class SearchSettings(Section):
    """How a search reads payloads, and for how long."""

    time_budget: float = Field(default=3.0, ge=0.1, le=10.0)
    trigram_index: bool = False


class EndpointsSettings(Section):
    """What a new endpoint has where its creator names nothing else."""

    default_profile: ProfileName = "wms"


class EgressSettings(Section):
    """Where requests may go, and how names are resolved."""

    allow_http: bool = False
    allow_networks: Networks = ()
    allow_ports: tuple[Port, ...] = Field(default=(80, 443, "1024-65535"), min_length=1)
    allow_metadata: bool = False
    ca_file: FilePath = ""
    strict_certificates: bool = True
    dns_servers: tuple[Annotated[str, PlainValidator(_server)], ...] = ()
    resolver: Literal["aiodns", "threaded"] = "aiodns"
    keep_alive_seconds: float = Field(default=4.0, ge=0, le=300, allow_inf_nan=False)
    user_agent: UserAgent = ""


class RecorderSettings(Section):
    """How results are committed together."""

    batch_rows: int = Field(default=1000, ge=1, le=5_000)
    flush_milliseconds: int = Field(default=40, ge=1, le=50)
    unrecorded_max: int = Field(default=256, ge=1, le=100_000)


class ReplicaSettings(Section):
    """Who this process is among its like, and how it holds its share."""

    name: ReplicaName = ""
    lease_seconds: float = Field(default=10.0, ge=4, le=120, allow_inf_nan=False)
    renew_seconds: Seconds = 2.0

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.renew_seconds * 3 > self.lease_seconds:
            raise ValueError("renew_seconds must be at most a third of lease_seconds")
        return self


class RetentionSettings(Section):
    """How long history is kept."""

    events_days: Days = 30
    deliveries_days: Days = 30
    attempts_days: Days = 30
    audit_days: Days = 365
    idempotency_days: Days = 7
    partitions_ahead_days: int = Field(default=7, ge=2, le=60)

    @model_validator(mode="after")
    def _nothing_outlives_what_it_needs(self) -> Self:
        if not self.attempts_days <= self.deliveries_days <= self.events_days:
            raise ValueError(
                "attempts_days must be at most deliveries_days, and that at most events_days:"
                " a delivery without its event cannot be resent"
            )
        return self


class HttpSettings(Section):
    """The listeners: console and API; probes and metrics, on a port of their own if there is one."""

    host: HostName = "127.0.0.1"
    port: PortNumber = 8080
    probe_port: PortNumber = 0
    connections_max: int = Field(default=256, ge=16, le=100_000)
    trusted_proxies: Networks = ()
    public_url: PublicUrl = ""
    requests_per_second: float = Field(default=100.0, ge=1, le=100_000, allow_inf_nan=False)
    events_per_second: float = Field(default=1_000.0, ge=1, le=1_000_000, allow_inf_nan=False)
    reads_max: int = Field(default=2, ge=1, le=64)
    nice: int = Field(default=5, ge=0, le=19)

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.probe_port and self.probe_port == self.port:
            raise ValueError("probe_port is the same as port. Choose another, or 0 for none.")
        return self


class SmtpSettings(Section):
    """The server that sends the e-mail of notifications; the password is a variable."""

    host: SmtpHost = ""
    port: int = Field(default=587, ge=1, le=_PORT_MAX)
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: SmtpText = ""
    sender: SmtpText = ""

    @model_validator(mode="after")
    def _sender_is_known(self) -> Self:
        if self.host and "@" not in self.sender:
            raise ValueError(
                'sender is required with host. Use an address such as "a@example.com".'
            )
        if self.username and self.security == "none":
            raise ValueError(
                "username needs security: the password would be sent unencrypted."
                ' Use "starttls" or "tls".'
            )
        return self


class NotificationsSettings(Section):
    """The messages of notifications."""

    language: Literal["en", "th"] = "en"


class PortalSettings(Section):
    """The portal: pages of one tenant for its own people."""

    frame_ancestors: tuple[FrameAncestor, ...] = Field(default=(), max_length=ORIGINS_MAX)


class RoleRule(Section):
    """The role and the tenant that one group of the OpenID provider grants."""

    group: GroupName
    role: Literal["viewer", "operator", "admin"]
    tenant: RuleTenant


class OidcSettings(Section):
    """Single sign-on by an OpenID provider; the client's secret is a variable."""

    issuer: IssuerUrl = ""
    client_id: SmtpText = ""
    name: str = Field(default="", max_length=64)
    scopes: tuple[ScopeName, ...] = Field(default=("openid", "profile", "email"), min_length=1)
    groups_claim: ClaimName = "groups"
    session_hours: float = Field(default=8.0, ge=0.1, le=168, allow_inf_nan=False)
    roles: tuple[RoleRule, ...] = Field(default=(), max_length=1_000)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.issuer:
            return self
        if not self.client_id:
            raise ValueError(
                "client_id is required with issuer. Use the id that the provider issued."
            )
        if not self.roles:
            raise ValueError(
                "roles is required with issuer. Without a rule, no person could sign in."
            )
        if "openid" not in self.scopes:
            raise ValueError('scopes must contain "openid". Without it, there is no ID token.')
        return self


class LogSettings(Section):
    """Log lines."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class MetricsSettings(Section):
    """Metrics."""

    per_endpoint: bool = False
    per_endpoint_max: int = Field(default=200, ge=1, le=5_000)


class TracingSettings(Section):
    """Traces."""

    otlp_url: OtlpUrl = ""
