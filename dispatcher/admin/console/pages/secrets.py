"""The secret of an endpoint: masked, shown on demand, rotated as the profile allows."""

from typing import Final

from aiohttp import web

from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.pages.endpoints import profile_facts
from dispatcher.admin.console.site import Route
from dispatcher.admin.console.visit import Visit
from dispatcher.admin.operations.deployment import Role
from dispatcher.admin.resources.endpoint import Endpoint, RevealedSecret, RotatedSecret
from dispatcher.core.errors import ConflictError, InvalidRequestError

_HOUR_SECONDS: Final = 3600


async def secret(visit: Visit) -> web.StreamResponse:
    """Shows the mask, how receivers verify, and what can be done."""
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    return _page(visit, endpoint)


def _page(
    visit: Visit,
    endpoint: Endpoint,
    *,
    revealed: RevealedSecret | None = None,
    rotated: RotatedSecret | None = None,
    problems: dict[str, str] | None = None,
    status: int = 200,
) -> web.Response:
    return visit.page(
        "endpoint_secret.html",
        status=status,
        tab="secret",
        endpoint=endpoint,
        profile=profile_facts(visit, endpoint.profile),
        revealed=revealed,
        rotated=rotated,
        problems=problems or {},
    )


async def revealed(visit: Visit) -> web.StreamResponse:
    """Show the whole secret in the response to this form; the audit log records it."""
    visit.who.require(Role.ADMIN)
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    found = await visit.operations.rotation.reveal(visit.who, endpoint.id)
    return _page(visit, endpoint, revealed=found)


async def rotated(visit: Visit) -> web.StreamResponse:
    """Gives the endpoint a new secret, or stages it, and shows it once."""
    visit.who.require(Role.ADMIN)
    endpoint = await visit.operations.endpoints.show(visit.who, visit.part("id"))
    if not visit.site.forms.take(visit.form.get("form_id", "")):
        raise ConflictError(visit.text("error.sent_before"))
    own = visit.form.get("secret", "").strip() or None
    try:
        hours = visit.form.get("overlap_hours", "").strip()
        overlap = float(hours) * _HOUR_SECONDS if hours else None
    except ValueError:
        wrong = {"overlap_seconds": visit.text("form.number")}
        return _page(visit, endpoint, problems=wrong, status=422)
    try:
        found = await visit.operations.rotation.rotate(
            visit.who,
            endpoint.id,
            new_secret=own,
            overlap_seconds=overlap,
            activate=True if visit.form.get("activate") else None,
        )
    except InvalidRequestError as error:
        problems = problems_by_field(visit, error.problems)
        return _page(visit, endpoint, problems=problems, status=422)
    endpoint = await visit.operations.endpoints.show(visit.who, endpoint.id)
    return _page(visit, endpoint, rotated=found)


async def activated(visit: Visit) -> web.StreamResponse:
    """Switches to the staged secret."""
    visit.who.require(Role.ADMIN)
    endpoint_id = visit.part("id")
    await visit.operations.rotation.activate_staged(visit.who, endpoint_id)
    return visit.go(f"/webhooks/{endpoint_id}/secret", "note.activated")


ROUTES: Final = (
    Route("GET", "/webhooks/{id}/secret", secret),
    Route("POST", "/webhooks/{id}/secret/reveal", revealed),
    Route("POST", "/webhooks/{id}/secret/rotate", rotated),
    Route("POST", "/webhooks/{id}/secret/activate", activated),
)
