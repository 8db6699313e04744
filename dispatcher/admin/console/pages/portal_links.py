"""Links to the portal of a tenant, for administrators: created, listed, revoked."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.portal_link import (
    CreatedPortalLink,
    NewPortalLink,
    PortalLinksQuery,
)
from dispatcher.core.errors import ConflictError, InvalidRequestError

ROWS: Final = 20
EXPIRES_SECONDS: Final = 86_400
"""People send these links by hand, so they last longer than those that an application creates for a visit."""


async def list_links(context: Context) -> web.StreamResponse:
    """Show portal links, and the form of a new one."""
    context.who.require(Role.ADMIN)
    return await _page(context, {})


async def _page(
    context: Context,
    problems: dict[str, str],
    made: CreatedPortalLink | None = None,
    status: int = 200,
) -> web.Response:
    page = await context.operations.portal_links.page(
        context.who, PortalLinksQuery.of(limit=ROWS, cursor=context.query("cursor"))
    )
    return context.page(
        "access_portal.html", status=status, page=page, problems=problems, made=made
    )


async def create_link(context: Context) -> web.StreamResponse:
    """Create a portal link and show it once, in the response to this form."""
    context.who.require(Role.ADMIN)
    form_id = context.form.get("form_id", "")
    if not context.app.forms.take(form_id):
        raise ConflictError(context.text("error.sent_before"))
    texts = {name: context.form.get(name, "").strip() for name in ("tenant", "name", "color")}
    given = {name: text for name, text in texts.items() if text}
    try:
        made = await context.operations.portal_links.create(
            context.who,
            NewPortalLink.of(
                role=context.form.get("role", "manager"),
                expires_in_seconds=EXPIRES_SECONDS,
                **given,
            ),
        )
    except InvalidRequestError as error:
        context.app.forms.forget(form_id)
        return await _page(context, problems_by_field(context, error.problems), status=422)
    return await _page(context, {}, made)


async def revoke_link(context: Context) -> web.StreamResponse:
    """Revoke a portal link and end its session."""
    context.who.require(Role.ADMIN)
    await context.operations.portal_links.revoke(context.who, context.part("id"))
    return context.go("/access/portal", "note.revoked")


ROUTES: Final = (
    PageRoute("GET", "/access/portal", list_links),
    PageRoute("POST", "/access/portal", create_link),
    PageRoute("POST", "/access/portal/{id}/revoke", revoke_link),
)
