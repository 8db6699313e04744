"""Handles API requests: authenticates, limits and validates them, then calls the route's operation.

The checks are ordered by cost, so that a flood is rejected early: the address's rate limit, the
token, the token's rate limit, the role, the query, the body. Invariants: without a valid token every
path below /api/v1 returns 401, whether the path exists or not; every request ends within the route's
time limit; every error is `application/problem+json`; no response may be cached.
"""

import asyncio
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ValidationError

from dispatcher.admin.api.body import BodyReader
from dispatcher.admin.api.docs import add_docs
from dispatcher.admin.api.problems import ProblemError, problem, problem_of
from dispatcher.admin.api.route import PREFIX, ApiResponse, Call, Inputs, Route, inputs_of
from dispatcher.admin.api.route_table import ROUTES
from dispatcher.admin.auth import Auth
from dispatcher.admin.client_address import address_of
from dispatcher.admin.operations.context import Actor
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.rate_limits import Buckets
from dispatcher.admin.resources.fields import NOW, problems_of
from dispatcher.admin.resources.serialization import write_json
from dispatcher.config.settings import Settings
from dispatcher.core.errors import InvalidRequestError, NotFoundError, TooManyError
from dispatcher.core.printable import is_text
from dispatcher.core.problems import Problem
from dispatcher.core.problems import problem as invalid

CHALLENGE: Final = 'Bearer realm="dispatcher"'
LISTS: Final = frozenset({"label"})
"""Query parameters that may be repeated."""
ID_CHARACTERS_MAX: Final = 128
ACTOR: Final = web.RequestKey("actor", Actor)


def add_api(app: web.Application, operations: Operations, auth: Auth, settings: Settings) -> None:
    """Add the API below its prefix, and its description."""
    gatekeeper = _Gatekeeper(operations, auth, settings)
    api = web.Application(middlewares=[gatekeeper.guard])
    for route in ROUTES:
        handler = gatekeeper.handler_of(route)
        if route.method == hdrs.METH_GET:
            api.router.add_get(route.path, handler, expect_handler=_expected)  # and HEAD
        else:
            api.router.add_route(route.method, route.path, handler, expect_handler=_expected)
    app.add_subapp(PREFIX, api)
    add_docs(app)


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
        self._bodies = BodyReader()

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
                allow = {"Allow": ", ".join(sorted(error.allowed_methods))}
                return problem(405, f"{error.method} is not possible here", headers=allow)
            except web.HTTPNotFound:
                return problem(404, "there is no such route; /openapi.json lists all of them")
            except (asyncio.CancelledError, ConnectionError):
                raise
            except Exception as error:  # noqa: BLE001 -- the border: every error becomes a response
                return problem_of(error)

        return guard

    def handler_of(self, route: Route) -> Handler:
        """Return the route's handler for aiohttp."""
        inputs = inputs_of(route.handler)

        async def handle(request: web.Request) -> web.StreamResponse:
            actor = request[ACTOR]
            actor.require(route.role)
            call = Call(actor, self._operations, request.match_info, request)
            for name in call.names.values():
                if len(name) > ID_CHARACTERS_MAX or not is_text(name):
                    raise NotFoundError(invalid("id", "id_not_found"))
            given = await _given(request, route, inputs, self._bodies, self._clock.now())
            async with asyncio.timeout(route.seconds_max):
                answer = await route.handler(call, **given)
            return _response(answer, route)

        return handle

    async def _authenticate(self, request: web.Request) -> Actor:
        address = address_of(request, self._trusted)
        wait = self._by_address.take(address)
        if wait:
            raise TooManyError(invalid("address", "too_many_requests_of_address"), wait)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ProblemError(
                401,
                "send Authorization: Bearer <token>; `dispatcher token create` makes one",
                headers={"WWW-Authenticate": CHALLENGE},
            )
        actor = await self._auth.actor_of(token.strip(), address)
        if actor is None:
            raise ProblemError(
                401,
                "the token is wrong, expired or revoked",
                headers={"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        wait = self._by_actor.take(actor.name)
        if wait:
            raise TooManyError(invalid("token", "too_many_requests_of_token"), wait)
        return actor


async def _given(
    request: web.Request, route: Route, inputs: Inputs, bodies: BodyReader, now: datetime
) -> dict[str, Any]:
    """Return the handler's arguments; all errors of query and body are reported together."""
    problems: list[Problem] = []
    given: dict[str, Any] = {}
    query, found = _query_of(request)
    problems += found
    if inputs.query is not None:
        given["query"] = _validated(inputs.query, query, now, problems)
    else:
        problems += [invalid(name, "unknown_field") for name in query]
    if inputs.fields is not None:
        members = dict(await bodies.read(request, route.bytes_max))
        if not inputs.validated_by_operation:
            if members or inputs.fields_required:
                given["fields"] = _validated(inputs.fields, members, now, problems)
        else:
            given["fields"] = members
    elif request.body_exists and await bodies.read(request, route.bytes_max):
        problems.append(invalid("body", "body_not_allowed"))
    if problems:
        raise InvalidRequestError(problems)
    return given


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


def _validated(
    model: type[BaseModel],
    values: Mapping[str, Any],
    now: datetime,
    problems: list[Problem],
) -> BaseModel | None:
    try:
        return model.model_validate(values, context={NOW: now})
    except ValidationError as error:
        problems += problems_of(error)
        return None


def _response(answer: ApiResponse, route: Route) -> web.Response:
    status = answer.status or route.status
    if answer.body is None:
        return web.Response(status=status, headers=answer.headers)
    return web.Response(
        body=write_json(answer.body),
        status=status,
        content_type="application/json",
        headers=answer.headers,
    )


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
