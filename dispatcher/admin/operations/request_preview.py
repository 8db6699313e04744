"""The request that an endpoint gets: of a test event, of an attempt, or of an endpoint that is not saved yet."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from dispatcher import __version__
from dispatcher.admin.operations.context import Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.endpoint_rules import (
    also_signing,
    read_change,
    read_new_endpoint,
    settings_of,
)
from dispatcher.admin.operations.endpoint_view import endpoint_of
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.fields import TENANT_DEFAULT
from dispatcher.admin.resources.request_preview import PreviewedRequest
from dispatcher.core import ids, secret
from dispatcher.core.addresses import DATABASE_PORTS, PortPolicy
from dispatcher.core.envelope import encode
from dispatcher.core.errors import (
    ConflictError,
    EncodingError,
    InvalidRequestError,
    ProfileError,
    SecretError,
)
from dispatcher.core.masks import compile_mask, embeds_data, mask_problems
from dispatcher.core.matching import event_types_problems, parse_event_types
from dispatcher.core.model import Event, EventId
from dispatcher.core.notifying import NOTIFICATION
from dispatcher.core.problems import problem
from dispatcher.core.profile import Profile
from dispatcher.core.request import RequestTemplate, validate_also_sign, validate_headers
from dispatcher.core.request import request_template as compile_template
from dispatcher.core.secret import Secret
from dispatcher.core.url import CanonicalUrl, canonical_url
from dispatcher.store.endpoint_counts import DeliveryCounts
from dispatcher.store.endpoints import EndpointDetail, load_endpoint
from dispatcher.store.secrets import SealedSecret, load_secrets
from dispatcher.usability import signing_secrets

ANY_PORT: Final = PortPolicy(DATABASE_PORTS, ((1, 65_535),))
"""The client validates the port: a denied one is an attempt with that outcome."""
FRAMING: Final = frozenset({"host", "content-length", "accept-encoding"})
"""Headers of a request that a fetched delivery does not have."""
PREVIEWED: Final = ("url", "event_types", "headers", "also_sign", "include", "exclude")
EXAMPLE_URL: Final = "https://example.com/webhooks"
"""Of a preview whose URL is not typed yet, or is invalid."""


class RequestPreview(NamedTuple):
    """A request as an endpoint would get it; its signature is made with a secret of this preview alone."""

    event_type: str
    url: str
    head: list[tuple[str, str]]
    body: str


class RequestPreviews:
    """Previews of requests to endpoints that do not exist yet, or with settings that are not saved yet."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def preview(self, actor: Actor, fields: Mapping[str, object]) -> PreviewedRequest:
        """Return the request that a new endpoint of these fields would get; nothing is stored or sent.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: every problem of the fields. ConflictError: the profile
            cannot be shown without a secret that its vendor issues.
        """
        actor.require(Role.MANAGER)
        new, problems = read_new_endpoint(fields, actor.tenant or TENANT_DEFAULT, self._deployment)
        if new is None or problems:
            raise InvalidRequestError(problems)
        allowed_tenant(actor, new.tenant)
        request = preview_request(
            self._deployment,
            profile=self._deployment.profiles[new.profile],
            url=new.url,
            event_types=new.event_types,
            headers=new.headers,
            is_signed="secret" not in new.model_fields_set or new.secret is not None,
            also_sign=new.also_sign,
            ed25519=new.key_type == "ed25519",
            include=new.include,
            exclude=new.exclude,
        )
        if request is None:
            raise ConflictError(problem("profile", "no_preview", profile=new.profile))
        return _shown(request)

    async def preview_change(
        self, actor: Actor, endpoint_id: str, fields: Mapping[str, object]
    ) -> PreviewedRequest:
        """Return the request that an endpoint would get with these fields changed; nothing is stored or sent.

        Raises:
            ForbiddenError: no manager. NotFoundError: no such endpoint. InvalidRequestError: every problem of the
            fields. ConflictError: its profile is missing, or cannot be shown without a secret that its vendor issues.
        """
        actor.require(Role.MANAGER)
        async with self._deployment.database.reading() as connection:
            row = await load_endpoint(connection, endpoint_id, actor.tenant)
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
        endpoint = endpoint_of(row, sealed, DeliveryCounts(), self._deployment, actor)
        profile = self._deployment.profiles.get(row.profile)
        change, problems = read_change(fields, profile, self._deployment)
        if change is None:
            raise InvalidRequestError(problems)
        request = None
        if profile is not None:
            request = preview_of(self._deployment, endpoint, profile, settings_of(change))
        if request is None:
            raise ConflictError(problem("profile", "no_preview", profile=row.profile))
        return _shown(request)


def _shown(request: RequestPreview) -> PreviewedRequest:
    return PreviewedRequest(
        event_type=request.event_type,
        method="POST",
        url=request.url,
        headers=request.head,
        body=request.body,
    )


def preview_of(
    deployment: Deployment, endpoint: Endpoint, profile: Profile, changed: Mapping[str, Any]
) -> RequestPreview | None:
    """Return the request that an endpoint would get with these settings changed; None: it cannot be shown."""
    settings = {name: getattr(endpoint, name) for name in PREVIEWED} | dict(changed)
    return preview_request(
        deployment,
        profile=profile,
        url=settings["url"],
        event_types=settings["event_types"],
        headers=settings["headers"],
        is_signed=endpoint.secret is not None,
        also_sign=settings["also_sign"],
        ed25519=endpoint.public_key is not None,
        include=settings["include"],
        exclude=settings["exclude"],
    )


def preview_request(
    deployment: Deployment,
    *,
    profile: Profile,
    url: str,
    event_types: Sequence[str],
    headers: Mapping[str, str],
    is_signed: bool,
    also_sign: Sequence[str] = (),
    ed25519: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> RequestPreview | None:
    """Return the request that an endpoint with these settings would get; settings that are invalid are left out.

    The event is the catalogue's sample of the first type that is subscribed to. None: the profile cannot be shown
    without a secret that its vendor issues.
    """
    event_type, sample = _sample(deployment, profile, event_types)
    now = deployment.clock.now()
    event = Event(
        EventId(f"evt_{now.year}_001234"), event_type, sample, "default", now, now, {}, None
    )
    try:
        target = canonical_url(url, https_only=profile.https_only, allow_ports=ANY_PORT)
    except InvalidRequestError:
        target = canonical_url(EXAMPLE_URL, https_only=True)
    has_secret = is_signed or not profile.secret.nullable
    also = also_signing(also_sign, deployment)
    if not has_secret or validate_also_sign(profile, also):
        also = []
    custom = headers if not validate_headers(headers, profile, also) else {}
    try:
        template = compile_template(
            profile=profile,
            url=target,
            secrets=[secret.generate(profile, secrets.token_bytes, ed25519=ed25519)]
            if has_secret
            else [],
            user_agent=deployment.settings.egress.user_agent or f"dispatcher/{__version__}",
            custom_headers=custom,
            also=also,
        )
        is_masked = embeds_data(profile) and not (
            mask_problems(include, "include") or mask_problems(exclude, "exclude")
        )
        mask = compile_mask(tuple(include), tuple(exclude)) if is_masked else None
        body = encode(profile, event, mask).body
        delivery_id = ids.delivery_id(int(now.timestamp() * 1000), event.id, "ep_preview")
        head = template.head(
            event_id=event.id,
            delivery_id=delivery_id,
            event_type=event_type,
            timestamp=int(now.timestamp()),
            body=body,
            traceparent=None,
        )
    except (EncodingError, ProfileError, SecretError):
        return None
    lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    shown = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
    return RequestPreview(event_type, target.url, shown, body.decode("utf-8", "replace"))


def _sample(
    deployment: Deployment, profile: Profile, event_types: Sequence[str]
) -> tuple[str, str]:
    """Return a type of the catalogue and its sample, preferably one that is subscribed to."""
    known = deployment.catalogue.types
    valid = [one for one in event_types if not event_types_problems([one])]
    wanted = [NOTIFICATION] if profile.text else []
    wanted += [one for one in event_types if one in known]
    if valid:
        matches = parse_event_types(valid).matches
        wanted += [name for name in known if matches(name)]
    chosen = next((one for one in wanted if one in known), next(iter(known), "order.created"))
    return chosen, known[chosen].sample if chosen in known else "{}"


def request_template(
    deployment: Deployment,
    row: EndpointDetail,
    profile: Profile,
    url: CanonicalUrl,
    sealed: Sequence[SealedSecret],
) -> RequestTemplate:
    """Return what makes the heads of an endpoint's requests, as it is now.

    Raises:
        ConflictError: it cannot be sent to: no secret, or one that does not open; bad headers.
    """
    also = also_signing(row.also_sign, deployment)
    signing = signing_secrets(sealed, profile, deployment.clock.now())
    if not signing and not profile.secret.nullable:
        raise ConflictError(problem("secret", "secret_missing", profile=profile.name))
    try:
        opened = [
            Secret(deployment.keys().open(one.sealed, owner=row.id, key_id=one.key_id))
            for one in signing
        ]
        return compile_template(
            profile=profile,
            url=url,
            secrets=opened,
            user_agent=deployment.settings.egress.user_agent or f"dispatcher/{__version__}",
            custom_headers=row.headers,
            also=also,
        )
    except (SecretError, ProfileError) as error:
        raise ConflictError(problem("id", "endpoint_unusable", detail=str(error))) from error
