"""The secret of an endpoint: masked, shown on demand, rotated as the profile allows."""

from typing import Any, Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.pages.endpoints import profile_facts
from dispatcher.admin.console.profiles import also_codes, code_of
from dispatcher.admin.operations.context import Role
from dispatcher.admin.operations.published_keys import keys_url
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.endpoint_fields import KeyType
from dispatcher.admin.resources.secret import RevealedSecret, RotatedSecret
from dispatcher.core.errors import ConflictError, InvalidRequestError

_HOUR_SECONDS: Final = 3600


async def show_secret(context: Context) -> web.StreamResponse:
    """Show the mask, how receivers verify, and what can be done."""
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    return _page(context, endpoint)


def _page(
    context: Context,
    endpoint: Endpoint,
    *,
    revealed: RevealedSecret | None = None,
    rotated: RotatedSecret | None = None,
    problems: dict[str, str] | None = None,
    status: int = 200,
) -> web.Response:
    return context.page(
        "endpoint_secret.html",
        status=status,
        tab="secret",
        **signing_values(context, endpoint),
        revealed=revealed,
        rotated=rotated,
        problems=problems or {},
    )


async def reveal_secret(context: Context) -> web.StreamResponse:
    """Show the whole secret in the response to this form; the audit log records it."""
    context.who.require(Role.MANAGER)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    found = await context.operations.rotation.reveal(context.who, endpoint.id)
    return _page(context, endpoint, revealed=found)


async def rotate_secret(context: Context) -> web.StreamResponse:
    """Rotate the endpoint's secret, or stage a new one, and show it once."""
    context.who.require(Role.MANAGER)
    endpoint = await context.operations.endpoints.show(context.who, context.part("id"))
    if not context.app.forms.take(context.form.get("form_id", "")):
        raise ConflictError(context.text("error.sent_before"))
    own = context.form.get("secret", "").strip() or None
    try:
        hours = context.form.get("overlap_hours", "").strip()
        overlap = float(hours) * _HOUR_SECONDS if hours else None
    except ValueError:
        wrong = {"overlap_seconds": context.text("form.number")}
        return _page(context, endpoint, problems=wrong, status=422)
    try:
        found = await context.operations.rotation.rotate(
            context.who,
            endpoint.id,
            new_secret=own,
            key_type=_key_type(context.form.get("key_type", "")),
            overlap_seconds=overlap,
            activate=True if context.form.get("activate") else None,
        )
    except InvalidRequestError as error:
        problems = problems_by_field(context, error.problems)
        return _page(context, endpoint, problems=problems, status=422)
    endpoint = await context.operations.endpoints.show(context.who, endpoint.id)
    return _page(context, endpoint, rotated=found)


def _key_type(text: str) -> KeyType:
    return "hmac" if text == "hmac" else "ed25519" if text == "ed25519" else None


async def activate_secret(context: Context) -> web.StreamResponse:
    """Switches to the staged secret."""
    context.who.require(Role.MANAGER)
    endpoint_id = context.part("id")
    await context.operations.rotation.activate_staged(context.who, endpoint_id)
    return context.go(f"/webhooks/{endpoint_id}/secret", "note.activated")


ROUTES: Final = (
    PageRoute("GET", "/webhooks/{id}/secret", show_secret, portal=True),
    PageRoute("POST", "/webhooks/{id}/secret/reveal", reveal_secret, portal=True),
    PageRoute("POST", "/webhooks/{id}/secret/rotate", rotate_secret, portal=True),
    PageRoute("POST", "/webhooks/{id}/secret/activate", activate_secret, portal=True),
)


def signing_values(context: Context, endpoint: Endpoint) -> dict[str, Any]:
    """Return what a page needs to show how a receiver verifies the requests of an endpoint."""
    profiles, public_key = context.operations.deployment.profiles, endpoint.public_key
    return {
        "endpoint": endpoint,
        "profile": profile_facts(context, endpoint.profile),
        "code": code_of(profiles.get(endpoint.profile), public_key),
        "keys_url": keys_url(endpoint.id),
        "also": also_codes(profiles, endpoint.also_sign, public_key),
    }
