"""The endpoint: every setting once, with its type, bounds, option and form control; and the response.

A setting is added here, and nowhere else in the program; docs/contributing/add-an-endpoint-setting.md
lists the other files.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from dispatcher.admin.resources.base import Request, Response, resource
from dispatcher.admin.resources.endpoint_fields import (
    CONCURRENCY_MAX,
    SKIP_AFTER_ATTEMPTS_MAX,
    TIMEOUT_SECONDS_MAX,
    TIMEOUT_SECONDS_MIN,
    AlsoSign,
    CaPem,
    ClientCertificate,
    ClientText,
    ContentFilter,
    DeliveryMode,
    EndpointName,
    Headers,
    OrderingName,
    Paths,
    RetrySchedule,
    Subscription,
    TargetUrl,
    TokenUrl,
    WantedLabels,
)
from dispatcher.admin.resources.fields import (
    NAME_CHARACTERS_MAX,
    Bounds,
    EndpointId,
    EndpointStateName,
    HealthName,
    LabelFilter,
    TimeText,
)
from dispatcher.admin.resources.presentation import Control, ControlKind, Option, Reading, Section
from dispatcher.core.limits import RATE_PER_SECOND_MAX, RATE_PER_SECOND_MIN, URL_CHARACTERS_MAX

Name = Annotated[
    EndpointName,
    Option(metavar="NAME", help="Its name, unique in its tenant."),
    Control(ControlKind.LINE, characters_max=NAME_CHARACTERS_MAX),
]
Url = Annotated[
    TargetUrl,
    Option(
        metavar="URL",
        help="The target, https://… If it is a credential, use -, @FILE or env:NAME. Not needed with --delivery pull.",
        reads=Reading.REFERENCE,
        is_optional=True,
    ),
    Control(ControlKind.URL, characters_max=URL_CHARACTERS_MAX),
]
EventTypes = Annotated[
    Subscription,
    Option(
        help="An event type, a prefix such as 'order.*', or '*'. May be repeated.",
        reads=Reading.EVENT_TYPES,
    ),
    Control(ControlKind.OWN),
]


class EndpointSettings(Request):
    """The settings that people change; the order is that of the statements that store them."""

    name: Name = ""
    url: Url = ""
    event_types: EventTypes = Field(default=[])
    labels: Annotated[
        WantedLabels,
        Option(
            metavar="NAME=VALUE",
            help="Send only events with this label. May be repeated. none: all events.",
            reads=Reading.LABELS,
        ),
        Control(ControlKind.LABELS, Section.ADVANCED),
    ] = Field(default={}, description="Only events with these labels; {} takes all events.")
    headers: Annotated[
        Headers,
        Option(
            metavar="NAME=VALUE",
            help="A header of every request; its value may be @FILE or env:NAME. May be repeated. none: no headers.",
            reads=Reading.HEADERS,
        ),
        Control(ControlKind.HEADERS, Section.HEADERS),
    ] = Field(default={}, description="Headers of every request.")
    ca_pem: Annotated[
        CaPem,
        Option(
            metavar="@FILE",
            help="Certificate authorities (PEM) to trust instead of the system's. none: the system's.",
            reads=Reading.FILE,
        ),
        Control(ControlKind.PEM, Section.ADVANCED),
    ] = Field(default=None, description="Certificate authorities (PEM); null trusts the system's.")
    max_concurrency: Annotated[
        Annotated[int, Bounds(1, CONCURRENCY_MAX, whole=True)] | None,
        Option(
            metavar="N",
            help="Maximum number of requests in flight. none: that of the settings.",
            reads=Reading.NUMBER,
        ),
        Control(ControlKind.WHOLE, Section.LIMITS),
    ] = Field(
        default=None, description="The most requests in flight; null: as the settings define."
    )
    rate_limit: Annotated[
        Annotated[float, Bounds(RATE_PER_SECOND_MIN, RATE_PER_SECOND_MAX)] | None,
        Option(
            metavar="N",
            help="Maximum number of requests per second. none: no limit.",
            reads=Reading.NUMBER,
        ),
        Control(ControlKind.NUMBER, Section.LIMITS),
    ] = Field(
        default=None,
        description="Requests per second, after a burst of one second's requests; null: no limit.",
    )
    timeout_seconds: Annotated[
        Annotated[float, Bounds(TIMEOUT_SECONDS_MIN, TIMEOUT_SECONDS_MAX)] | None,
        Option(
            metavar="SECONDS",
            help="Timeout of a whole attempt. none: that of the profile.",
            reads=Reading.NUMBER,
        ),
        Control(ControlKind.NUMBER, Section.LIMITS),
    ] = Field(
        default=None, description="The timeout of a whole attempt; null: as the profile defines."
    )
    retry_schedule_seconds: Annotated[
        RetrySchedule,
        Option(
            metavar="SECONDS",
            help="The delay before a retry. May be repeated, in order. none: those of the profile.",
            reads=Reading.NUMBERS,
        ),
        Control(ControlKind.DELAYS, Section.ADVANCED),
    ] = Field(
        default=None,
        description="One delay for each retry; [] means one attempt, null as the profile defines.",
    )
    ordering: Annotated[
        OrderingName,
        Option(metavar="none|key|strict", help="The order in which deliveries are sent."),
        Control(ControlKind.CHOICE, Section.ADVANCED, values=("none", "key", "strict")),
    ] = Field(
        default="none",
        description="key: deliveries of one ordering key one at a time, in the order of their events; strict: all.",
    )
    content_filter: Annotated[
        ContentFilter,
        Option(
            metavar="EXPRESSION",
            help="Send only events for which this CEL expression is true. none: all events.",
            reads=Reading.TEXT,
        ),
        Control(ControlKind.EXPRESSION, Section.ADVANCED),
    ] = Field(
        default=None,
        description="A CEL expression over data, labels, type, id and tenant; only events for which it is true.",
    )
    skip_after_attempts: Annotated[
        Annotated[int, Bounds(1, SKIP_AFTER_ATTEMPTS_MAX, whole=True)] | None,
        Option(
            metavar="N",
            help="Failed attempts after which an ordered delivery is skipped. none: it blocks those after it.",
            reads=Reading.NUMBER,
        ),
        Control(ControlKind.WHOLE, Section.LIMITS),
    ] = Field(
        default=None,
        description="With an ordering: failed attempts after which one is skipped; null: it blocks the next ones.",
    )
    delivery: Annotated[
        DeliveryMode,
        Option(
            metavar="push|pull",
            help="push: requests to the URL. pull: the receiver fetches its deliveries (dispatcher poll).",
        ),
        Control(ControlKind.OWN),
    ] = Field(
        default="push",
        description="push: requests to the URL. pull: the receiver fetches its deliveries, and `url` may be left out.",
    )
    also_sign: Annotated[
        AlsoSign,
        Option(
            metavar="PROFILE",
            help="A profile whose headers and signature are sent as well. May be repeated. none: no other.",
            reads=Reading.TEXTS,
        ),
        Control(ControlKind.WORDS, Section.ADVANCED),
    ] = Field(
        default=[],
        description="Profiles whose headers and signature every request carries as well; the body stays the profile's.",
    )
    include: Annotated[
        Paths,
        Option(
            metavar="PATH",
            help="Send only this part of data, such as items.sku. May be repeated. none: all of data.",
            reads=Reading.TEXTS,
        ),
        Control(ControlKind.LINES, Section.ADVANCED),
    ] = Field(
        default=[],
        description="The parts of `data` that are sent; [] sends all.",
        examples=[["order_id", "items.sku"]],
    )
    exclude: Annotated[
        Paths,
        Option(
            metavar="PATH",
            help="Leave this part of data out, such as customer.email. May be repeated. none: nothing.",
            reads=Reading.TEXTS,
        ),
        Control(ControlKind.LINES, Section.ADVANCED),
    ] = Field(
        default=[],
        description="The parts of `data` that are not sent, also of those in `include`.",
        examples=[["customer.email"]],
    )
    oauth_token_url: Annotated[
        TokenUrl,
        Option(
            metavar="URL",
            help="The token endpoint: each request carries an access token. none: no OAuth.",
        ),
        Control(ControlKind.OPTIONAL, Section.ADVANCED),
    ] = Field(
        default=None,
        description="The token endpoint of OAuth client credentials; null: requests carry no access token.",
    )
    oauth_client_id: Annotated[
        ClientText,
        Option(metavar="ID", help="The client id at the token endpoint. none: no OAuth."),
        Control(ControlKind.OPTIONAL, Section.ADVANCED),
    ] = Field(default=None, description="The client id at the token endpoint.")
    oauth_scope: Annotated[
        ClientText,
        Option(metavar="SCOPE", help="The scope of access tokens. none: the server's default."),
        Control(ControlKind.OPTIONAL, Section.ADVANCED),
    ] = Field(default=None, description="The scope of access tokens, names separated by spaces.")
    client_certificate: Annotated[
        ClientCertificate,
        Option(
            metavar="@FILE",
            help="The certificate (PEM, with its chain) to present to the receiver. none: no certificate.",
            reads=Reading.FILE,
        ),
        Control(ControlKind.PEM, Section.ADVANCED),
    ] = Field(
        default=None,
        description="The client certificate (PEM, with its chain) that is presented to the receiver (mTLS).",
    )

    def given(self) -> dict[str, Any]:
        """Return the fields that were given; an omitted field is not the same as null."""
        return {name: getattr(self, name) for name in self.model_fields_set}


SETTINGS: Final = tuple(EndpointSettings.model_fields)
DEFAULTS: Final[Mapping[str, Any]] = {
    name: field.default for name, field in EndpointSettings.model_fields.items()
}


@resource
class EndpointProblem(Response):
    """Why the configuration does not let an endpoint be sent to; its deliveries wait until it is fixed."""

    reason: str
    detail: str


@resource
class Endpoint(Response):
    """An endpoint; its secret is masked, and header values are shown to admins alone.

    `health` is independent of `state`: `degraded` if a share of the attempts of the last five minutes
    failed, `down` if the breaker is open or nothing has succeeded for `health.down_after_minutes`,
    `recovering` after the first success. `health_cause` is the outcome of the last failed attempt.
    `oauth_client_secret` and `client_key` are stars if they are stored.
    `failed_unresolved_count` are the failed deliveries of the last 31 days that were not resent with
    success. A capped count is a lower bound.
    """

    id: EndpointId
    tenant: str
    name: str
    url: str
    profile: str
    event_types: list[str]
    labels: LabelFilter
    headers: dict[str, str]
    ca_pem: str | None
    max_concurrency: int | None
    rate_limit: float | None
    timeout_seconds: float | None
    retry_schedule_seconds: list[float] | None
    ordering: str
    content_filter: str | None
    skip_after_attempts: int | None
    delivery: DeliveryMode
    also_sign: list[str]
    include: list[str]
    exclude: list[str]
    oauth_token_url: str | None
    oauth_client_id: str | None
    oauth_scope: str | None
    oauth_client_secret: str | None
    client_certificate: str | None
    client_key: str | None
    state: EndpointStateName
    reason: str | None
    created_at: TimeText
    updated_at: TimeText
    secret: str | None
    public_key: str | None
    staged_secret: str | None
    previous_secret_expires_at: TimeText | None
    problem: EndpointProblem | None
    health: HealthName
    health_since: TimeText | None
    health_cause: str | None
    health_response_code: int | None
    waiting_count: int
    waiting_capped: bool
    failed_unresolved_count: int
    failed_unresolved_capped: bool

    @property
    def etag(self) -> str:
        """The version, as an entity tag."""
        return etag_of(self.updated_at)


@resource
class ChangedEndpoint(Endpoint):
    """An endpoint as it was made or changed.

    A secret that was made is whole, this once, unless it is an ed25519 key.
    """

    warnings: list[str]


def etag_of(updated_at: str) -> str:
    """Return the version of an endpoint as an entity tag, quotes included (RFC 9110, 8.8.3).

    Every change moves `updated_at`, which has microseconds, and changes of one endpoint wait for
    each other.
    """
    return f'"{updated_at}"'


@resource
class EndpointPage(Response):
    """A page of endpoints."""

    items: list[Endpoint]
    next_cursor: str | None
