"""Endpoints over HTTP: their fields, states, secrets and test events; versions by ETag."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

from pydantic import ValidationError

from dispatcher.admin.api.route import PREFIX, ApiResponse, Call
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.endpoint_requests import EndpointChange, EndpointsQuery, NewEndpoint
from dispatcher.admin.resources.event import NewTest
from dispatcher.admin.resources.secret import NewSecret
from dispatcher.admin.resources.validation import problems_of
from dispatcher.core.errors import InvalidRequestError, PreconditionFailedError
from dispatcher.core.printable import is_text
from dispatcher.core.problems import Problem, problem

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


async def list_endpoints(call: Call, query: EndpointsQuery) -> ApiResponse:
    """List endpoints, newest first."""
    return ApiResponse(await call.operations.endpoints.page(call.actor, query))


async def create_endpoint(
    call: Call, fields: Annotated[Mapping[str, Any], NewEndpoint]
) -> ApiResponse:
    """Create an endpoint.

    Only this response holds its whole secret. A name is unique in its tenant, so creating an endpoint
    twice is safe: the second call is rejected with 409.
    """
    endpoints = call.operations.endpoints
    made = await endpoints.create(call.actor, endpoints.read_new(call.actor, fields))
    return _versioned(made, {"Location": f"{PREFIX}/endpoints/{made.id}"})


async def show_endpoint(call: Call) -> ApiResponse:
    """Show an endpoint.

    The ETag is its version, for If-Match and If-None-Match.
    """
    found = await call.operations.endpoints.show(call.actor, call.id)
    if found.etag in _tags(call.request.headers.get("If-None-Match", ""), weak=True):
        return ApiResponse(None, 304, {"ETag": found.etag})
    return _versioned(found)


async def change_endpoint(
    call: Call, fields: Annotated[Mapping[str, Any], EndpointChange]
) -> ApiResponse:
    """Change an endpoint.

    An omitted field keeps its value. With If-Match the change is rejected (412) if the endpoint was
    changed meanwhile. The profile and the tenant never change (409); the secret is changed by
    rotating it.
    """
    endpoints, version = call.operations.endpoints, await _wanted_version(call)
    change = await endpoints.read_change(call.actor, call.id, fields)
    return _versioned(await endpoints.update(call.actor, call.id, change, if_match=version))


async def delete_endpoint(call: Call) -> ApiResponse:
    """Delete an endpoint.

    Its waiting deliveries are cancelled, its secret is destroyed, its history is kept.
    """
    await call.operations.endpoints.delete(
        call.actor, call.id, if_match=await _wanted_version(call)
    )
    return ApiResponse(None)


async def pause_endpoint(call: Call) -> ApiResponse:
    """Pause an endpoint.

    Its deliveries wait until it is resumed, for `delivery.hold_days` at most.
    """
    return _versioned(await call.operations.endpoints.pause(call.actor, call.id))


async def resume_endpoint(call: Call) -> ApiResponse:
    """Resume a paused or disabled endpoint.

    Its waiting deliveries are sent, oldest first.
    """
    return _versioned(await call.operations.endpoints.resume(call.actor, call.id))


async def list_failures(call: Call) -> ApiResponse:
    """List an endpoint's failures by response.

    Failed deliveries and deliveries that wait for a retry are counted by the outcome and the response code of their
    last attempt.
    """
    return ApiResponse(await call.operations.endpoints.failures(call.actor, call.id))


async def retry_endpoint(call: Call) -> ApiResponse:
    """Retry an endpoint now.

    One waiting delivery is sent at once, also if the endpoint is being deferred after failures. If the
    receiver accepts it, every waiting delivery becomes due and is sent within the endpoint's rate and
    concurrency. If not, the schedule stays as it was. The response is 200 with the attempt, whatever its outcome.
    """
    return ApiResponse(await call.operations.recovery.retry(call.actor, call.id))


async def preview_endpoint(
    call: Call, fields: Annotated[Mapping[str, Any], NewEndpoint]
) -> ApiResponse:
    """Preview the request that a new endpoint would get.

    The fields are those of a new endpoint. The event is the catalogue's sample of the first type that the endpoint
    subscribes to; include, exclude, headers and the signatures of all profiles are applied. Nothing is stored or sent.
    """
    return ApiResponse(call.operations.request_previews.preview(call.actor, fields))


async def preview_change(
    call: Call, fields: Annotated[Mapping[str, Any], EndpointChange]
) -> ApiResponse:
    """Preview the request that an endpoint would get with some fields changed.

    An omitted field keeps its value. The event is the catalogue's sample of the first type that the endpoint
    subscribes to, and the signatures are made with a secret of the preview alone. Nothing is stored or sent.
    """
    previews = call.operations.request_previews
    return ApiResponse(await previews.preview_change(call.actor, call.id, fields))


async def rotate_secret(
    call: Call, fields: Annotated[Mapping[str, Any], NewSecret] = _NOTHING
) -> ApiResponse:
    """Rotate an endpoint's secret.

    The response holds the new secret, whole. Under `standard` and `stripe` requests are signed with both
    secrets until the overlap ends. Other profiles have room for one signature: the new secret is staged,
    and a second call with `activate_staged: true` switches to it and returns the endpoint.
    """
    rotation = call.operations.rotation
    given, problems = _read_new_secret(fields)
    if given.activate_staged:
        invalid = {one.field for one in problems}
        problems += [
            problem(name, "conflicting", other="activate_staged")
            for name in sorted(given.model_fields_set - {"activate_staged"} - invalid)
        ]
        if problems:
            raise InvalidRequestError(problems)
        return _versioned(await rotation.activate_staged(call.actor, call.id))
    return ApiResponse(
        await rotation.rotate(
            call.actor,
            call.id,
            new_secret=given.secret,
            key_type=given.key_type,
            overlap_seconds=given.overlap_seconds,
            activate=given.activate,
            problems=problems,
        )
    )


def _read_new_secret(fields: Mapping[str, Any]) -> tuple[NewSecret, list[Problem]]:
    """Return the valid fields, and the problems of the rest: the operation has the rules of secrets."""
    try:
        return NewSecret.model_validate(fields), []
    except ValidationError as error:
        wrong = {one["loc"][0] for one in error.errors()}
        right = {name: value for name, value in fields.items() if name not in wrong}
        return NewSecret.model_validate(right), problems_of(error)


async def reveal_secret(call: Call) -> ApiResponse:
    """Show an endpoint's secret, whole; the audit log records it."""
    return ApiResponse(await call.operations.rotation.reveal(call.actor, call.id))


async def send_test(call: Call, fields: NewTest = NewTest()) -> ApiResponse:  # noqa: B008 -- frozen
    """Send a test event.

    One attempt, at once, whatever the endpoint subscribes to and whether it is paused or disabled.
    The response is 200 with the attempt, whatever its outcome.
    """
    return ApiResponse(
        await call.operations.test_events.send(
            call.actor,
            call.id,
            event_type=fields.event_type,
            data=None if fields.data is None else fields.data.text,
        )
    )


def _versioned(endpoint: Endpoint, headers: Mapping[str, str] | None = None) -> ApiResponse:
    return ApiResponse(endpoint, headers={"ETag": endpoint.etag, **(headers or {})})


async def _wanted_version(call: Call) -> str | None:
    """Return the version that a change is for, None where any will do (RFC 9110, 13.1.1).

    Of several tags one has to be the present one; weak tags never match.
    """
    header = call.request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    tags = _tags(header, weak=False)
    if len(tags) == 1:
        return tags[0]
    present = (await call.operations.endpoints.show(call.actor, call.id)).etag
    if present not in tags:
        raise PreconditionFailedError(problem("If-Match", "version_changed", version=present))
    return present


def _tags(header: str, *, weak: bool) -> list[str]:
    """Return the entity tags of a list; with `weak` their marks are left off."""
    tags = [tag.strip() for tag in header.split(",")]
    if weak:
        tags = [tag.removeprefix("W/") for tag in tags]
    return [tag for tag in tags if tag and is_text(tag)]
