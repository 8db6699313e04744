"""Subscriptions, label filters, their rules, and a router that must agree with a plain search."""

from dataclasses import dataclass, field
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core import limits
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.matching import (
    LabelFilter,
    Router,
    Subscription,
    event_type_problems,
    event_types_problems,
    label_filter_problems,
    labels_match,
    labels_problems,
    parse_event_types,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    name: str
    subscription: Subscription
    tenant: str = "default"
    label_filter: LabelFilter = field(default_factory=dict)


def entry(
    name: str, *event_types: str, tenant: str = "default", **labels: str | list[str]
) -> Entry:
    return Entry(
        name=name,
        subscription=parse_event_types(event_types),
        tenant=tenant,
        label_filter=labels,
    )


@pytest.mark.parametrize(
    ("subscribed", "event_type", "expected"),
    [
        (["order.created"], "order.created", True),
        (["order.created"], "order.created.late", False),
        (["order.created"], "order.shipped", False),
        (["order.created", "order.shipped"], "order.shipped", True),
        (["order.*"], "order.created", True),
        (["order.*"], "order.created.late", True),
        (["order.*"], "orders.created", False),
        (["order.*"], "stock.order.created", False),
        (["employee.structure.*"], "employee.structure.change", True),
        (["employee.structure.*"], "employee.create", False),
        (["*"], "order.created", True),
        (["*"], "dispatcher.endpoint.failing", False),
        (["*"], "dispatchers.created", True),
        (["*"], "test.ping", False),
        (["*"], "test.ping.again", True),
        (["*", "test.ping"], "test.ping", True),
        (["*", "dispatcher.*"], "dispatcher.delivery.failed", True),
        (["dispatcher.endpoint.disabled"], "dispatcher.endpoint.disabled", True),
        (["test.*"], "test.ping", True),
    ],
)
def test_a_subscription_takes_names_prefixes_and_everything(subscribed, event_type, expected):
    assert parse_event_types(subscribed).matches(event_type) is expected
    found = Router([entry("a", *subscribed)]).route("default", event_type, {})
    assert bool(found) is expected


def test_naming_a_type_twice_is_no_fault():
    subscription = parse_event_types(["order.*", "order.*", "order.created", "order.created"])
    assert subscription == parse_event_types(["order.created", "order.*"])


WRONG_ENTRIES = (
    *("", "order", "order.", ".created", "order..created", "Order.created", "order.ก"),
    *("1order.created", "_order.created", "order-x.created", "order.created ", "order.created\n"),
    *("**", ".*", "*.created", "order*", "order.*.late", "order.*\n"),
)


@pytest.mark.parametrize("text", WRONG_ENTRIES)
def test_a_wrong_entry_is_named_by_its_place(text):
    problems = event_types_problems(["order.created", text])
    assert [name for name, *_ in problems] == ["event_types[1]"]
    with pytest.raises(InvalidRequestError) as raised:
        parse_event_types(["order.created", text])
    assert raised.value.problems == problems


def test_all_wrong_entries_are_named_at_once():
    problems = event_types_problems(["A", "order.created", "B"], field="types")
    assert [name for name, *_ in problems] == ["types[0]", "types[2]"]


def test_a_subscription_takes_something_and_not_too_much():
    assert event_types_problems([])
    most = [f"order.type_{number}" for number in range(limits.SUBSCRIPTION_TYPES_COUNT_MAX)]
    assert event_types_problems(most) == []
    assert event_types_problems([*most, "order.another"])


@pytest.mark.parametrize("check", [event_type_problems, lambda text: event_types_problems([text])])
def test_a_type_has_at_most_128_characters(check):
    longest = "order." + "x" * (limits.EVENT_TYPE_CHARACTERS_MAX - 6)
    assert check(longest) == []
    assert "128" in check(longest + "x")[0].text


@pytest.mark.parametrize("text", ["order.created", "a.b", "a1_.2", "employee.structure.change"])
def test_a_producer_may_publish_any_well_formed_type(text):
    assert event_type_problems(text) == []


@pytest.mark.parametrize("text", ["order", "order.*", "*", "dispatcher.x", "Order.x", "a.b\n", ""])
def test_a_producer_may_not_publish_patterns_or_the_dispatchers_own_types(text):
    assert [name for name, *_ in event_type_problems(text)] == ["type"]


@pytest.mark.parametrize(
    ("label_filter", "labels", "expected"),
    [
        ({}, {}, True),
        ({}, {"site": "bkk"}, True),
        ({"site": "bkk"}, {"site": "bkk", "zone": "a"}, True),
        ({"site": "bkk"}, {"site": "cnx"}, False),
        ({"site": "bkk"}, {}, False),
        ({"site": ""}, {}, False),
        ({"site": ""}, {"site": ""}, True),
        ({"site": ["bkk", "cnx"]}, {"site": "cnx"}, True),
        ({"site": ["bkk", "cnx"]}, {"site": "hkt"}, False),
        ({"site": "bkk"}, {"site": "bk"}, False),
        ({"site": "bkk", "zone": "a"}, {"site": "bkk", "zone": "a"}, True),
        ({"site": "bkk", "zone": "a"}, {"site": "bkk"}, False),
        ({"site": "bkk", "zone": ["b"]}, {"site": "bkk", "zone": "a"}, False),
        ({"site": []}, {"site": "bkk"}, False),
    ],
)
def test_all_names_of_a_label_filter_must_match(label_filter, labels, expected):
    assert labels_match(label_filter, labels) is expected


@pytest.mark.parametrize(
    ("labels", "fields"),
    [
        ({}, []),
        ({"site": "bkk", "a.b-c_9": "คลัง"}, []),
        ({"x" * 64: "y" * 256}, []),
        ({"Site": "bkk"}, ["labels"]),
        ({"": "bkk"}, ["labels"]),
        ({"x" * 65: "bkk"}, ["labels"]),
        ({"site\n": "bkk"}, ["labels"]),
        ({"site": "y" * 257}, ["labels.site"]),
        ({"site": "\x00"}, ["labels.site"]),
        ({"site": "\ud800"}, ["labels.site"]),
        ({"site": 7}, ["labels.site"]),
        ({f"n{number}": "v" for number in range(20)}, []),
        ({f"n{number}": "v" for number in range(21)}, ["labels"]),
    ],
)
def test_labels_keep_their_rules_in_events_and_in_filters(labels, fields):
    assert [name for name, *_ in labels_problems(labels)] == fields
    if 7 not in labels.values():
        assert [name for name, *_ in label_filter_problems(labels)] == fields


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        (["bkk", "cnx"], []),
        ([], ["labels.site"]),
        (["v"] * (limits.LABEL_FILTER_VALUES_COUNT_MAX + 1), ["labels.site"]),
        (["bkk", "y" * 257, 5], ["labels.site[1]", "labels.site[2]"]),
    ],
)
def test_each_value_of_a_filters_list_is_judged(values, fields):
    assert [name for name, *_ in label_filter_problems({"site": values})] == fields


TYPES = ["order.created", "order.line.added", "stock.changed", "test.ping", "dispatcher.a.b"]
PATTERNS = [*TYPES, "order.*", "order.line.*", "*", "dispatcher.*", "test.*"]
LABELS = st.dictionaries(st.sampled_from(["site", "zone"]), st.sampled_from(["a", "b"]))
FILTERS = st.dictionaries(
    st.sampled_from(["site", "zone"]),
    st.one_of(st.sampled_from(["a", "b"]), st.lists(st.sampled_from(["a", "b"]), min_size=1)),
)
ENTRIES = st.builds(
    lambda types, tenant, labels: Entry(
        name="any", subscription=parse_event_types(types), tenant=tenant, label_filter=labels
    ),
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3),
    st.sampled_from(["default", "other"]),
    FILTERS,
)


@given(
    st.lists(ENTRIES, max_size=8),
    st.lists(
        st.tuples(st.sampled_from(["default", "other", "none"]), st.sampled_from(TYPES), LABELS),
        max_size=8,
    ),
)
def test_the_router_finds_what_a_search_of_all_entries_finds(entries, events):
    router = Router(entries)
    for tenant, event_type, labels in events:
        expected = [
            entry
            for entry in entries
            if entry.tenant == tenant
            and entry.subscription.matches(event_type)
            and labels_match(entry.label_filter, labels)
        ]
        found = router.route(tenant, event_type, labels)
        assert [id(entry) for entry in found] == [id(entry) for entry in expected]


def test_the_router_keeps_the_order_of_many_entries():
    patterns = ("order.*", "order.created", "stock.*", "*")
    router = Router([entry(str(number), patterns[number * 7 % 4]) for number in range(3_000)])
    found = [int(each.name) for each in router.route("default", "order.created", {})]
    assert found == [number for number in range(3_000) if number * 7 % 4 != 2]
    few = Router([entry(str(number), "*" if number % 89 == 5 else "a.b") for number in range(900)])
    assert [int(each.name) for each in few.route("default", "c.d", {})] == list(range(5, 900, 89))


def test_hostile_type_names_do_not_grow_the_router():
    router = Router([entry("all", "*"), entry("orders", "order.*", site="bkk")])
    with (
        mock.patch.object(limits, "ROUTE_CACHE_ENTRIES_MAX", 50),
        mock.patch.object(limits, "ROUTE_CACHE_REFERENCES_MAX", 70),
    ):
        for number in range(1_000):
            names = [found.name for found in router.route("default", f"order.x{number}", {})]
            assert names == ["all"]
            assert len(router._cache) <= 35
        for number in range(1_000):
            assert len(router.route(f"tenant_{number}", "order.created", {})) == 0
            assert len(router._cache) <= 50
    assert router._cached_references == 0


def test_a_route_too_large_to_keep_with_others_is_still_answered():
    router = Router([entry(str(number), "*") for number in range(20)])
    with mock.patch.object(limits, "ROUTE_CACHE_REFERENCES_MAX", 5):
        for event_type in ("order.created", "order.shipped", "order.created"):
            assert len(router.route("default", event_type, {})) == 20
            assert len(router._cache) == 1


def test_a_known_route_is_not_looked_up_again():
    router = Router([entry("a", "order.*")])
    with mock.patch.object(Router, "_look_up", autospec=True, side_effect=Router._look_up) as look:
        for _ in range(5):
            assert len(router.route("default", "order.created", {"site": "bkk"})) == 1
    assert look.call_count == 1
