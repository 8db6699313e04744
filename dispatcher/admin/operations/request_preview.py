"""The request that an endpoint gets: made for a test event, and shown again for an attempt that was."""

from collections.abc import Sequence
from typing import Final

from dispatcher import __version__
from dispatcher.admin.operations.context import Deployment
from dispatcher.core.addresses import DATABASE_PORTS, PortPolicy
from dispatcher.core.errors import ConflictError, ProfileError, SecretError
from dispatcher.core.problems import problem
from dispatcher.core.profile import Profile
from dispatcher.core.request import RequestTemplate
from dispatcher.core.request import request_template as compile_template
from dispatcher.core.secret import Secret
from dispatcher.core.url import CanonicalUrl
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.secrets import SealedSecret

ANY_PORT: Final = PortPolicy(DATABASE_PORTS, ((1, 65_535),))
"""The client validates the port: a denied one is an attempt with that outcome."""


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
    now = deployment.clock.now()
    signing = [
        one
        for one in sorted(sealed, reverse=True)
        if one.role == "current"
        or (profile.several_signatures and one.expires_at is not None and one.expires_at > now)
    ]
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
        )
    except (SecretError, ProfileError) as error:
        raise ConflictError(problem("id", "endpoint_unusable", detail=str(error))) from error
