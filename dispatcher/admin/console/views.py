"""Saved views: filters of the list of deliveries that a person has named.

They are kept in a cookie of the browser, which is sent with the pages of deliveries alone (ADR 0084). A
view holds conditions and no data. Each is validated whenever the cookie is read, because a browser can
send any value.
"""

import base64
import binascii
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

import orjson
from aiohttp import web

from dispatcher.admin.console.filters import DELIVERY_FIELDS
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import problem

COOKIE: Final = "dispatcher_views"
PATH: Final = "/deliveries"
VIEWS_MAX: Final = 10
NAME_CHARACTERS_MAX: Final = 40
CONDITIONS_CHARACTERS_MAX: Final = 400
COOKIE_BYTES_MAX: Final = 3_000
"""Browsers keep 4,096 bytes of a cookie, with its name and attributes."""
_YEAR_SECONDS: Final = 365 * 86_400


class View(NamedTuple):
    """A named filter, as the query of an address."""

    name: str
    query: str


def read_views(request: web.Request) -> list[View]:
    """Return the views of the browser; those that are not valid are left out."""
    text = request.cookies.get(COOKIE, "")
    try:
        found = orjson.loads(base64.urlsafe_b64decode(text.encode()))
    except (binascii.Error, orjson.JSONDecodeError, UnicodeEncodeError):
        return []
    views: list[View] = []
    for one in found[:VIEWS_MAX] if isinstance(found, list) else []:
        match one:
            case [str(name), str(query)] if _is_name(name):
                views.append(View(name, conditions_of(query)))
    return views


def conditions_of(query: str) -> str:
    """Return the known conditions of a query, and nothing else."""
    try:
        given = parse_qsl(
            query[:CONDITIONS_CHARACTERS_MAX], max_num_fields=len(DELIVERY_FIELDS) * 4
        )
    except ValueError:
        return ""
    return urlencode([(name, text) for name, text in given if name in DELIVERY_FIELDS])


def with_view(views: list[View], name: str, query: str) -> list[View]:
    """Return the views with one more; one of the same name is replaced.

    Raises:
        InvalidRequestError: the name or the filter cannot be kept, or there are too many views.
    """
    if not _is_name(name):
        code = "too_long" if len(name) > NAME_CHARACTERS_MAX else "unprintable"
        code = code if name else "required"
        raise InvalidRequestError([problem("name", code, maximum=NAME_CHARACTERS_MAX)])
    if len(query) > CONDITIONS_CHARACTERS_MAX:
        raise InvalidRequestError(
            [problem("filter", "too_long", maximum=CONDITIONS_CHARACTERS_MAX)]
        )
    kept = [one for one in views if one.name != name] + [View(name, conditions_of(query))]
    if len(kept) > VIEWS_MAX or len(_written(kept)) > COOKIE_BYTES_MAX:
        raise InvalidRequestError([problem("name", "too_many_items", maximum=len(kept) - 1)])
    return kept


def keep_views(answer: web.Response, views: list[View]) -> None:
    """Set the cookie, or delete it if there are no views."""
    if not views:
        answer.del_cookie(COOKIE, path=PATH, samesite="Lax")
        return
    answer.set_cookie(
        COOKIE, _written(views), path=PATH, max_age=_YEAR_SECONDS, httponly=True, samesite="Lax"
    )


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable() and name == name.strip()


def _written(views: list[View]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(views, default=list)).decode()
