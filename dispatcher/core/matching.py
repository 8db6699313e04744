"""Who gets an event: rules for names and labels, subscriptions, label filters, and the router.

A subscription takes exact names, prefixes (`order.*`: every type that begins `order.`, at any
depth) and `*`, which leaves out the dispatcher's own events and `test.ping`. A label filter names
labels and the values they may have; all of its names must match. An event goes to endpoints of its
own tenant only.

The router follows the routing table endpoint by endpoint. It finds candidates by name and by each
dotted prefix of the name, so that a type costs what it matches and not what there is; what it found
it remembers until an endpoint changes, within bounds, since type names come from outside.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from dispatcher.core import limits
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import PROBLEMS_MAX, Problem, problem

LabelFilter = Mapping[str, str | list[str]]

OPERATIONAL_PREFIX: Final = "dispatcher."
TEST_PING_TYPE: Final = "test.ping"
EVERYTHING: Final = "*"

_TYPE_FORM: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+")
_PREFIX_FORM: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*\.\*")
_LABEL_NAME_FORM: Final = re.compile(rf"[a-z0-9_.-]{{1,{limits.LABEL_NAME_CHARACTERS_MAX}}}")
# jsonb takes neither NUL nor a lone surrogate.
_UNSTORABLE_FORM: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The event types that one endpoint takes."""

    names: frozenset[str]
    prefixes: tuple[str, ...]
    """With the dot at the end and without the star."""
    everything: bool

    def matches(self, event_type: str) -> bool:
        """Return whether an event of this type goes to the endpoint."""
        return (
            event_type in self.names
            or event_type.startswith(self.prefixes)
            or (self.everything and _is_in_everything(event_type))
        )


def parse_event_types(event_types: Sequence[str]) -> Subscription:
    """Compiles what an endpoint subscribes to.

    Raises:
        InvalidRequestError: with all that `event_types_problems` finds.
    """
    problems = event_types_problems(event_types)
    if problems:
        raise InvalidRequestError(problems)
    return Subscription(
        names=frozenset(text for text in event_types if not text.endswith(EVERYTHING)),
        prefixes=tuple(
            sorted({text.removesuffix(EVERYTHING) for text in event_types if text.endswith(".*")})
        ),
        everything=EVERYTHING in event_types,
    )


def event_types_problems(event_types: Sequence[str], field: str = "event_types") -> list[Problem]:
    """Lists what is wrong with a subscription; an unknown type is not wrong."""
    if not event_types:
        return [problem(field, "no_event_type")]
    if len(event_types) > limits.SUBSCRIPTION_TYPES_COUNT_MAX:
        return [problem(field, "too_many_items", maximum=limits.SUBSCRIPTION_TYPES_COUNT_MAX)]
    problems = []
    for index, text in enumerate(event_types):
        if text == EVERYTHING:
            continue
        if _PREFIX_FORM.fullmatch(text) is None and _TYPE_FORM.fullmatch(text) is None:
            problems.append(problem(f"{field}[{index}]", "invalid_subscription", value=text))
        elif len(text) > limits.EVENT_TYPE_CHARACTERS_MAX:
            problems.append(_type_too_long(f"{field}[{index}]"))
    return problems


def event_type_problems(event_type: str, field: str = "type") -> list[Problem]:
    """Lists what is wrong with the type of an event that a producer publishes."""
    if _TYPE_FORM.fullmatch(event_type) is None:
        return [problem(field, "invalid_event_type", value=event_type)]
    if len(event_type) > limits.EVENT_TYPE_CHARACTERS_MAX:
        return [_type_too_long(field)]
    if is_operational(event_type):
        return [problem(field, "reserved_event_type")]
    return []


def _type_too_long(field: str) -> Problem:
    return problem(field, "too_long", maximum=limits.EVENT_TYPE_CHARACTERS_MAX)


def labels_problems(labels: Mapping[str, str], field: str = "labels") -> list[Problem]:
    """Lists what is wrong with the labels of an event."""
    problems = _label_names_problems(labels, field)
    for name, value in islice(labels.items(), PROBLEMS_MAX):
        problems += _label_value_problems(value, f"{field}.{name}")
    return problems


def label_filter_problems(label_filter: LabelFilter, field: str = "labels") -> list[Problem]:
    """Lists what is wrong with the label filter of an endpoint."""
    problems = _label_names_problems(label_filter, field)
    for name, wanted in islice(label_filter.items(), PROBLEMS_MAX):
        if isinstance(wanted, str):
            problems += _label_value_problems(wanted, f"{field}.{name}")
        elif not wanted:
            problems.append(problem(f"{field}.{name}", "too_few_items", minimum=1))
        elif len(wanted) > limits.LABEL_FILTER_VALUES_COUNT_MAX:
            problems.append(
                problem(
                    f"{field}.{name}",
                    "too_many_items",
                    maximum=limits.LABEL_FILTER_VALUES_COUNT_MAX,
                )
            )
        else:
            for index, value in enumerate(wanted):
                problems += _label_value_problems(value, f"{field}.{name}[{index}]")
    return problems


def labels_match(label_filter: LabelFilter, labels: Mapping[str, str]) -> bool:
    """Return whether each name of the filter has one of its values; an empty filter matches all."""
    for name, wanted in label_filter.items():
        value = labels.get(name)
        if value is None:
            return False
        if value != wanted if isinstance(wanted, str) else value not in wanted:
            return False
    return True


def type_fits(pattern: str, event_type: str) -> bool:
    """Return whether a type is the one of a filter, or begins as its pattern does, as in `order.*`."""
    if pattern.endswith(EVERYTHING):
        return event_type.startswith(pattern.removesuffix(EVERYTHING))
    return event_type == pattern


def is_operational(event_type: str) -> bool:
    """Return whether the type is one of the dispatcher's own."""
    return event_type.startswith(OPERATIONAL_PREFIX)


def _is_in_everything(event_type: str) -> bool:
    """Return whether `*` matches the type."""
    return not is_operational(event_type) and event_type != TEST_PING_TYPE


def _label_names_problems(labels: Mapping[str, object], field: str) -> list[Problem]:
    problems = []
    if len(labels) > limits.LABELS_COUNT_MAX:
        problems.append(problem(field, "too_many_items", maximum=limits.LABELS_COUNT_MAX))
    problems += [
        problem(
            field,
            "invalid_label_name",
            value=name,
            maximum=limits.LABEL_NAME_CHARACTERS_MAX,
        )
        for name in islice(labels, PROBLEMS_MAX)
        if _LABEL_NAME_FORM.fullmatch(name) is None
    ]
    return problems


def _label_value_problems(value: object, field: str) -> list[Problem]:
    """Lists what is wrong with one value, which may come from a column and be anything."""
    if not isinstance(value, str):
        return [problem(field, "not_a_string")]
    if len(value) > limits.LABEL_VALUE_CHARACTERS_MAX:
        return [problem(field, "too_long", maximum=limits.LABEL_VALUE_CHARACTERS_MAX)]
    if _UNSTORABLE_FORM.search(value) is not None:
        return [problem(field, "invalid_text")]
    return []


class RouteEntry(Protocol):
    """What the router needs to know of an endpoint."""

    @property
    def tenant(self) -> str:
        """The tenant whose events it gets."""

    @property
    def subscription(self) -> Subscription:
        """The types it takes."""

    @property
    def label_filter(self) -> LabelFilter:
        """What it asks of an event's labels."""


Entry = TypeVar("Entry", bound=RouteEntry)


class Router(Generic[Entry]):
    """Finds the entries that take an event, in the order in which they were added; one task uses it."""

    __slots__ = ("_cache", "_cached_references", "_entries", "_indexes", "_next_position")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[int, Entry] = {}
        """By position."""
        self._next_position = 0
        # By tenant, then by name or prefix or `*`: the positions of entries.
        self._indexes: dict[str, dict[str, set[int]]] = {}
        # The entries of one tenant and type, and whether any of them filters by labels.
        self._cache: dict[tuple[str, str], tuple[tuple[Entry, ...], bool]] = {}
        self._cached_references = 0
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> int:
        """Add an entry; return its position, by which it is replaced or removed."""
        position = self._next_position
        self._next_position += 1
        self._put(position, entry)
        return position

    def replace(self, position: int, entry: Entry) -> None:
        """Put another entry in the place of one."""
        self.remove(position)
        self._put(position, entry)

    def remove(self, position: int) -> None:
        """Remove the entry at a position."""
        entry = self._entries.pop(position)
        index = self._indexes[entry.tenant]
        for text in _keys(entry.subscription):
            positions = index[text]
            positions.remove(position)
            if not positions:
                del index[text]
        if not index:
            del self._indexes[entry.tenant]
        self._forget_routes()

    def _put(self, position: int, entry: Entry) -> None:
        self._entries[position] = entry
        index = self._indexes.setdefault(entry.tenant, {})
        for text in _keys(entry.subscription):
            index.setdefault(text, set()).add(position)
        self._forget_routes()

    def _forget_routes(self) -> None:
        if self._cache:
            self._cache.clear()
            self._cached_references = 0

    def route(self, tenant: str, event_type: str, labels: Mapping[str, str]) -> Sequence[Entry]:
        """Return the entries that take this event, each once; not to be changed."""
        cached = self._cache.get((tenant, event_type))
        if cached is None:
            cached = self._look_up(tenant, event_type)
        entries, any_filters = cached
        if not any_filters:
            return entries
        return [entry for entry in entries if labels_match(entry.label_filter, labels)]

    def _look_up(self, tenant: str, event_type: str) -> tuple[tuple[Entry, ...], bool]:
        """Finds the subscribed entries and remembers them, in the place of the oldest."""
        index = self._indexes.get(tenant, {})
        positions: set[int] = set(index.get(event_type, ()))
        dot = event_type.find(".")
        while dot >= 0:
            positions.update(index.get(event_type[: dot + 1], ()))
            dot = event_type.find(".", dot + 1)
        if _is_in_everything(event_type):
            positions.update(index.get(EVERYTHING, ()))
        entries = tuple(self._entries[position] for position in sorted(positions))
        found = (entries, any(entry.label_filter for entry in entries))
        cache = self._cache
        cache[tenant, event_type] = found
        self._cached_references += len(entries)
        while len(cache) > limits.ROUTE_CACHE_ENTRIES_MAX or (
            self._cached_references > limits.ROUTE_CACHE_REFERENCES_MAX and len(cache) > 1
        ):
            oldest, _ = cache.pop(next(iter(cache)))
            self._cached_references -= len(oldest)
        return found


def _keys(subscription: Subscription) -> Iterator[str]:
    """Yield what an entry is found by: its names, its prefixes, and `*`."""
    yield from subscription.names
    yield from subscription.prefixes
    if subscription.everything:
        yield EVERYTHING
