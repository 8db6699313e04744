"""Links to the portal of one tenant."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from dispatcher.admin.resources.base import PageQuery, Request, Response, resource
from dispatcher.admin.resources.fields import (
    NAME_CHARACTERS_MAX,
    Bounds,
    Tenant,
    Text,
    TimeText,
    name_problems,
)
from dispatcher.admin.resources.presentation import Option, Reading
from dispatcher.admin.resources.validation import checked_by
from dispatcher.core.contrast import COLOR
from dispatcher.core.origins import ORIGINS_MAX, PATTERN, is_origin_pattern
from dispatcher.core.problems import Problem, problem

LINK_SECONDS_DEFAULT: Final = 300
LINK_SECONDS_MAX: Final = 7 * 86_400
SESSION_SECONDS_DEFAULT: Final = 8 * 3_600
SESSION_SECONDS_MAX: Final = 86_400
SECONDS_MIN: Final = 60
PortalRoleName = Literal["viewer", "operator", "manager"]
PortalLinkState = Literal["unused", "used", "expired", "revoked"]


def color_problems(value: object, field: str = "color") -> list[Problem]:
    """List the problems of a color."""
    if isinstance(value, str) and COLOR.fullmatch(value):
        return []
    return [problem(field, "invalid_color", value=value)]


def origins_problems(values: list[str], field: str = "frame_ancestors") -> list[Problem]:
    """List the problems of the origins that may embed the portal."""
    if len(values) > ORIGINS_MAX:
        return [problem(field, "too_many_items", maximum=ORIGINS_MAX)]
    return [
        problem(f"{field}[{index}]", "invalid_origin", value=value)
        for index, value in enumerate(values)
        if not is_origin_pattern(value)
    ]


class NewPortalLink(Request):
    """A new link to the portal of one tenant."""

    tenant: Annotated[
        Tenant | None, Option(metavar="TENANT", help="The tenant whose portal it opens.")
    ] = Field(
        default=None,
        description="Required with a token for all tenants; otherwise it is the token's.",
        examples=["acme"],
    )
    role: Annotated[
        PortalRoleName,
        Option(
            metavar="ROLE",
            help="viewer: read. operator: also test, resend, cancel, pause. manager: also create, change and delete"
            " Webhooks, and their secrets.",
        ),
    ] = Field(default="manager", description="A token with the role operator cannot grant manager.")
    name: Annotated[
        Annotated[
            str,
            checked_by(name_problems),
            WithJsonSchema({"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS_MAX}),
        ]
        | None,
        Option(metavar="NAME", help="The name that the portal shows in place of the console's."),
    ] = Field(default=None, examples=["Acme Logistics"])
    color: Annotated[
        Annotated[
            str,
            checked_by(color_problems),
            AfterValidator(str.lower),
            WithJsonSchema({"type": "string", "pattern": f"^{COLOR.pattern}$"}),
        ]
        | None,
        Option(metavar="#RRGGBB", help="The color of links and buttons, such as #0f7b6c."),
    ] = Field(
        default=None,
        description="Text and buttons use a shade of it that has the contrast of WCAG AA.",
        examples=["#0f7b6c"],
    )
    language: Annotated[
        Literal["en", "th"] | None,
        Option(metavar="LANGUAGE", help="en or th. Default: the browser's."),
    ] = None
    frame_ancestors: Annotated[
        Annotated[
            list[Text],
            checked_by(origins_problems),
            WithJsonSchema(
                {
                    "type": "array",
                    "maxItems": ORIGINS_MAX,
                    "items": {"type": "string", "pattern": f"^(?:{PATTERN})$"},
                }
            ),
        ],
        Option(
            name="frame-ancestor",
            metavar="ORIGIN",
            help="An origin whose pages may embed the portal, such as https://app.example.com. May be repeated.",
            reads=Reading.TEXTS,
        ),
    ] = Field(
        default=[],
        description="Origins whose pages may embed the portal; the setting `portal.frame_ancestors` must allow each.",
        examples=[["https://app.example.com"]],
    )
    expires_in_seconds: Annotated[
        Annotated[int, Bounds(SECONDS_MIN, LINK_SECONDS_MAX, whole=True)],
        Option(
            name="expires-in",
            metavar="SECONDS",
            help="Seconds until the link expires, 60 to 604800.",
            reads=Reading.NUMBER,
        ),
    ] = LINK_SECONDS_DEFAULT
    session_seconds: Annotated[
        Annotated[int, Bounds(SECONDS_MIN, SESSION_SECONDS_MAX, whole=True)],
        Option(
            metavar="SECONDS",
            help="Seconds that the session lasts, 60 to 86400.",
            reads=Reading.NUMBER,
        ),
    ] = SESSION_SECONDS_DEFAULT


class PortalLinksQuery(PageQuery):
    """Which portal links."""

    tenant: Annotated[Text | None, Option(metavar="TENANT", help="Only links of this tenant.")] = (
        None
    )


@resource
class PortalLink(Response):
    """A portal link, without its URL, which is not stored."""

    id: str
    tenant: str
    role: PortalRoleName
    state: PortalLinkState
    name: str | None
    color: str | None
    language: str | None
    frame_ancestors: list[str]
    session_seconds: int
    created_by: str
    created_at: TimeText
    expires_at: TimeText
    used_at: TimeText | None
    revoked_at: TimeText | None


@resource
class CreatedPortalLink(PortalLink):
    """A portal link with its URL, which no other response contains."""

    url: str


@resource
class PortalLinkPage(Response):
    """A page of portal links."""

    items: list[PortalLink]
    next_cursor: str | None
