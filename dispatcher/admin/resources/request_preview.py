"""The request that an endpoint would get, before it is created."""

from typing import Annotated

from pydantic import WithJsonSchema

from dispatcher.admin.resources.base import Response, resource

HeaderPair = Annotated[
    tuple[str, str],
    # Without `prefixItems`, which clients of OpenAPI 3.0 and schemathesis 4 do not read.
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}),
]
"""A name and its value."""


@resource
class PreviewedRequest(Response):
    """A request with the catalogue's sample event; its signatures are made with a secret of the preview alone."""

    event_type: str
    method: str
    url: str
    headers: list[HeaderPair]
    body: str
