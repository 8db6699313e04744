"""Endpoints from plain fields, as the API, the console and the command line make them."""

from collections.abc import Mapping
from typing import Any

from dispatcher.admin.operations.context import Actor
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.resources.endpoint import ChangedEndpoint


async def create_endpoint(
    endpoints: Endpoints, actor: Actor, fields: Mapping[str, Any]
) -> ChangedEndpoint:
    return await endpoints.create(actor, endpoints.read_new(actor, fields))


async def update_endpoint(
    endpoints: Endpoints,
    actor: Actor,
    endpoint_id: str,
    fields: Mapping[str, Any],
    *,
    if_match: str | None = None,
) -> ChangedEndpoint:
    change = await endpoints.read_change(actor, endpoint_id, fields)
    return await endpoints.update(actor, endpoint_id, change, if_match=if_match)
