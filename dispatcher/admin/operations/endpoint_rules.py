"""Rules of an endpoint that depend on its profile and on the deployment, and the reading of its fields.

Values come as they were written in JSON or on the command line, so each may be of any type. A field
that is left out stays absent, which is not the same as null: null brings a limit back to its default
and makes an endpoint unsigned.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.resources.endpoint import SETTINGS, EndpointSettings
from dispatcher.admin.resources.endpoint_fields import RULES
from dispatcher.admin.resources.endpoint_requests import (
    PULL_URL,
    READ_ONLY,
    EndpointChange,
    NewEndpoint,
)
from dispatcher.admin.resources.validation import problems_of
from dispatcher.core.addresses import PortPolicy
from dispatcher.core.errors import InvalidRequestError, SecretError
from dispatcher.core.limits import (
    CUSTOM_HEADERS_BYTES_MAX,
    LABELS_COUNT_MAX,
    SUBSCRIPTION_TYPES_COUNT_MAX,
)
from dispatcher.core.masks import embeds_data
from dispatcher.core.problems import Problem, problem
from dispatcher.core.profile import Profile, SecretPlace
from dispatcher.core.request import headers_bytes_count, validate_also_sign, validate_headers
from dispatcher.core.secret import Secret, check, secret_under
from dispatcher.core.similar import similar_words
from dispatcher.core.url import CanonicalUrl, canonical_url

ADMIN_SETTINGS: Final = (
    "max_concurrency",
    "rate_limit",
    "timeout_seconds",
    "retry_schedule_seconds",
)
"""Settings that spend the capacity of the deployment, which all tenants share; a manager cannot change them."""


class Rules:
    """The rules of one profile of a deployment; without a profile they apply as far as they can."""

    def __init__(self, profile: Profile | None, deployment: Deployment) -> None:
        self._profile = profile
        self._deployment = deployment

    def url(self, text: str) -> str:
        """Return the canonical form of a URL.

        Raises:
            InvalidRequestError: it breaks the rules of URLs, the profile or the settings.
        """
        url = self._checked(text, https_only=self._profile is not None and self._profile.https_only)
        is_secret = self._profile is not None and self._profile.secret.place is SecretPlace.URL
        if is_secret and url.target != "/":
            assert self._profile is not None  # noqa: S101 -- of the line above
            raise InvalidRequestError(
                [problem("url", "url_holds_secret", profile=self._profile.name)]
            )
        return url.url

    def _checked(self, text: str, *, https_only: bool) -> CanonicalUrl:
        egress = self._deployment.settings.egress
        url = canonical_url(
            text, https_only=https_only, allow_ports=PortPolicy.parse(egress.allow_ports)
        )
        if url.scheme == "http" and not egress.allow_http:
            raise InvalidRequestError([problem("url", "url_http_off")])
        rule = self._deployment.policy.denying_rule(url.host, url.port) if url.is_literal else None
        if rule is not None:
            raise InvalidRequestError([problem("url", "url_address_denied", rule=rule)])
        return url

    def token_url(self, text: str) -> str:
        """Return the canonical form of a token endpoint's URL.

        Raises:
            InvalidRequestError: it breaks the rules of URLs or of the settings.
        """
        return self._checked(text, https_only=False).url

    def headers(self, headers: dict[str, str]) -> list[Problem]:
        """List the problems of custom headers."""
        return [] if self._profile is None else validate_headers(headers, self._profile)

    def also_sign(self, names: list[str]) -> list[Problem]:
        """List the problems of the profiles that also sign."""
        known = self._deployment.profiles
        problems = [
            problem(f"also_sign[{index}]", "not_one_of", value=name, allowed=", ".join(known))
            for index, name in enumerate(names)
            if name not in known
        ]
        if problems or self._profile is None:
            return problems
        return validate_also_sign(self._profile, [known[name] for name in names])

    def mask(self, field: str) -> list[Problem]:
        """List why parts of the data cannot be left out."""
        if self._profile is None or embeds_data(self._profile):
            return []
        return [problem(field, "mask_not_possible", profile=self._profile.name)]

    def limits(self, field: str, value: object) -> list[Problem]:
        """List the limits of the settings that a value exceeds; fixed limits are reported elsewhere."""
        limits = self._deployment.settings.limits
        if field == "event_types" and isinstance(value, list):
            count, limit, key = len(value), limits.event_types_per_endpoint, "event_types"
            fixed = SUBSCRIPTION_TYPES_COUNT_MAX
        elif field == "labels" and isinstance(value, dict):
            count, limit, key = len(value), limits.labels_per_endpoint, "labels"
            fixed = LABELS_COUNT_MAX
        elif field == "headers" and isinstance(value, dict):
            count, limit, key = (
                headers_bytes_count(value),
                limits.header_bytes_per_endpoint,
                "header_bytes",
            )
            fixed = CUSTOM_HEADERS_BYTES_MAX
        else:
            return []
        if not limit < count <= fixed:
            return []
        setting = f"limits.{key}_per_endpoint"
        return [problem(field, "limit_exceeded", count=count, setting=setting, maximum=limit)]


def with_secret_of_url(
    fields: Mapping[str, object], deployment: Deployment
) -> Mapping[str, object]:
    """Return the fields of a new endpoint with the path of its URL as the secret, if its profile has it there.

    Chat services give out one URL, whose path is the credential: people paste it as it is.
    """
    name = fields.get("profile", deployment.settings.endpoints.default_profile)
    profile = deployment.profiles.get(name) if isinstance(name, str) else None
    url = fields.get("url")
    if (
        profile is None
        or profile.secret.place is not SecretPlace.URL
        or "secret" in fields
        or not isinstance(url, str)
    ):
        return fields
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if not path:
        return fields
    return {**fields, "url": f"{scheme}{separator}{host}/", "secret": slash + path}


def with_pull_url(fields: Mapping[str, object]) -> Mapping[str, object]:
    """Return the fields of a new endpoint with a URL, which one that fetches its deliveries may leave out."""
    if fields.get("delivery") != "pull" or fields.get("url") not in {None, ""}:
        return fields
    return {**fields, "url": PULL_URL}


def read_new_endpoint(
    fields: Mapping[str, object], tenant: str, deployment: Deployment
) -> tuple[NewEndpoint | None, list[Problem]]:
    """Return a new endpoint, `tenant` where the fields name none; None with every problem."""
    name = fields.get("profile", deployment.settings.endpoints.default_profile)
    profile = deployment.profiles.get(name) if isinstance(name, str) else None
    endpoint, problems = _read(
        NewEndpoint, {"tenant": tenant, "profile": name, **fields}, profile, deployment
    )
    if profile is None:
        allowed = ", ".join(sorted(deployment.profiles))
        problems = [one for one in problems if one.field != "profile"]
        problems.append(problem("profile", "not_one_of", value=name, allowed=allowed))
    if "secret" in fields:
        problems = [one for one in problems if one.field != "secret"]
        problems += secret_problems(fields["secret"], profile)
    problems += key_type_problems(fields.get("key_type"), profile, has_secret="secret" in fields)
    if endpoint is not None and profile is not None and not problems:
        problems += header_problems(settings_of(endpoint), profile, deployment)
        if "secret" in fields:
            own = None if endpoint.secret is None else Secret(endpoint.secret)
            problems += also_sign_problems(endpoint.also_sign, profile, own, deployment)
    return (None if problems else endpoint), problems


def read_change(
    fields: Mapping[str, object], profile: Profile | None, deployment: Deployment
) -> tuple[EndpointChange | None, list[Problem]]:
    """Return a change of an endpoint of this profile; None with every problem."""
    given = {name: value for name, value in fields.items() if name not in {"profile", "tenant"}}
    secret = [
        problem(name, "secret_rotation_only") for name in ("secret", "key_type") if name in given
    ]
    for name in ("secret", "key_type"):
        given.pop(name, None)
    change, problems = _read(EndpointChange, given, profile, deployment)
    return (None if problems or secret else change), [*problems, *secret]


def _read(
    model: type[EndpointSettings],
    fields: Mapping[str, object],
    profile: Profile | None,
    deployment: Deployment,
) -> tuple[Any, list[Problem]]:
    try:
        return model.model_validate(fields, context={RULES: Rules(profile, deployment)}), []
    except ValidationError as error:
        return None, [
            problem(one.field, "read_only")
            if one.code == "unknown_field" and one.field in READ_ONLY
            else one
            for one in problems_of(error)
        ]


def settings_of(endpoint: EndpointSettings) -> dict[str, Any]:
    """Return the settings that were given, as they are stored."""
    given = endpoint.given()
    return {name: given[name] for name in SETTINGS if name in given}


def secret_problems(given: object, profile: Profile | None) -> list[Problem]:
    """List the problems of a secret; null means unsigned."""
    if given is not None and not isinstance(given, str):
        return [problem("secret", "not_a_string")]
    if profile is None:
        return []
    try:
        check(profile, None if given is None else Secret(given))
    except SecretError as error:
        return [error.problem or problem("secret", "invalid_value", detail=str(error))]
    return []


def key_type_problems(
    key_type: object, profile: Profile | None, *, has_secret: bool
) -> list[Problem]:
    """List why a secret of this kind cannot be generated; that it is a kind is validated elsewhere."""
    if key_type is None:
        return []
    if has_secret:
        return [problem("key_type", "conflicting", other="secret")]
    if key_type == "ed25519" and profile is not None and profile.ed25519 is None:
        return [problem("key_type", "key_type_not_possible", profile=profile.name)]
    return []


def header_problems(
    settings: Mapping[str, Any], profile: Profile, deployment: Deployment
) -> list[Problem]:
    """List the custom headers that the profiles of `also_sign` have as well."""
    also = also_signing(settings.get("also_sign", ()), deployment)
    return validate_headers(settings.get("headers", {}), profile, also) if also else []


def also_sign_problems(
    names: Iterable[str], profile: Profile, own: Secret | None, deployment: Deployment
) -> list[Problem]:
    """List why a secret cannot sign under the other profiles of an endpoint; None: it has no secret."""
    also = also_signing(names, deployment)
    if also and own is None:
        return [problem("also_sign", "also_sign_without_secret")]
    problems = []
    for other in also:
        try:
            assert own is not None  # noqa: S101 -- of the lines above
            secret_under(other, profile, own)
        except SecretError as error:
            problems.append(error.problem or problem("also_sign", "invalid_value", detail=error))
    return problems


def also_signing(names: Iterable[str], deployment: Deployment) -> list[Profile]:
    """Return the profiles that also sign; one whose file is missing is left out."""
    return [deployment.profiles[name] for name in names if name in deployment.profiles]


def event_types_warnings(event_types: list[str], deployment: Deployment) -> list[str]:
    """Return a sentence for each subscription that no type of the catalogue matches."""
    return [
        f"event_types: the catalogue has no {text}. The subscription is kept; "
        + ("check its spelling." if similar is None else f"did you mean {similar}?")
        for text, similar in unknown_subscriptions(event_types, deployment)
    ]


def unknown_subscriptions(
    event_types: list[str], deployment: Deployment
) -> list[tuple[str, str | None]]:
    """Return each subscription that no type of the catalogue matches, with the most similar type."""
    known = deployment.catalogue.types
    return [
        (text, next(iter(similar_words(text, known)), None))
        for text in event_types
        if text != "*"
        and (
            not any(name.startswith(text.removesuffix("*")) for name in known)
            if text.endswith(".*")
            else text not in known
        )
    ]


def require_limits(actor: Actor, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Return unless a manager changes a setting that only an admin may.

    Raises:
        InvalidRequestError: it is so; names each setting.
    """
    if actor.may(Role.ADMIN):
        return
    problems = [
        problem(name, "field_needs_admin")
        for name in ADMIN_SETTINGS
        if after.get(name) != before.get(name)
    ]
    if problems:
        raise InvalidRequestError(problems)
