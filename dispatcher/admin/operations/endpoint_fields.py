"""Judges what a person gives for an endpoint: every field, every fault, in one go.

Values come as they were written in JSON or on the command line, so each may be of any type. What
was not given stays absent: that is not the same as null, which brings a limit back to its default
and makes an endpoint unsigned.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from dispatcher.admin.operations.deployment import Deployment
from dispatcher.config.sections import LimitsSettings
from dispatcher.core.addresses import PortPolicy
from dispatcher.core.errors import InvalidRequestError, SecretError
from dispatcher.core.limits import (
    CUSTOM_HEADERS_BYTES_MAX,
    LABELS_COUNT_MAX,
    RATE_PER_SECOND_MAX,
    RATE_PER_SECOND_MIN,
    SUBSCRIPTION_TYPES_COUNT_MAX,
)
from dispatcher.core.matching import event_types_problems, label_filter_problems
from dispatcher.core.profile import Profile
from dispatcher.core.request import headers_bytes_count, validate_headers
from dispatcher.core.secret import Secret, check
from dispatcher.core.url import canonical_url

Problem = tuple[str, str]

PROFILE_DEFAULT: Final = "standard"
TENANT_DEFAULT: Final = "default"
NAME_CHARACTERS_MAX: Final = 128
CA_PEM_CHARACTERS_MAX: Final = 65_536
CONCURRENCY_MAX: Final = 1_000
TIMEOUT_SECONDS_MIN: Final = 0.001
TIMEOUT_SECONDS_MAX: Final = 60.0
RETRIES_MAX: Final = 50
RETRY_SECONDS_MAX: Final = 7 * 86_400.0

READ_ONLY: Final = frozenset(
    {"id", "state", "reason", "created_at", "updated_at", "public_key", "staged_secret", "warnings"}
)
CHANGEABLE: Final = (
    "name",
    "url",
    "event_types",
    "headers",
    "labels",
    "ca_pem",
    "max_concurrency",
    "rate_limit",
    "timeout_seconds",
    "retry_schedule_seconds",
    "ordering",
)
GIVEN_ONCE: Final = ("profile", "tenant", "secret")


def unknown_problems(fields: Mapping[str, object]) -> list[Problem]:
    """Lists the fields that there are not, or that nobody sets."""
    known = {*CHANGEABLE, *GIVEN_ONCE}
    return [
        (field, "is read only" if field in READ_ONLY else "is not a field of an endpoint")
        for field in fields
        if field not in known
    ]


def judge(
    fields: Mapping[str, object], profile: Profile | None, deployment: Deployment
) -> tuple[dict[str, Any], list[Problem]]:
    """Returns the changeable fields that were given, in the form that is stored, and every fault.

    Without a profile (its name was wrong) what depends on it is judged as far as it goes.
    """
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for field in CHANGEABLE:
        if field not in fields:
            continue
        given = fields[field]
        match field:
            case "name":
                problems += _name_problems(given)
            case "url":
                given, found = _url(given, profile, deployment)
                problems += found
            case "event_types":
                problems += _event_types_problems(given)
            case "headers":
                problems += _headers_problems(given, profile)
            case "labels":
                problems += _labels_problems(given)
            case "ca_pem":
                given = given or None
                problems += _ca_pem_problems(given)
            case "ordering":
                if given != "none":
                    problems.append((field, "must be none; key and strict are not built yet"))
            case "retry_schedule_seconds":
                problems += _schedule_problems(given)
            case _:
                problems += _number_problems(field, given)
        problems += _limit_problems(field, given, deployment.settings.limits)
        values[field] = given
    return values, problems


def _limit_problems(field: str, given: object, limits: LimitsSettings) -> list[Problem]:
    """List what exceeds a limit of the settings; what exceeds a fixed one is reported elsewhere."""
    if field == "event_types" and isinstance(given, list):
        count, limit, key = len(given), limits.event_types_per_endpoint, "event_types_per_endpoint"
        fixed, unit = SUBSCRIPTION_TYPES_COUNT_MAX, "entries"
    elif field == "labels" and isinstance(given, dict):
        count, limit, key = len(given), limits.labels_per_endpoint, "labels_per_endpoint"
        fixed, unit = LABELS_COUNT_MAX, "names"
    elif field == "headers" and isinstance(given, dict):
        count = headers_bytes_count({str(name): str(value) for name, value in given.items()})
        limit, key = limits.header_bytes_per_endpoint, "header_bytes_per_endpoint"
        fixed, unit = CUSTOM_HEADERS_BYTES_MAX, "bytes"
    else:
        return []
    if not limit < count <= fixed:
        return []
    return [
        (field, f"has {count} {unit}, more than limits.{key} allows. Use at most {limit} {unit}.")
    ]


def secret_problems(given: object, profile: Profile | None) -> list[Problem]:
    """Lists what is wrong with a secret; null means unsigned."""
    if given is not None and not isinstance(given, str):
        return [("secret", "must be a text, or null")]
    if profile is None:
        return []
    try:
        check(profile, None if given is None else Secret(given))
    except SecretError as error:
        return [("secret", str(error))]
    return []


def tenant_problems(given: object, field: str = "tenant") -> list[Problem]:
    """Lists what is wrong with a tenant's name."""
    allowed = "abcdefghijklmnopqrstuvwxyz0123456789_-"
    if isinstance(given, str) and 1 <= len(given) <= 64 and not given.strip(allowed):  # noqa: PLR2004 -- the outbox's CHECK
        return []
    return [(field, "must be 1 to 64 lower-case letters, digits, _ and -")]


def event_types_warnings(event_types: list[str], deployment: Deployment) -> list[str]:
    """Returns a sentence for each subscription that no type of the catalogue matches."""
    known = deployment.catalogue.types
    return [
        f"event_types: the catalogue knows no {text}; it is kept, check the spelling"
        for text in event_types
        if text != "*"
        and (
            not any(name.startswith(text.removesuffix("*")) for name in known)
            if text.endswith(".*")
            else text not in known
        )
    ]


def _name_problems(given: object) -> list[Problem]:
    if not isinstance(given, str) or not 1 <= len(given) <= NAME_CHARACTERS_MAX:
        return [("name", f"must be a text of 1 to {NAME_CHARACTERS_MAX} characters")]
    if not given.isprintable() or given != given.strip():
        return [("name", "must have no control characters, and no space at its ends")]
    return []


def _url(
    given: object, profile: Profile | None, deployment: Deployment
) -> tuple[object, list[Problem]]:
    egress = deployment.settings.egress
    if not isinstance(given, str):
        return given, [("url", "must be a text such as https://example.com/path")]
    try:
        url = canonical_url(
            given,
            https_only=profile is not None and profile.https_only,
            allow_ports=PortPolicy.parse(egress.allow_ports),
        )
    except InvalidRequestError as error:
        return given, error.problems
    if url.scheme == "http" and not egress.allow_http:
        return given, [
            ("url", "must begin with https://: egress.allow_http is off in the settings")
        ]
    rule = deployment.policy.judge(url.host, url.port) if url.is_literal else None
    if rule is not None:
        return given, [
            ("url", f"names an address that the settings deny ({rule}); see egress.allow_networks")
        ]
    return url.url, []


def _event_types_problems(given: object) -> list[Problem]:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        return [("event_types", "must be a list of texts")]
    return event_types_problems(given)


def _headers_problems(given: object, profile: Profile | None) -> list[Problem]:
    if not isinstance(given, dict) or not all(isinstance(one, str) for one in given.values()):
        return [("headers", "must be an object of texts")]
    return [] if profile is None else validate_headers(given, profile)


def _labels_problems(given: object) -> list[Problem]:
    if not isinstance(given, dict):
        return [("labels", "must be an object of texts and lists of texts")]
    wrong = [name for name, wanted in given.items() if not isinstance(wanted, str | list)]
    if wrong:
        return [(f"labels.{name}", "must be a text or a list of texts") for name in wrong]
    return label_filter_problems(given)


def _ca_pem_problems(given: object) -> list[Problem]:
    if given is None:
        return []
    if not isinstance(given, str) or len(given) > CA_PEM_CHARACTERS_MAX:
        return [("ca_pem", f"must be a text of up to {CA_PEM_CHARACTERS_MAX} characters")]
    if not given.isascii():
        return [("ca_pem", "must hold certificates in PEM form, which is ASCII alone")]
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=given)
    except (ssl.SSLError, ValueError) as error:
        return [("ca_pem", f"must hold certificates in PEM form ({error})")]
    return []


def _number_problems(field: str, given: object) -> list[Problem]:
    if given is None:
        return []
    bounds: dict[str, tuple[str, float, float]] = {
        "max_concurrency": ("must be a whole number from 1 to 1000, or null", 1, CONCURRENCY_MAX),
        "rate_limit": (
            "must be a number of requests per second from 0.00001 (about one a day) to 100000, or null",
            RATE_PER_SECOND_MIN,
            RATE_PER_SECOND_MAX,
        ),
        "timeout_seconds": (
            "must be a number of seconds from 0.001 to 60, or null",
            TIMEOUT_SECONDS_MIN,
            TIMEOUT_SECONDS_MAX,
        ),
    }
    message, least, most = bounds[field]
    is_number = isinstance(given, int if field == "max_concurrency" else int | float)
    if not is_number or isinstance(given, bool) or not least <= given <= most:  # type: ignore[operator]  # it is a number here
        return [(field, message)]
    return []


def _schedule_problems(given: object) -> list[Problem]:
    field = "retry_schedule_seconds"
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > RETRIES_MAX:
        return [
            (field, f"must be a list of up to {RETRIES_MAX} delays, or null; [] means one attempt")
        ]
    return [
        (f"{field}[{index}]", "must be a number of seconds from 0 to 604800")
        for index, delay in enumerate(given)
        if isinstance(delay, bool)
        or not isinstance(delay, int | float)
        or not 0 <= delay <= RETRY_SECONDS_MAX
    ]
