"""Why is the signature refused? A form on the page of a delivery, and the mistake that it finds.

The secret of the form is compared and discarded. The response repeats the other fields, never the secret.
"""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.forms import problems_by_field
from dispatcher.admin.console.pages.deliveries import delivery_page
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.signature_diagnosis import CapturedRequest
from dispatcher.core.errors import ConflictError, InvalidRequestError


async def show_form(context: Context) -> web.StreamResponse:
    """Show the delivery with the form open."""
    context.who.require(Role.OPERATOR)
    return await delivery_page(context, context.part("id"), is_diagnosing=True)


async def diagnose(context: Context) -> web.StreamResponse:
    """Show the delivery with the finding."""
    context.who.require(Role.OPERATOR)
    delivery_id = context.part("id")
    try:
        found = await context.operations.signature_diagnosis.find(
            context.who, delivery_id, CapturedRequest.of(**_captured(context.form))
        )
    except InvalidRequestError as error:
        return await delivery_page(
            context,
            delivery_id,
            is_diagnosing=True,
            problems=problems_by_field(context, error.problems),
            # htmx swaps no response with an error's status.
            status=200 if "HX-Request" in context.request.headers else 422,
        )
    except ConflictError as error:
        return await delivery_page(
            context, delivery_id, is_diagnosing=True, diagnosis_problem=context.problem(error)
        )
    return await delivery_page(context, delivery_id, is_diagnosing=True, diagnosis=found)


def _captured(form: Mapping[str, str]) -> dict[str, object]:
    """Return the fields of the request; browsers write each line break of a form as CR LF."""
    texts = {
        name: form.get(name, "").replace("\r\n", "\n")
        for name in ("secret", "headers", "body", "computed")
    }
    fields: dict[str, object] = {"secret": texts["secret"]}
    if texts["headers"].strip():
        fields["headers"] = texts["headers"].splitlines()
    if texts["body"]:
        fields["body"] = texts["body"]
    if texts["computed"].strip():
        fields["computed"] = texts["computed"]
    return fields


ROUTES: Final = (
    PageRoute("GET", "/deliveries/{id}/signature", show_form, portal=True),
    PageRoute("POST", "/deliveries/{id}/signature", diagnose, portal=True),
)
