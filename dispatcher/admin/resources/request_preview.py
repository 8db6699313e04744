"""The request that an endpoint would get, before it is created."""

from dataclasses import dataclass

from dispatcher.admin.resources.base import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedRequest(Response):
    """A request with the catalogue's sample event; its signatures are made with a secret of the preview alone."""

    event_type: str
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: str
