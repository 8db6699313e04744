"""How resources are written: JSON, times, and pages with opaque cursors."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeVar, overload

import orjson

from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import Problem, problem

Row = TypeVar("Row")
Item = TypeVar("Item")

LIMIT_MAX: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WHOLE_SECONDS: Final = len("2026-05-29T14:32:11")


class JsonText:
    """JSON that is written as it is: digits, order of keys and spaces of an event's data stay."""

    __slots__ = ("_bytes_count", "text")

    def __init__(self, text: str, bytes_count: int | None = None) -> None:
        self.text = text
        self._bytes_count = bytes_count

    @property
    def bytes_count(self) -> int:
        """The length in UTF-8; the decoder of bodies knows it."""
        return len(self.text.encode()) if self._bytes_count is None else self._bytes_count


class Place(NamedTuple):
    """The end of a page: the time and id of its last item."""

    at: datetime
    id: str


def write_json(value: object, *, indent: bool = False) -> bytes:
    """Return a resource as JSON."""
    return orjson.dumps(value, _fragment, orjson.OPT_INDENT_2 if indent else 0)


def _fragment(value: object) -> object:
    if isinstance(value, JsonText):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def labels_json(labels: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> str | None:
    """Return labels as the JSON that statements take; None if there are none."""
    return orjson.dumps(dict(labels)).decode() if labels else None


@overload
def time_text(moment: datetime) -> str: ...


@overload
def time_text(moment: datetime | None) -> str | None: ...


def time_text(moment: datetime | None) -> str | None:
    """Return RFC 3339 in UTC with microseconds and `Z`, as in `2026-05-29T14:32:11.000000Z`."""
    if moment is None:
        return None
    # orjson takes a third of the time of isoformat(), and leaves out a fraction of zero.
    text = orjson.dumps(moment.astimezone(UTC), None, orjson.OPT_UTC_Z)[1:-2].decode()
    return f"{text}Z" if len(text) > _WHOLE_SECONDS else f"{text}.000000Z"


def page_of(
    rows: Sequence[Row],
    limit: int,
    place: Callable[[Row], Place],
    item: Callable[[Row], Item],
    *,
    scope: str,
) -> tuple[list[Item], str | None]:
    """Return at most `limit` of the rows as items, and the cursor of the next page.

    One row more than `limit` was queried: it shows that there is a next page.
    """
    shown = rows[:limit]
    cursor = write_cursor(place(shown[-1]), scope) if len(rows) > limit else None
    return [item(row) for row in shown], cursor


def cursor_scope(listing: str, tenant: str | None, wanted: Mapping[str, object]) -> str:
    """Return what a cursor is bound to: the listing, its owner, and its filter."""
    text = orjson.dumps([listing, tenant, dict(wanted)], default=str, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()[:12]


def write_cursor(place: Place, scope: str = "") -> str:
    """Return an opaque text that `read_cursor` turns back under the same scope."""
    microseconds = (place.at - _EPOCH) // timedelta(microseconds=1)
    text = f"{microseconds}|{scope}|{place.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str | None, scope: str = "") -> Place | None:
    """Return the place of a cursor; None is the first page.

    Raises:
        InvalidRequestError: the text is no cursor, or that of another list or filter.
    """
    if text is None:
        return None
    place, bound_to = _opened_cursor(text)
    if bound_to != scope:
        raise InvalidRequestError([problem("cursor", "cursor_mismatch")])
    return place


def cursor_problems(text: str) -> list[Problem]:
    """List the problems of a cursor, regardless of its list."""
    try:
        _opened_cursor(text)
    except InvalidRequestError as error:
        return error.problems
    return []


def _opened_cursor(text: str) -> tuple[Place, str]:
    """Return the place of a cursor and the scope that it is bound to."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        decoded = base64.b64decode(padded, b"-_", validate=True).decode()
        microseconds, bound_to, identifier = decoded.split("|", 2)
        place = Place(_EPOCH + timedelta(microseconds=int(microseconds)), identifier)
    except (binascii.Error, ValueError, OverflowError):
        raise _no_cursor() from None
    if not place.id.isprintable() or write_cursor(place, bound_to) != text:
        raise _no_cursor()
    return place, bound_to


def _no_cursor() -> InvalidRequestError:
    return InvalidRequestError([problem("cursor", "invalid_cursor")])


def limit_problems(limit: int) -> list[Problem]:
    """List the problems of a page's size."""
    if 1 <= limit <= LIMIT_MAX:
        return []
    values = {"value": limit, "minimum": 1, "maximum": LIMIT_MAX}
    return [problem("limit", "out_of_range", **values)]
