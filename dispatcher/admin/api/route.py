"""Defines a route: path, role, input and output models; the request handler and OpenAPI read it.

The input models are the handler's own annotations: `query` and `fields` name a model, and invalid
input is rejected before the handler runs. With `Annotated[Mapping, Model]` for `fields` the handler
gets the members as they are: the operation validates them and `Model` only documents them.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from aiohttp import web
from pydantic import BaseModel

from dispatcher.admin.api.body import BODY_BYTES_MAX
from dispatcher.admin.operations.context import Actor, Role
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.operations.new_event import CLIENT, Client

PREFIX: Final = "/api/v1"
SECONDS_MAX: Final = 20.0
"""An operation waits 5 s for a connection and as long for each statement; this bounds all of it."""


class Call(NamedTuple):
    """One request: its actor, the operations, and the names in its path."""

    actor: Actor
    operations: Operations
    names: Mapping[str, str]
    request: web.Request
    client: Client = CLIENT
    """Who waits for a publication."""

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.names["id"]


class ApiResponse(NamedTuple):
    """A handler's result; without a body the response has no content."""

    body: object | None
    status: int | None = None
    """None: the route's own."""
    headers: Mapping[str, str] = {}


class ApiFile(NamedTuple):
    """A handler's result that is a file, written in parts."""

    parts: AsyncGenerator[str, None]
    name: str
    media_type: str


Handler = Callable[..., Awaitable[ApiResponse | ApiFile]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route of the API; the handler's docstring is its description."""

    method: str
    path: str
    handler: Handler
    role: Role
    response: type | None
    status: int = 200
    also: Mapping[int, str] = field(default_factory=dict)
    """Further successful statuses, and what they mean."""
    also_responses: Mapping[int, type | UnionType] = field(default_factory=dict)
    """Output models of further statuses; without one it is `response`."""
    problems: tuple[int, ...] = ()
    """Statuses of problems, in addition to those that every route may return."""
    text_type: str | None = None
    """Another media type of the response, if the handler returns a file."""
    batch: Handler | None = None
    """The handler of a body that is a list or newline-delimited JSON; `fields` of `handler` is one event."""
    read: Callable[[Mapping[str, Any], datetime], object] | None = None
    """Returns the handler's `fields` from the members and the present time, in place of the model's validation.

    Raises InvalidRequestError with all problems. The model only documents them.
    """
    for_endpoint_tokens: bool = False
    """Whether a token for one endpoint is enough, if `{id}` is that endpoint."""
    bytes_max: int = BODY_BYTES_MAX
    seconds_max: float = SECONDS_MAX

    @property
    def has_names(self) -> bool:
        """Whether the path has names in braces."""
        return "{" in self.path

    @property
    def full_path(self) -> str:
        """Return the path as clients write it."""
        return PREFIX + self.path


class Inputs(NamedTuple):
    """The models of a route's input."""

    query: type[BaseModel] | None
    fields: type[BaseModel] | None
    validated_by_operation: bool
    fields_required: bool


def inputs_of(handler: Handler) -> Inputs:
    """Return the models that a handler's annotations name."""
    hints = get_type_hints(handler, include_extras=True)
    query, fields = hints.get("query"), hints.get("fields")
    is_annotated = get_origin(fields) is Annotated
    model = get_args(fields)[1] if is_annotated else fields
    parameters = inspect.signature(handler).parameters
    required = "fields" in parameters and parameters["fields"].default is inspect.Parameter.empty
    return Inputs(query, model, is_annotated, required)


def description_of(handler: Handler) -> tuple[str, str]:
    """Return the first sentence of the handler's docstring, and the rest."""
    summary, _, rest = inspect.cleandoc(handler.__doc__ or "").partition("\n\n")
    return summary.replace("\n", " ").rstrip("."), rest
