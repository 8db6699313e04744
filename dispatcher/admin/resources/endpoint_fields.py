"""The types of an endpoint's own fields: how each is validated and described in OpenAPI.

Rules that depend on the profile or on the deployment are `EndpointRules`, the context of validation.
"""

from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema

from dispatcher.admin.resources.fields import (
    NAME_CHARACTERS_MAX,
    LabelFilter,
    name_problems,
    number_problems,
)
from dispatcher.admin.resources.validation import refuse
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.filters import EXPRESSION_CHARACTERS_MAX, filter_problems
from dispatcher.core.limits import SUBSCRIPTION_TYPES_COUNT_MAX, URL_CHARACTERS_MAX
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
DeliveryMode = Literal["push", "pull"]


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


_FILTER_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": EXPRESSION_CHARACTERS_MAX,
    "examples": ['data.total > 1000 && labels.region == "th"'],
}


def _or_null(schema: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [schema, {"type": "null"}]})


EndpointName = Annotated[
    str,
    PlainValidator(_name),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX, "examples": ["ERP"]}
    ),
]
TargetUrl = Annotated[
    str,
    PlainValidator(_url),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": URL_CHARACTERS_MAX,
            "examples": ["https://erp.example.com/hooks"],
        }
    ),
]
Subscription = Annotated[
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
]
WantedLabels = Annotated[
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
]
Headers = Annotated[
    dict[str, str],
    PlainValidator(_headers),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string"}}),
]
RetrySchedule = Annotated[
    list[float] | None,
    PlainValidator(_schedule),
    _or_null(
        {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": RETRY_SECONDS_MAX},
            "maxItems": RETRIES_MAX,
        }
    ),
]
RequiredFilter = Annotated[str, PlainValidator(_required_filter), WithJsonSchema(_FILTER_SCHEMA)]
ContentFilter = Annotated[str | None, PlainValidator(_content_filter), _or_null(_FILTER_SCHEMA)]
AlsoSign = Annotated[
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
]
Paths = Annotated[
    list[str],
    PlainValidator(_paths),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": PATH_CHARACTERS_MAX},
            "maxItems": PATHS_MAX,
        }
    ),
]
TokenUrl = Annotated[
    str | None,
    PlainValidator(_token_url),
    _or_null({"type": "string", "maxLength": URL_CHARACTERS_MAX}),
]
_CLIENT_SCHEMA: Final = _or_null({"type": "string", "minLength": 1, "maxLength": 512})
ClientText = Annotated[str | None, PlainValidator(_client_text), _CLIENT_SCHEMA]
ClientSecret = Annotated[str | None, PlainValidator(_client_secret), _CLIENT_SCHEMA]
_PEM_SCHEMA: Final = _or_null({"type": "string", "maxLength": CA_PEM_CHARACTERS_MAX})
CaPem = Annotated[str | None, PlainValidator(_ca_pem), _PEM_SCHEMA]
ClientCertificate = Annotated[str | None, PlainValidator(_client_certificate), _PEM_SCHEMA]
ClientKey = Annotated[str | None, PlainValidator(_client_key), _PEM_SCHEMA]
KeyType = Literal["hmac", "ed25519"] | None
