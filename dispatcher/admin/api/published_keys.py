"""`GET /.well-known/dispatcher/keys?endpoint=ID`: the public keys of an endpoint, without a token.

The response may be cached by anyone for `CACHE_SECONDS`. A key that was rotated signs next to the new one for the
overlap, by default a day, so that a cached set verifies every request meanwhile. Requests are limited by address.
"""

import hashlib
import math
from typing import Final

from aiohttp import web

from dispatcher.admin.api.problems import problem_of
from dispatcher.admin.client_address import address_of
from dispatcher.admin.operations.facade import Operations
from dispatcher.admin.operations.published_keys import PATH
from dispatcher.admin.rate_limits import Buckets
from dispatcher.admin.resources.serialization import write_json
from dispatcher.config.settings import Settings
from dispatcher.core.errors import DispatcherError, InvalidRequestError, TooManyError
from dispatcher.core.printable import is_text
from dispatcher.core.problems import problem

CACHE_SECONDS: Final = 300
ID_CHARACTERS_MAX: Final = 128


def add_published_keys(
    application: web.Application, operations: Operations, settings: Settings
) -> None:
    """Add the route."""
    rate = settings.http.requests_per_second
    by_address = Buckets(
        rate, max(1, math.ceil(2 * rate)), monotonic=operations.deployment.clock.monotonic
    )

    async def show(request: web.Request) -> web.StreamResponse:
        try:
            wait = by_address.take(address_of(request, settings.http.trusted_proxies))
            if wait:
                raise TooManyError(problem("address", "too_many_requests_of_address"), wait)
            keys = await operations.published_keys.of_endpoint(_endpoint_id(request))
        except DispatcherError as error:
            return problem_of(error)
        body = write_json(keys)
        etag = hashlib.sha256(body).hexdigest()[:32]
        response = web.Response(body=body, content_type="application/jwk-set+json")
        response.headers["Cache-Control"] = f"public, max-age={CACHE_SECONDS}"
        response.etag = etag
        known = request.if_none_match or ()
        if any(one.value in {etag, "*"} for one in known):
            response.set_status(304)
            response.body = None
        return response

    application.router.add_get(PATH, show)


def _endpoint_id(request: web.Request) -> str:
    given = request.query.getall("endpoint", [])
    if len(given) != 1 or not 0 < len(given[0]) <= ID_CHARACTERS_MAX or not is_text(given[0]):
        raise InvalidRequestError([problem("endpoint", "endpoint_of_keys")])
    return given[0]
