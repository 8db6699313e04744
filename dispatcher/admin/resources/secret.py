"""Secrets of an endpoint: how one is rotated, and what is shown of it."""

from typing import Annotated, Final, Literal

from pydantic import Field, RootModel

from dispatcher.admin.resources.base import Request, Response, resource
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.endpoint_fields import KeyType
from dispatcher.admin.resources.fields import Bounds, EndpointId, TimeText

OVERLAP_SECONDS_MAX: Final = 604_800


class NewSecret(Request):
    """How a secret is rotated."""

    secret: str | None = Field(default=None, description="Left out: one is made.")
    key_type: KeyType = Field(
        default=None,
        description="What is made: `hmac` or `ed25519`. Left out: the kind of the present one. Only without `secret`.",
    )
    overlap_seconds: Annotated[float, Bounds(0, OVERLAP_SECONDS_MAX)] | None = Field(
        default=None,
        description="How long the old secret signs together with the new one, in seconds; 86400 by default.",
    )
    activate: bool | None = Field(
        default=None, description="Switch at once, where the profile has room for one signature."
    )
    activate_staged: bool | None = Field(
        default=None, description="Switch to the secret that was staged; nothing else may be given."
    )


@resource
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


@resource
class RevealedSecret(Response):
    """The secrets, whole; the request was audited. Of an ed25519 key only the public key is shown.

    `also_sign_secrets` has the current secret as the other profiles of `also_sign` read it.
    """

    endpoint_id: EndpointId
    secret: str | None
    also_sign_secrets: dict[str, str]
    staged_secret: str | None
    public_key: str | None
