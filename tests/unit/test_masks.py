"""Field masks: what they keep, compared with a plain rule over parsed JSON, and that the rest stays as written."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.envelope import encode
from dispatcher.core.masks import Mask, compile_mask, embeds_data, mask_problems
from dispatcher.core.model import Event, EventId
from dispatcher.runtime.clock import SystemClock
from tests.wire.vectors import PROFILES, SHIPPED

DATA = (
    '{"id":"1", "customer":{"name":"A","email":"x@y","tags":[1,2.50]},'
    ' "items":[{"sku":"a","price":12.0},{"sku":"b"}],"total":1e400,"z":[[{"email":"q"}]],"e":[]}'
)


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), ("customer", "items", "z", "e"), '{"id":"1","total":1e400}'),
        (("customer.tags",), (), '{"customer":{"tags":[1,2.50]}}'),
        (("customer",), ("customer.email", "*.tags"), '{"customer":{"name":"A"}}'),
        (("items.price", "none"), (), '{"items":[{"price":12.0},{}]}'),
        (("z.email", "e"), (), '{"z":[[{"email":"q"}]],"e":[]}'),
        (
            ("*.email",),
            (),
            '{"customer":{"email":"x@y"},"items":[{},{}],"z":[[{"email":"q"}]],"e":[]}',
        ),
        (("id.inner",), (), "{}"),
        (("id",), ("id",), "{}"),
    ],
)
def test_mask_keeps_what_its_paths_lead_to(
    include: tuple[str, ...], exclude: tuple[str, ...], expected: str
):
    assert Mask(include, exclude).apply(DATA) == expected


def test_mask_sees_through_escapes_and_duplicate_names():
    data = r'{"\u0065mail":"1","email":"2","em\"ail":3,"e.mail":4,"\ud800":5,"a":{"email":[6]}}'
    assert Mask((), ("email",)).apply(data) == (
        r'{"em\"ail":3,"e.mail":4,"\ud800":5,"a":{"email":[6]}}'
    )
    assert Mask(("e\\.mail",), ()).apply(data) == '{"e.mail":4}'


def test_control_names_compared_as_written_leak_an_escaped_one():
    data = r'{"\u0065mail":"x@y"}'
    naive = data if '"email"' not in data else "{}"
    assert orjson.loads(naive) == {"email": "x@y"}
    assert Mask((), ("email",)).apply(data) == "{}"


def test_mask_of_deep_data_needs_no_recursion():
    deep = '{"a":' * 50_000 + "1" + "}" * 50_000
    assert Mask((), ("a.b",)).apply(deep) == deep


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.integers(-9, 9) | st.text(max_size=3) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)
PATHS = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "*"]), min_size=1, max_size=3).map(".".join),
    max_size=3,
    unique=True,
)


def leads(paths: list[list[str]], place: list[str]) -> bool:
    return any(
        len(path) <= len(place)
        and all(p in {"*", name} for p, name in zip(path, place, strict=False))
        for path in paths
    )


def plain(value: Any, include: list[list[str]], exclude: list[list[str]], place: list[str]) -> Any:
    """The rule, slowly: what stays of a value, or `...` if nothing does."""
    if leads(exclude, place):
        return ...
    on_the_way = any(
        len(path) > len(place) and all(p in {"*", n} for p, n in zip(path, place, strict=False))
        for path in include
    )
    is_whole = not include or leads(include, place)
    if not is_whole and not (on_the_way and isinstance(value, dict | list)):
        return ...
    if isinstance(value, dict):
        kept = {name: plain(one, include, exclude, [*place, name]) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one is not ...}
    if isinstance(value, list):
        return [one for one in (plain(v, include, exclude, place) for v in value) if one is not ...]
    return value


@given(st.dictionaries(NAMES, VALUES, max_size=3), PATHS, PATHS)
def test_mask_equals_the_plain_rule(value: dict[str, Any], include: list[str], exclude: list[str]):
    kept_paths, left_paths = ([path.split(".") for path in paths] for paths in (include, exclude))
    masked = Mask(include, exclude).apply(orjson.dumps(value).decode())
    kept = {name: plain(one, kept_paths, left_paths, [name]) for name, one in value.items()}
    assert orjson.loads(masked) == {name: one for name, one in kept.items() if one is not ...}


@pytest.mark.parametrize("profile", ["wms", "humansoft", "standard", "github", "stripe"])
def test_body_of_a_profile_with_data_has_the_kept_parts_alone(profile: str):
    now = SystemClock.now()
    event = Event(EventId("evt_1"), "a.b", DATA, "default", now, now, {}, None)
    assert embeds_data(PROFILES[profile])
    body = encode(PROFILES[profile], event, compile_mask((), ("customer.email", "z")))
    assert b"x@y" not in body.body
    assert b'"tags":[1,2.5' in body.body
    assert b"x@y" in encode(PROFILES[profile], event).body


def test_embeds_data_is_false_for_messages():
    assert not any(embeds_data(SHIPPED[name]) for name in ("slack", "teams", "discord", "line"))


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.b", "*.c", r"a\.b.c", "ชื่อ"], []),
        ([""], ["invalid_data_path"]),
        (["a..b", ".a", "a.", "a\\b", "a\n"], ["invalid_data_path"] * 5),
        (["x" * 257], ["too_long"]),
        ([7, "a", "a"], ["not_a_string", "duplicate"]),
        (["a"] * 51, ["too_many_items"]),
    ],
)
def test_mask_problems_name_each_path(paths: list[object], expected: list[str]):
    assert [one.code for one in mask_problems(paths, "include")] == expected
