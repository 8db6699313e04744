"""Requests about endpoints: a new one, a change, a declared one, and the query of a page."""

from dataclasses import fields
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from dispatcher.admin.resources.base import PageQuery
from dispatcher.admin.resources.endpoint import (
    ChangedEndpoint,
    EndpointSettings,
    EventTypes,
    Name,
    Url,
)
from dispatcher.admin.resources.endpoint_fields import ClientKey, ClientSecret, KeyType
from dispatcher.admin.resources.fields import (
    TENANT_DEFAULT,
    EndpointSortName,
    EndpointStateName,
    HealthName,
    Tenant,
    Text,
    without_defaults,
)
from dispatcher.admin.resources.presentation import Control, ControlKind, Option, Reading, Section

PULL_URL: Final = "https://pull.invalid/"
"""The URL of an endpoint whose deliveries are fetched and that names none; nothing is ever sent there."""


def _without_default(schema: dict[str, Any]) -> None:
    """Remove the default of a field's schema: the settings of the deployment decide it."""
    schema.pop("default", None)


class EndpointCredentials(EndpointSettings):
    """The settings, with those that are encrypted and never shown."""

    oauth_client_secret: Annotated[
        ClientSecret,
        Option(
            metavar="SECRET",
            help="The client secret at the token endpoint: -, @FILE or env:NAME.",
            reads=Reading.SECRET,
        ),
        Control(ControlKind.SECRET, Section.ADVANCED),
    ] = Field(
        default=None,
        description="The client secret at the token endpoint; it is encrypted and never shown.",
    )
    client_key: Annotated[
        ClientKey,
        Option(
            metavar="@FILE",
            help="The private key (PEM, not encrypted) of the client certificate: -, @FILE or env:NAME.",
            reads=Reading.SECRET,
        ),
        Control(ControlKind.SECRET, Section.ADVANCED),
    ] = Field(
        default=None,
        description="The private key (PEM) of the client certificate; it is encrypted and never shown.",
    )


class NewEndpoint(EndpointCredentials):
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
        Control(ControlKind.OWN),
    ] = Field(
        default="",  # read_new_endpoint fills in the setting
        examples=["wms", "humansoft", "standard"],
        json_schema_extra=_without_default,
    )
    tenant: Annotated[
        Tenant,
        Option(metavar="TENANT", help="The tenant whose events it receives; it never changes."),
        Control(ControlKind.LINE, Section.ADVANCED),
    ] = Field(default=TENANT_DEFAULT, examples=["default"])
    secret: Annotated[
        str | None,
        Option(
            metavar="SECRET",
            help="-, @FILE or env:NAME. Default: generated. none: unsigned, if the profile allows it.",
            reads=Reading.SECRET,
        ),
        Control(ControlKind.OWN),
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
        Control(ControlKind.OWN),
    ] = Field(
        default=None,
        description="What is generated: `hmac` (default), a secret that receivers share, or `ed25519`, a key pair of "
        "which receivers get the public key. Only without `secret`.",
    )


class DeclaredEndpoint(NewEndpoint):
    """An endpoint in a file; its `secret` is a reference, or `unsigned`."""


class EndpointChange(EndpointCredentials):
    """A change of an endpoint: a field that is left out stays (RFC 7396, one level deep)."""

    model_config = ConfigDict(json_schema_extra=without_defaults)


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


READ_ONLY: Final = {one.name for one in fields(ChangedEndpoint)} - set(NewEndpoint.model_fields)
