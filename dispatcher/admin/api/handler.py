"""Handles API requests: authenticates, limits and validates them, then calls the route's operation.

The checks are ordered by cost, so that a flood is rejected early: the address's rate limit, the
token, the token's rate limit, the role, the query, the body. Invariants: without a valid token every
path below /api/v1 returns 401, whether the path exists or not; every request ends within the route's
time limit; every error is `application/problem+json`; no response may be cached.
"""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ValidationError

from dispatcher.admin.api.batch_decoder import BATCH_EVENTS_MAX, Batch
from dispatcher.admin.api.body import BATCH_REST, LARGE_BYTES, BodyReader
from dispatcher.admin.api.decoder import Steps
from dispatcher.admin.api.docs import add_docs
from dispatcher.admin.api.problems import ProblemError, problem, problem_of
from dispatcher.admin.api.route import PREFIX, ApiFile, ApiResponse, Call, Inputs, Route, inputs_of
from dispatcher.admin.api.route_table import ROUTES
from dispatcher.admin.auth import Auth
from dispatcher.admin.client_address import address_of
from dispatcher.admin.file_response import send_file
from dispatcher.admin.operations.context import Actor
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.operations.new_event import CLIENT, WAIT_SECONDS, Client
from dispatcher.admin.rate_limits import Buckets
from dispatcher.admin.resources.serialization import write_json
from dispatcher.admin.resources.validation import NOW, problems_of
from dispatcher.admin.written_response import SENT, write_response
from dispatcher.config.settings import Settings
from dispatcher.core.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    StoreUnavailableError,
    TooManyError,
)
from dispatcher.core.printable import is_text
from dispatcher.core.problems import Problem
from dispatcher.core.problems import problem as invalid
from dispatcher.runtime.backoff import Backoff

CHALLENGE: Final = 'Bearer realm="dispatcher"'
ASYNCAPI: Final = "/asyncapi.json"
LISTS: Final = frozenset({"label"})
"""Query parameters that may be repeated."""
ID_CHARACTERS_MAX: Final = 128
_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
ACTOR: Final = web.RequestKey("actor", Actor)
CLIENT_KEY: Final = web.RequestKey("client", Client)
PUBLISH: Final = ("POST", f"{PREFIX}/events")
WAIT_SECONDS_MIN: Final = 1.0
"""A time in which a commit is possible: without it, the event would be published and the response 503."""
WAIT_SECONDS_MAX: Final = 60.0
PATIENT_MAX: Final = 1_000
"""Requests that may wait for Postgres to look up their tokens."""
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})", re.IGNORECASE)
EVENTS_BURST_MIN: Final = BATCH_EVENTS_MAX
"""A full bucket has room for a whole batch."""


def add_api(
    app: web.Application, operations: Operations, auth: Auth, settings: Settings
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Add the API below its prefix, and its description.

    Returns the handler of `PUBLISH` for requests that have not been through the application.
    """
    gatekeeper = _Gatekeeper(operations, auth, settings)
    api = web.Application(middlewares=[gatekeeper.guard])
    for route in ROUTES:
        handler = gatekeeper.handler_of(route)
        if route.method == hdrs.METH_GET:
            api.router.add_get(route.path, handler, expect_handler=_expected)  # and HEAD
        else:
            api.router.add_route(route.method, route.path, handler, expect_handler=_expected)
    app.add_subapp(PREFIX, api)
    app.router.add_get(ASYNCAPI, gatekeeper.asyncapi)
    add_docs(app)
    return gatekeeper.publish


class _Gatekeeper:
    """Authenticates and limits the requests of all routes."""

    def __init__(self, operations: Operations, auth: Auth, settings: Settings) -> None:
        self._operations = operations
        self._auth = auth
        self._trusted = settings.http.trusted_proxies
        self._clock = operations.deployment.clock
        monotonic = self._clock.monotonic
        rate = settings.http.requests_per_second
        burst = max(1, math.ceil(2 * rate))
        self._by_address = Buckets(rate, burst, monotonic=monotonic)
        self._by_actor = Buckets(rate, burst, monotonic=monotonic)
        events = settings.http.events_per_second
        events_burst = max(EVENTS_BURST_MIN, math.ceil(2 * events))
        self._events_by_actor = Buckets(events, events_burst, monotonic=monotonic)
        self._bodies = BodyReader()
        self._patient_count = 0
        publish = next(route for route in ROUTES if (route.method, route.full_path) == PUBLISH)
        self._publish = self.handler_of(publish)

    async def publish(self, request: web.BaseRequest) -> web.StreamResponse:
        """Publish; aiohttp's routing and middlewares, which other requests need, take a tenth of the time."""
        assert isinstance(request, web.Request)  # noqa: S101 -- the application's server makes no other
        try:
            request[ACTOR], request[CLIENT_KEY] = await self._authenticate_client(request)
            return await self._publish(request)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:  # noqa: BLE001 -- the border: every error becomes a response
            return problem_of(error)

    @property
    def guard(self) -> Middleware:
        """Return the middleware that authenticates each request and turns every error into a problem."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                if request.method == hdrs.METH_OPTIONS:
                    return _options(request)
                request[ACTOR] = await self._authenticate(request)
                return await handler(request)
            except web.HTTPMethodNotAllowed as error:
                # The request refers to the error, whose traceback refers to the request.
                error.__traceback__ = None
                allow = {"Allow": ", ".join(sorted(error.allowed_methods))}
                return problem(405, f"{error.method} is not possible here", headers=allow)
            except web.HTTPNotFound as error:
                error.__traceback__ = None  # likewise
                return problem(404, "there is no such route; /openapi.json lists all of them")
            except (asyncio.CancelledError, ConnectionError):
                raise
            except Exception as error:  # noqa: BLE001 -- the border: every error becomes a response
                return problem_of(error)

        return guard

    async def asyncapi(self, request: web.Request) -> web.StreamResponse:
        """Return the AsyncAPI document, which names the deployment's event types and so requires a token."""

        async def answer(_: web.Request) -> web.StreamResponse:
            _require_scope(request[ACTOR], None, {})
            body = write_json(self._operations.event_types.asyncapi())
            return web.Response(body=body, content_type="application/json")

        return await self.guard(request, answer)

    def handler_of(self, route: Route) -> Handler:
        """Return the route's handler for aiohttp."""
        inputs = inputs_of(route.handler)

        async def handle(request: web.Request) -> web.StreamResponse:
            actor = request[ACTOR]
            names = request.match_info if route.has_names else _NO_NAMES
            _require_scope(actor, route, names)
            actor.require(route.role)
            # Taken out, because it refers to the request: the collector would have to find both, for each publish.
            client = request.pop(CLIENT_KEY, CLIENT)
            call = Call(actor, self._operations, names, request, client)
            for name in call.names.values():
                if len(name) > ID_CHARACTERS_MAX or not is_text(name):
                    raise NotFoundError(invalid("id", "id_not_found"))
            given = await _given(request, route, inputs, self._bodies, self._clock.now())
            handler = route.handler
            if route.batch is not None and isinstance(given["fields"], list):
                handler = route.batch
                self._count_events(actor, len(given["fields"]) - 1)
            async with asyncio.timeout(route.seconds_max):
                answer = await handler(call, **given)
                if isinstance(answer, ApiFile):
                    return await send_file(
                        request, answer.parts, answer.name, answer.media_type, {}
                    )
            return self._response(request, answer, route)

        return handle

    def _response(
        self, request: web.Request, answer: ApiResponse, route: Route
    ) -> web.StreamResponse:
        status, headers = answer.status or route.status, answer.headers
        if answer.body is None:
            return web.Response(status=status, headers=headers)
        body = write_json(answer.body)
        if route.batch is not None:  # the route of publishes
            unix_seconds = int(self._clock.now().timestamp())
            if write_response(request, status, headers, body, unix_seconds):
                return SENT
        return web.Response(
            body=body, status=status, content_type="application/json", headers=headers
        )

    async def _authenticate(self, request: web.Request) -> Actor:
        address = address_of(request, self._trusted)
        self._count_address(address)
        actor = await self._actor_of(_token_of(request), address)
        wait = self._by_actor.take(actor.name)
        if wait:
            raise TooManyError(invalid("token", "too_many_requests_of_token"), wait)
        return actor

    async def _authenticate_client(self, request: web.Request) -> tuple[Actor, Client]:
        """Authenticate a publish, whose transaction verifies the token; wait for Postgres if need be.

        Its events are counted by token, in place of the request.
        """
        wait_seconds = _wait_seconds(request)
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        token = token.strip()
        recent = self._auth.recent_actor(token) if scheme.lower() == "bearer" else None
        if recent is None:
            began_at = self._clock.monotonic()
            address = address_of(request, self._trusted)
            self._count_address(address)
            token = _token_of(request)
            actor = await self._patiently(lambda: self._actor_of(token, address), wait_seconds)
            recent = (actor, None)
            wait_seconds = max(wait_seconds - self._clock.monotonic() + began_at, 0.1)
        actor, digest = recent
        self._count_events(actor, 1)

        async def confirm() -> None:
            if digest is not None:
                await self._actor_of(token, address_of(request, self._trusted))

        client = Client(
            wait_seconds=wait_seconds,
            is_waiting=lambda: request.transport is not None and not request.transport.is_closing(),
            token=digest,
            confirm=confirm,
        )
        return actor, client

    async def _patiently(self, action: Callable[[], Awaitable[Actor]], seconds: float) -> Actor:
        """Repeat an action while Postgres is unavailable, for at most so many seconds.

        Raises:
            StoreUnavailableError: the time is over, or too many requests wait.
        """
        ends_at = self._clock.monotonic() + seconds
        backoff = Backoff()
        while True:
            try:
                return await action()
            except StoreUnavailableError:
                left = ends_at - self._clock.monotonic()
                if left <= 0 or self._patient_count >= PATIENT_MAX:
                    raise
            self._patient_count += 1
            try:
                await asyncio.sleep(min(backoff.next_seconds(), left))
            finally:
                self._patient_count -= 1

    def _count_address(self, address: str) -> None:
        wait = self._by_address.take(address)
        if wait:
            raise TooManyError(invalid("address", "too_many_requests_of_address"), wait)

    def _count_events(self, actor: Actor, count: int) -> None:
        wait = self._events_by_actor.take(actor.name, count) if count > 0 else 0.0
        if wait:
            raise TooManyError(invalid("token", "too_many_events_of_token"), wait)

    async def _actor_of(self, token: str, address: str) -> Actor:
        actor = await self._auth.actor_of(token, address)
        if actor is None:
            raise ProblemError(
                401,
                "the token is wrong, expired or revoked",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        return actor


def _require_scope(actor: Actor, route: Route | None, names: Mapping[str, str]) -> None:
    """Return if the route is within the scope of a token for one endpoint.

    Raises:
        ForbiddenError: it is not. NotFoundError: it is about another endpoint.
    """
    if actor.endpoint_id is None:
        return
    if route is None or not route.for_endpoint_tokens:
        raise ForbiddenError(invalid("token", "token_for_one_endpoint"))
    if names.get("id") != actor.endpoint_id:
        raise NotFoundError(invalid("id", "endpoint_not_found", value=names.get("id")))


def _scheme_of(request: web.Request) -> str:
    return request.headers.get("Authorization", "").partition(" ")[0].lower()


def _token_of(request: web.Request) -> str:
    """Return the bearer token of a request.

    Raises:
        ProblemError: there is none.
    """
    token = request.headers.get("Authorization", "").partition(" ")[2].strip()
    if _scheme_of(request) != "bearer" or not token:
        raise ProblemError(
            401,
            "send Authorization: Bearer <token>; `dispatcher token create` makes one",
            headers={"WWW-Authenticate": CHALLENGE},
        )
    return token


def _wait_seconds(request: web.Request) -> float:
    """Return how long the client waits: `Prefer: wait=N` (RFC 7240), at least a second, or the default."""
    preference = request.headers.get("Prefer")
    match = None if preference is None else _WAIT.search(preference)
    if match is None:
        return WAIT_SECONDS
    return max(WAIT_SECONDS_MIN, min(float(match[1]), WAIT_SECONDS_MAX))


async def _given(
    request: web.Request, route: Route, inputs: Inputs, bodies: BodyReader, now: datetime
) -> dict[str, Any]:
    """Return the handler's arguments; all errors of query and body are reported together."""
    problems: list[Problem] = []
    given: dict[str, Any] = {}
    query: Mapping[str, Any] = {}
    if request.query_string:
        query, found = _query_of(request)
        problems += found
    if inputs.query is not None:
        given["query"] = _validated(inputs.query, query, now, problems)
    else:
        problems += [invalid(name, "unknown_field") for name in query]
    if inputs.fields is not None:
        members: Any = {}
        if route.batch is None:
            members = dict(await bodies.read(request, route.bytes_max))
        else:
            members = await bodies.read_events(request)
        if isinstance(members, list):
            assert route.read is not None, "a route of batches has one"  # noqa: S101 -- a programmer's slip
            steps = _events_of(members, route.read, now)
            size = request.content_length or LARGE_BYTES + 1
            given["fields"] = await bodies.run(steps, size, rest=BATCH_REST)
        elif route.read is not None:
            given["fields"] = _read(route.read, members, now, problems)
        elif not inputs.validated_by_operation:
            if members or inputs.fields_required:
                given["fields"] = _validated(inputs.fields, members, now, problems)
        else:
            given["fields"] = members
    elif request.body_exists and await bodies.read(request, route.bytes_max):
        problems.append(invalid("body", "body_not_allowed"))
    if problems:
        raise InvalidRequestError(problems)
    return given


def _events_of(
    members: Batch, read: Callable[[Mapping[str, Any], datetime], object], now: datetime
) -> Steps[list[object]]:
    """Return the events of a batch, or the problems of each."""
    events: list[object] = []
    for one in members:
        if isinstance(one, InvalidRequestError):
            events.append(one)
        else:
            try:
                events.append(read(one, now))
            except InvalidRequestError as error:
                events.append(error)
        yield
    return events


def _read(
    read: Callable[[Mapping[str, Any], datetime], object],
    members: Mapping[str, Any],
    now: datetime,
    problems: list[Problem],
) -> object | None:
    try:
        return read(members, now)
    except InvalidRequestError as error:
        problems += error.problems
        return None


def _query_of(request: web.Request) -> tuple[dict[str, Any], list[Problem]]:
    query: dict[str, Any] = {}
    problems = []
    for name in dict.fromkeys(request.query):
        values = request.query.getall(name)
        if not all(is_text(text) for text in (name, *values)):
            problems.append(invalid("query", "invalid_text"))
        elif name in LISTS:
            query[name] = values
        elif len(values) > 1:
            problems.append(invalid(name, "duplicate"))
        else:
            query[name] = values[0]
    return query, problems


@lru_cache(maxsize=128)
def _defaults(model: type[BaseModel]) -> BaseModel:
    """Return the frozen model of a request without a query or without fields."""
    return model.model_validate({})


def _validated(
    model: type[BaseModel],
    values: Mapping[str, Any],
    now: datetime,
    problems: list[Problem],
) -> BaseModel | None:
    try:
        return model.model_validate(values, context={NOW: now}) if values else _defaults(model)
    except ValidationError as error:
        problems += problems_of(error)
        return None


async def _expected(_: web.Request) -> None:
    """Leave `Expect: 100-continue` to the body reader, and ignore any other expectation.

    aiohttp would request the body, or reject the request in its own format, before the token is checked.
    """


def _options(request: web.Request) -> web.Response:
    """Return the methods of a path; pages of other sites may not use them (no CORS)."""
    error = request.match_info.http_exception
    if isinstance(error, web.HTTPMethodNotAllowed):
        return web.Response(
            status=204, headers={"Allow": ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))}
        )
    return problem(404, "there is no such route; /openapi.json lists all of them")
