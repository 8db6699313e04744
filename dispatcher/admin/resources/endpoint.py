"""Endpoints: every setting once, with its type, bounds, option and form control.

A setting is added here, and nowhere else in the program; docs/contributing/add-an-endpoint-setting.md
lists the other files. Rules that depend on the profile or on the deployment are `EndpointRules`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Protocol, TypedDict

from pydantic import ConfigDict, Field, PlainValidator, RootModel, ValidationInfo, WithJsonSchema

from dispatcher.admin.resources.delivery import Attempt, AttemptOutcomeName
from dispatcher.admin.resources.fields import (
    NAME_CHARACTERS_MAX,
    TENANT_DEFAULT,
    Bounds,
    Control,
    ControlKind,
    DeliveryId,
    EndpointId,
    EndpointSortName,
    EndpointStateName,
    HealthName,
    LabelFilter,
    Option,
    PageQuery,
    Reading,
    Request,
    Response,
    Section,
    Tenant,
    Text,
    TimeText,
    name_problems,
    number_problems,
    refuse,
    without_defaults,
)
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.filters import EXPRESSION_CHARACTERS_MAX, filter_problems
from dispatcher.core.limits import (
    RATE_PER_SECOND_MAX,
    RATE_PER_SECOND_MIN,
    SUBSCRIPTION_TYPES_COUNT_MAX,
    URL_CHARACTERS_MAX,
)
from dispatcher.core.masks import PATH_CHARACTERS_MAX, PATHS_MAX, mask_problems
from dispatcher.core.matching import event_types_problems, label_filter_problems
from dispatcher.core.problems import PROBLEMS_MAX, Problem, problem

RULES: Final = "rules"
"""The key of the rules in the context of validation."""
CA_PEM_CHARACTERS_MAX: Final = 65_536
CONCURRENCY_MAX: Final = 1_000
TIMEOUT_SECONDS_MIN: Final = 0.001
TIMEOUT_SECONDS_MAX: Final = 60.0
RETRIES_MAX: Final = 50
ALSO_SIGN_MAX: Final = 3
"""Each is one more signature of every request."""
RETRY_SECONDS_MAX: Final = 7 * 86_400
SKIP_AFTER_ATTEMPTS_MAX: Final = 100
OrderingName = Literal["none", "key", "strict"]
OVERLAP_SECONDS_MAX: Final = 604_800
DeliveryMode = Literal["push", "pull"]
PULL_URL: Final = "https://pull.invalid/"
"""The URL of an endpoint whose deliveries are fetched and that names none; nothing is ever sent there."""


class EndpointRules(Protocol):
    """Rules that depend on the profile and the deployment; the context of validation."""

    def url(self, text: str) -> str:
        """Return the canonical form of a URL, or raise InvalidRequestError."""

    def headers(self, headers: dict[str, str]) -> list[Problem]:
        """List the problems of custom headers."""

    def also_sign(self, names: list[str]) -> list[Problem]:
        """List the problems of the profiles that also sign."""

    def token_url(self, text: str) -> str:
        """Return the canonical form of a token endpoint's URL, or raise InvalidRequestError."""

    def mask(self, field: str) -> list[Problem]:
        """List why parts of the data cannot be left out."""

    def limits(self, field: str, value: object) -> list[Problem]:
        """List the limits of the settings that a value exceeds."""


def _rules(info: ValidationInfo) -> EndpointRules | None:
    rules: EndpointRules | None = (info.context or {}).get(RULES)
    return rules


def _limited(value: Any, info: ValidationInfo, problems: list[Problem]) -> Any:  # noqa: ANN401 -- as it is
    rules = _rules(info)
    if rules is not None:
        problems = problems + rules.limits(str(info.field_name), value)
    refuse(problems)
    return value


def _name(value: object) -> object:
    refuse(name_problems(value))
    return value


def _url(value: object, info: ValidationInfo) -> object:
    rules = _rules(info)
    if not isinstance(value, str):
        refuse([problem("url", "not_a_string")])
        return value
    if rules is None:
        return value
    try:
        return rules.url(value)
    except InvalidRequestError as error:
        refuse(error.problems)
        raise


def _event_types(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, list):
        refuse([problem("event_types", "not_a_list")])
        return value
    wrong = [index for index, one in enumerate(value) if not isinstance(one, str)]
    refuse([problem(f"event_types[{index}]", "not_a_string") for index in wrong[:PROBLEMS_MAX]])
    return _limited(value, info, event_types_problems(value))


def _headers(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, dict):
        refuse([problem("headers", "not_an_object")])
        return value
    wrong = [name for name, one in value.items() if not isinstance(one, str)]
    refuse([problem(f"headers.{name}", "not_a_string") for name in wrong[:PROBLEMS_MAX]])
    rules = _rules(info)
    return _limited(value, info, [] if rules is None else rules.headers(value))


def _also_sign(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, list):
        refuse([problem("also_sign", "not_a_list")])
        return value
    if len(value) > ALSO_SIGN_MAX:
        refuse([problem("also_sign", "too_many_items", maximum=ALSO_SIGN_MAX)])
    wrong = [index for index, one in enumerate(value) if not isinstance(one, str)]
    refuse([problem(f"also_sign[{index}]", "not_a_string") for index in wrong])
    rules = _rules(info)
    refuse([] if rules is None else rules.also_sign(value))
    return value


def _paths(value: object, info: ValidationInfo) -> object:
    field = str(info.field_name)
    if not isinstance(value, list):
        refuse([problem(field, "not_a_list")])
        return value
    refuse(mask_problems(value, field))
    rules = _rules(info)
    refuse([] if rules is None or not value else rules.mask(field))
    return value


def _labels(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, dict):
        refuse([problem("labels", "not_an_object")])
        return value
    wrong = [name for name, wanted in value.items() if not isinstance(wanted, str | list)]
    refuse([problem(f"labels.{name}", "invalid_label_filter") for name in wrong[:PROBLEMS_MAX]])
    return _limited(value, info, label_filter_problems(value))


def _content_filter(value: object) -> object:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        refuse([problem("content_filter", "not_a_string")])
        return value
    refuse(filter_problems(value))
    return value


def _required_filter(value: object) -> object:
    if value is None or value == "":
        refuse([problem("content_filter", "required")])
    return _content_filter(value)


def _ca_pem(value: object) -> object:
    import ssl  # noqa: PLC0415 -- options are made of this module, and --help needs no TLS

    if value is None or value == "":
        return None
    if not isinstance(value, str):
        refuse([problem("ca_pem", "not_a_string")])
        return value
    if len(value) > CA_PEM_CHARACTERS_MAX:
        refuse([problem("ca_pem", "too_long", maximum=CA_PEM_CHARACTERS_MAX)])
    try:
        value.encode("ascii")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=value)
    except (ssl.SSLError, ValueError):
        refuse([problem("ca_pem", "invalid_certificate")])
    return value


def _token_url(value: object, info: ValidationInfo) -> object:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        refuse([problem("oauth_token_url", "not_a_string")])
        return value
    rules = _rules(info)
    if rules is None:
        return value
    try:
        return rules.token_url(value)
    except InvalidRequestError as error:
        refuse([one.at("oauth_token_url") for one in error.problems])
        raise


def _client_text(value: object, info: ValidationInfo) -> object:
    from dispatcher.core.credentials import CLIENT_TEXT  # noqa: PLC0415 -- --help needs no cryptography

    field = str(info.field_name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        refuse([problem(field, "not_a_string")])
    elif CLIENT_TEXT.fullmatch(value) is None:
        refuse([problem(field, "client_characters")])
    return value


def _client_certificate(value: object) -> object:
    from dispatcher.core.credentials import certificate_problems  # noqa: PLC0415 -- as above

    if value is None or value == "":
        return None
    refuse(certificate_problems(value))
    return value


def _client_secret(value: object, info: ValidationInfo) -> object:
    from dispatcher.core.secret import MASK  # noqa: PLC0415 -- --help needs no cryptography

    if value == MASK:
        refuse([problem(str(info.field_name), "masked_value")])
    return _client_text(value, info)


def _client_key(value: object) -> object:
    from dispatcher.core.credentials import key_problems  # noqa: PLC0415 -- as above
    from dispatcher.core.secret import MASK  # noqa: PLC0415 -- as above

    if value is None or value == "":
        return None
    if value == MASK:
        refuse([problem("client_key", "masked_value")])
    refuse(key_problems(value))
    return value


def _schedule(value: object) -> object:
    field = "retry_schedule_seconds"
    if value is None:
        return value
    if not isinstance(value, list):
        refuse([problem(field, "not_a_list")])
        return value
    if len(value) > RETRIES_MAX:
        refuse([problem(field, "too_many_items", maximum=RETRIES_MAX)])
    refuse(
        [
            one
            for index, delay in enumerate(value)
            for one in number_problems(delay, f"{field}[{index}]", 0, RETRY_SECONDS_MAX)
        ]
    )
    return value


Name = Annotated[
    str,
    PlainValidator(_name),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX, "examples": ["ERP"]}
    ),
    Option(metavar="NAME", help="Its name, unique in its tenant."),
    Control(
        kind=ControlKind.LINE,
        label="endpoint.name",
        hint="form.name_hint",
        characters_max=NAME_CHARACTERS_MAX,
    ),
]
Url = Annotated[
    str,
    PlainValidator(_url),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": URL_CHARACTERS_MAX,
            "examples": ["https://erp.example.com/hooks"],
        }
    ),
    Option(
        metavar="URL",
        help="The target, https://… If it is a credential, use -, @FILE or env:NAME.",
        reads=Reading.REFERENCE,
    ),
    Control(
        kind=ControlKind.URL,
        label="endpoint.url",
        hint="form.url_hint",
        characters_max=URL_CHARACTERS_MAX,
    ),
]
EventTypes = Annotated[
    list[str],
    PlainValidator(_event_types),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": SUBSCRIPTION_TYPES_COUNT_MAX,
            "examples": [["order.created", "stock.*"]],
        }
    ),
    Option(
        help="An event type, a prefix such as 'order.*', or '*'. May be repeated.",
        reads=Reading.EVENT_TYPES,
    ),
    Control(kind=ControlKind.OWN),
]


_FILTER_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": EXPRESSION_CHARACTERS_MAX,
    "examples": ['data.total > 1000 && labels.region == "th"'],
}
_CLIENT_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "string", "minLength": 1, "maxLength": 512}, {"type": "null"}]
}
OAuthClientSecret = Annotated[
    str | None,
    PlainValidator(_client_secret),
    WithJsonSchema(_CLIENT_SCHEMA),
    Option(
        metavar="SECRET",
        help="The client secret at the token endpoint: -, @FILE or env:NAME.",
        reads=Reading.SECRET,
    ),
    Control(
        kind=ControlKind.SECRET,
        section=Section.ADVANCED,
        label="endpoint.oauth_client_secret",
        hint="form.oauth_client_secret_hint",
    ),
]
ClientKey = Annotated[
    str | None,
    PlainValidator(_client_key),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "maxLength": CA_PEM_CHARACTERS_MAX}, {"type": "null"}]}
    ),
    Option(
        metavar="@FILE",
        help="The private key (PEM, not encrypted) of the client certificate: -, @FILE or env:NAME.",
        reads=Reading.SECRET,
    ),
    Control(
        kind=ControlKind.SECRET,
        section=Section.ADVANCED,
        label="endpoint.client_key",
        hint="form.client_key_hint",
    ),
]
_PATHS_SCHEMA: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "string", "minLength": 1, "maxLength": PATH_CHARACTERS_MAX},
    "maxItems": PATHS_MAX,
}
ContentFilterText = Annotated[str, PlainValidator(_required_filter), WithJsonSchema(_FILTER_SCHEMA)]


class EndpointSettings(Request):
    """The settings that people change; the order is that of the statements that store them."""

    name: Name = ""
    url: Url = ""
    event_types: EventTypes = Field(default=[])
    labels: Annotated[
        LabelFilter,
        PlainValidator(_labels),
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
                },
            }
        ),
        Option(
            metavar="NAME=VALUE",
            help="Send only events with this label. May be repeated. none: all events.",
            reads=Reading.LABELS,
        ),
        Control(
            kind=ControlKind.LABELS,
            section=Section.ADVANCED,
            label="endpoint.labels",
            hint="form.labels_hint",
        ),
    ] = Field(default={}, description="Only events with these labels; {} takes all events.")
    headers: Annotated[
        dict[str, str],
        PlainValidator(_headers),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
        Option(
            metavar="NAME=VALUE",
            help="A header of every request; its value may be @FILE or env:NAME. May be repeated. none: no headers.",
            reads=Reading.HEADERS,
        ),
        Control(
            kind=ControlKind.HEADERS,
            section=Section.HEADERS,
            label="endpoint.headers",
            hint="form.headers_hint",
        ),
    ] = Field(default={}, description="Headers of every request.")
    ca_pem: Annotated[
        str | None,
        PlainValidator(_ca_pem),
        WithJsonSchema(
            {"anyOf": [{"type": "string", "maxLength": CA_PEM_CHARACTERS_MAX}, {"type": "null"}]}
        ),
        Option(
            metavar="@FILE",
            help="Certificate authorities (PEM) to trust instead of the system's. none: the system's.",
            reads=Reading.FILE,
        ),
        Control(
            kind=ControlKind.PEM,
            section=Section.ADVANCED,
            label="endpoint.ca",
            hint="form.ca_hint",
        ),
    ] = Field(default=None, description="Certificate authorities (PEM); null trusts the system's.")
    max_concurrency: Annotated[
        Annotated[int, Bounds(1, CONCURRENCY_MAX, whole=True)] | None,
        Option(
            metavar="N",
            help="Maximum number of requests in flight. none: that of the settings.",
            reads=Reading.NUMBER,
        ),
        Control(
            kind=ControlKind.WHOLE,
            section=Section.LIMITS,
            label="endpoint.concurrency",
            hint="form.concurrency_hint",
        ),
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
        Control(
            kind=ControlKind.NUMBER,
            section=Section.LIMITS,
            label="endpoint.rate",
            hint="form.rate_hint",
        ),
    ] = Field(default=None, description="Requests per second; null: no limit.")
    timeout_seconds: Annotated[
        Annotated[float, Bounds(TIMEOUT_SECONDS_MIN, TIMEOUT_SECONDS_MAX)] | None,
        Option(
            metavar="SECONDS",
            help="Timeout of a whole attempt. none: that of the profile.",
            reads=Reading.NUMBER,
        ),
        Control(
            kind=ControlKind.NUMBER,
            section=Section.LIMITS,
            label="endpoint.timeout",
            hint="form.timeout_hint",
        ),
    ] = Field(
        default=None, description="The timeout of a whole attempt; null: as the profile defines."
    )
    retry_schedule_seconds: Annotated[
        list[float] | None,
        PlainValidator(_schedule),
        WithJsonSchema(
            {
                "anyOf": [
                    {
                        "type": "array",
                        "items": {"type": "number", "minimum": 0, "maximum": RETRY_SECONDS_MAX},
                        "maxItems": RETRIES_MAX,
                    },
                    {"type": "null"},
                ]
            }
        ),
        Option(
            metavar="SECONDS",
            help="The delay before a retry. May be repeated, in order. none: those of the profile.",
            reads=Reading.NUMBERS,
        ),
        Control(
            kind=ControlKind.DELAYS,
            section=Section.ADVANCED,
            label="endpoint.schedule",
            hint="form.schedule_hint",
        ),
    ] = Field(
        default=None,
        description="One delay for each retry; [] means one attempt, null as the profile defines.",
    )
    ordering: Annotated[
        OrderingName,
        Option(metavar="none|key|strict", help="In which order deliveries are sent."),
        Control(
            kind=ControlKind.CHOICE,
            section=Section.ADVANCED,
            label="field.ordering",
            hint="form.ordering_hint",
            values=("none", "key", "strict"),
        ),
    ] = Field(
        default="none",
        description="key: deliveries of one ordering key one at a time, in the order of their events; strict: all.",
    )
    content_filter: Annotated[
        str | None,
        PlainValidator(_content_filter),
        WithJsonSchema({"anyOf": [_FILTER_SCHEMA, {"type": "null"}]}),
        Option(
            metavar="EXPRESSION",
            help="Send only events for which this CEL expression is true. none: all events.",
            reads=Reading.TEXT,
        ),
        Control(
            kind=ControlKind.EXPRESSION,
            section=Section.ADVANCED,
            label="endpoint.content_filter",
            hint="form.content_filter_hint",
        ),
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
        Control(
            kind=ControlKind.WHOLE,
            section=Section.LIMITS,
            label="field.skip_after_attempts",
            hint="form.skip_after_attempts_hint",
        ),
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
        Control(kind=ControlKind.OWN),
    ] = Field(
        default="push",
        description="push: requests to the URL. pull: the receiver fetches its deliveries, and `url` may be left out.",
    )  # fmt: skip
    also_sign: Annotated[
        list[str],
        PlainValidator(_also_sign),
        WithJsonSchema(
            {
                "type": "array",
                "items": {"type": "string"},
                "maxItems": ALSO_SIGN_MAX,
                "examples": [["standard"]],
            }
        ),
        Option(
            metavar="PROFILE",
            help="A profile whose headers and signature are sent as well. May be repeated. none: no other.",
            reads=Reading.TEXTS,
        ),
        Control(
            kind=ControlKind.WORDS,
            section=Section.ADVANCED,
            label="endpoint.also_sign",
            hint="form.also_sign_hint",
        ),
    ] = Field(
        default=[],
        description="Profiles whose headers and signature every request carries as well; the body stays the profile's.",
    )

    include: Annotated[
        list[str],
        PlainValidator(_paths),
        WithJsonSchema({**_PATHS_SCHEMA, "examples": [["order_id", "items.sku"]]}),
        Option(
            metavar="PATH",
            help="Send only this part of data, such as items.sku. May be repeated. none: all of data.",
            reads=Reading.TEXTS,
        ),
        Control(
            kind=ControlKind.LINES,
            section=Section.ADVANCED,
            label="endpoint.include",
            hint="form.include_hint",
        ),
    ] = Field(default=[], description="The parts of `data` that are sent; [] sends all.")
    exclude: Annotated[
        list[str],
        PlainValidator(_paths),
        WithJsonSchema({**_PATHS_SCHEMA, "examples": [["customer.email"]]}),
        Option(
            metavar="PATH",
            help="Leave this part of data out, such as customer.email. May be repeated. none: nothing.",
            reads=Reading.TEXTS,
        ),
        Control(
            kind=ControlKind.LINES,
            section=Section.ADVANCED,
            label="endpoint.exclude",
            hint="form.exclude_hint",
        ),
    ] = Field(
        default=[], description="The parts of `data` that are not sent, also of those in `include`."
    )

    oauth_token_url: Annotated[
        str | None,
        PlainValidator(_token_url),
        WithJsonSchema(
            {"anyOf": [{"type": "string", "maxLength": URL_CHARACTERS_MAX}, {"type": "null"}]}
        ),
        Option(
            metavar="URL",
            help="The token endpoint: each request carries an access token. none: no OAuth.",
        ),
        Control(
            kind=ControlKind.OPTIONAL,
            section=Section.ADVANCED,
            label="endpoint.oauth_token_url",
            hint="form.oauth_token_url_hint",
        ),
    ] = Field(
        default=None,
        description="The token endpoint of OAuth client credentials; null: requests carry no access token.",
    )
    oauth_client_id: Annotated[
        str | None,
        PlainValidator(_client_text),
        WithJsonSchema(_CLIENT_SCHEMA),
        Option(metavar="ID", help="The client id at the token endpoint. none: no OAuth."),
        Control(
            kind=ControlKind.OPTIONAL,
            section=Section.ADVANCED,
            label="endpoint.oauth_client_id",
            hint="form.oauth_client_id_hint",
        ),
    ] = Field(default=None, description="The client id at the token endpoint.")
    oauth_scope: Annotated[
        str | None,
        PlainValidator(_client_text),
        WithJsonSchema(_CLIENT_SCHEMA),
        Option(metavar="SCOPE", help="The scope of access tokens. none: the server's default."),
        Control(
            kind=ControlKind.OPTIONAL,
            section=Section.ADVANCED,
            label="endpoint.oauth_scope",
            hint="form.oauth_scope_hint",
        ),
    ] = Field(default=None, description="The scope of access tokens, names separated by spaces.")
    client_certificate: Annotated[
        str | None,
        PlainValidator(_client_certificate),
        WithJsonSchema(
            {"anyOf": [{"type": "string", "maxLength": CA_PEM_CHARACTERS_MAX}, {"type": "null"}]}
        ),
        Option(
            metavar="@FILE",
            help="The certificate (PEM, with its chain) to present to the receiver. none: none.",
            reads=Reading.FILE,
        ),
        Control(
            kind=ControlKind.PEM,
            section=Section.ADVANCED,
            label="endpoint.client_certificate",
            hint="form.client_certificate_hint",
        ),
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


def _without_default(schema: dict[str, Any]) -> None:
    """Remove the default of a field's schema: the settings of the deployment decide it."""
    schema.pop("default", None)


KeyType = Literal["hmac", "ed25519"] | None


class NewEndpoint(EndpointSettings):
    """A new endpoint."""

    name: Name
    url: Url
    event_types: EventTypes
    profile: Annotated[
        str,
        Option(
            metavar="PROFILE",
            help="The wire format, which never changes, such as wms, humansoft, standard or slack."
            " Default: the setting endpoints.default_profile.",
            reads=Reading.PROFILE,
        ),
        Control(kind=ControlKind.OWN),
    ] = Field(
        default="",  # read_new_endpoint fills in the setting
        examples=["wms", "humansoft", "standard"],
        json_schema_extra=_without_default,
    )
    tenant: Annotated[
        Tenant,
        Option(metavar="TENANT", help="The tenant whose events it receives; it never changes."),
        Control(
            kind=ControlKind.LINE,
            section=Section.ADVANCED,
            label="endpoint.tenant",
            hint="form.tenant_hint",
        ),
    ] = Field(default=TENANT_DEFAULT, examples=["default"])
    secret: Annotated[
        str | None,
        Option(
            metavar="SECRET",
            help="-, @FILE or env:NAME. Default: generated. none: unsigned, if the profile allows it.",
            reads=Reading.SECRET,
        ),
        Control(kind=ControlKind.OWN),
    ] = Field(
        default=None,
        description="Left out: one is made. null: requests are not signed (wms and humansoft).",
    )
    key_type: Annotated[
        KeyType,
        Option(
            metavar="hmac|ed25519",
            help="The kind of the generated secret; receivers get the public key of ed25519 (standard).",
        ),
        Control(kind=ControlKind.OWN),
    ] = Field(
        default=None,
        description="What is generated: `hmac` (default), a secret that receivers share, or `ed25519`, a key pair of "
        "which receivers get the public key. Only without `secret`.",
    )
    oauth_client_secret: OAuthClientSecret = Field(
        default=None,
        description="The client secret at the token endpoint; it is encrypted and never shown.",
    )
    client_key: ClientKey = Field(
        default=None,
        description="The private key (PEM) of the client certificate; it is encrypted and never shown.",
    )


class DeclaredEndpoint(NewEndpoint):
    """An endpoint in a file; its `secret` is a reference, or `unsigned`."""


class EndpointChange(EndpointSettings):
    """A change of an endpoint: a field that is left out stays (RFC 7396, one level deep)."""

    model_config = ConfigDict(json_schema_extra=without_defaults)

    oauth_client_secret: OAuthClientSecret = Field(
        default=None,
        description="The client secret at the token endpoint; it is encrypted and never shown.",
    )
    client_key: ClientKey = Field(
        default=None,
        description="The private key (PEM) of the client certificate; it is encrypted and never shown.",
    )


class EndpointsQuery(PageQuery):
    """Which endpoints."""

    tenant: Annotated[
        Text | None, Option(metavar="TENANT", help="Only endpoints of this tenant.")
    ] = None
    name: Annotated[Text | None, Option(metavar="NAME", help="Only endpoints of this name.")] = None
    profile: Annotated[
        Text | None,
        Option(metavar="PROFILE", help="Only endpoints of this profile.", reads=Reading.PROFILE),
    ] = None
    state: Annotated[
        EndpointStateName | None,
        Option(metavar="STATE", help="active, paused or disabled."),
    ] = None
    health: Annotated[
        HealthName | None,
        Option(metavar="HEALTH", help="healthy, degraded, down or recovering."),
    ] = None
    q: Annotated[
        Text | None,
        Option(name="search", metavar="TEXT", help="Only endpoints with this text in their name."),
    ] = Field(default=None, description="A part of the name, in upper or lower case.")
    sort: Annotated[
        EndpointSortName | None,
        Option(metavar="created|trouble", help="Order. Default: created, the newest first."),
    ] = Field(
        default=None,
        description="`created` (default): newest first. `trouble`: disabled and down endpoints first, then"
        " degraded and recovering ones, then by failed deliveries and by name.",
    )


class NewSecret(Request):
    """How a secret is rotated."""

    secret: str | None = Field(default=None, description="Left out: one is made.")
    key_type: KeyType = Field(
        default=None,
        description="What is made: `hmac` or `ed25519`. Left out: the kind of the present one. Only without `secret`.",
    )
    overlap_seconds: Annotated[float, Bounds(0, OVERLAP_SECONDS_MAX)] | None = Field(
        default=None,
        description="How long the old secret signs beside the new one; 86400 where left out.",
    )
    activate: bool | None = Field(
        default=None, description="Switch at once, where the profile has room for one signature."
    )
    activate_staged: bool | None = Field(
        default=None, description="Switch to the secret that was staged; nothing else may be given."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointProblem(Response):
    """Why the configuration does not let an endpoint be sent to; its deliveries wait until it is fixed."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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


READ_ONLY: Final = {one.name for one in fields(ChangedEndpoint)} - set(NewEndpoint.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPage(Response):
    """A page of endpoints."""

    items: list[Endpoint]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingDeliveries(Response):
    """The deliveries that wait for an endpoint; `capped`: there are more than `waiting_count`."""

    endpoint_id: EndpointId
    waiting_count: int
    retrying_count: int
    capped: bool
    oldest_due_at: TimeText | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRetry(Response):
    """The outcome of retrying an endpoint now.

    `released`: the attempt succeeded, and everything that waits is due. `releasing`: this goes on. `failed`: the
    attempt failed, or none could be made, and the schedule is as it was. `requested`: no dispatcher has made the
    attempt yet. `nothing_waiting`: there was nothing to send. `waiting_count` is from before the attempt.
    """

    endpoint_id: EndpointId
    state: Literal["released", "releasing", "failed", "requested", "nothing_waiting"]
    waiting_count: int
    capped: bool
    delivery_id: DeliveryId | None
    attempt: Attempt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedResponse(Response):
    """The failed and the retrying deliveries whose last attempt had this outcome and response code.

    `outcome` is null where no attempt was made.
    """

    outcome: AttemptOutcomeName | None
    response_code: int | None
    failed_count: int
    retrying_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFailures(Response):
    """The failures of an endpoint by response, the most frequent first.

    At most 1,000 failed deliveries, of the last 31 days, and the 1,000 waiting deliveries that are due first are
    read; `capped`: there are more.
    """

    endpoint_id: EndpointId
    responses: list[FailedResponse]
    capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedSecret(Response):
    """The new secret, whole, or masked if it is an ed25519 key that was made here.

    `also_sign_secrets` has it as the other profiles of `also_sign` read it.
    """

    endpoint_id: EndpointId
    secret: str
    also_sign_secrets: dict[str, str]
    public_key: str | None
    state: Literal["active", "staged"]
    previous_secret_expires_at: TimeText | None


class RotationAnswer(RootModel[RotatedSecret | Endpoint]):
    """The new secret, whole; after `activate_staged` the endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealedSecret(Response):
    """The secrets, whole; the request was audited. Of an ed25519 key only the public key is shown.

    `also_sign_secrets` has the current secret as the other profiles of `also_sign` read it.
    """

    endpoint_id: EndpointId
    secret: str | None
    also_sign_secrets: dict[str, str]
    staged_secret: str | None
    public_key: str | None


class EndpointAction(StrEnum):
    """The effect of a declaration on one endpoint."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"
    LEFT = "left"
    """It is not in the declaration, and stays."""


FieldChange = TypedDict("FieldChange", {"from": object, "to": object})
"""The value of a field before and after; secrets and header values are masked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedEndpoint(Response):
    """One endpoint of a declaration, and what became of it."""

    action: EndpointAction
    tenant: str
    name: str
    id: EndpointId | None
    changes: dict[str, FieldChange]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedDeclaration(Response):
    """The result of a declaration that was applied, or would be (`dry_run`)."""

    dry_run: bool
    items: list[AppliedEndpoint]
    warnings: list[str]
