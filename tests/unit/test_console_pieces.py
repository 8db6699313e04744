"""The console's small pieces: times and figures for people, charts, forms, the memory of forms, its files."""

import base64
import hashlib
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from dispatcher.admin.console import assets, charts, times
from dispatcher.admin.console.commands import as_curl, as_verify
from dispatcher.admin.console.context import Context, local_path
from dispatcher.admin.console.csrf import Forms, comes_from_us, same_token
from dispatcher.admin.console.forms import problems_by_field, read_endpoint, shown_endpoint
from dispatcher.admin.console.languages import load
from dispatcher.admin.console.pages.events import readable
from dispatcher.admin.resources.delivery_report import SentRequest
from dispatcher.core.problems import problem
from tests.support.resources import make_endpoint

UNITS = {"d": "d", "h": "h", "m": "m", "s": "s", "ms": "ms"}
STATIC = Path(assets.__file__).parent / "static"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0 ms"),
        (0.0474, "47 ms"),
        (1, "1 s"),
        (1.26, "1.3 s"),
        (60, "1 m"),
        (125, "2 m 5 s"),
        (3600, "1 h"),
        (36_060, "10 h 1 m"),
        (432_000, "5 d"),
    ],
)
def test_a_span_has_two_units_at_most(seconds: float | None, text: str):
    assert times.span(seconds, UNITS) == text


def test_a_share_is_whole_only_where_nothing_is_missing():
    shown = [times.share(value) for value in (None, 0, 0.00001, 0.5, 0.98765, 0.99999, 1)]
    assert shown == ["\N{EN DASH}", "0 %", "< 0.1 %", "50 %", "98.8 %", "99.9 %", "100 %"]


def test_sizes_have_binary_units():
    sizes = [times.size(value) for value in (0, 1023, 1024, 5 << 30, 3 << 40, None)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB", "3.0 TiB", "\N{EN DASH}"]


@pytest.mark.parametrize(
    "cookie", [None, "", "Asia/Bangkok", "auto:Nowhere/City", "set:../../etc/passwd", "x:UTC"]
)
def test_a_zone_that_there_is_not_is_utc(cookie: str | None):
    assert times.read_zone(cookie) == ("UTC", "none")


def test_an_instant_at_the_end_of_time_is_shown_all_the_same():
    zone = times.read_zone("auto:Pacific/Kiritimati")
    found = times.moment("9999-12-31T23:59:59.000000Z", zone)
    assert found is not None
    assert found.local == "9999-12-31 23:59:59"


def test_bars_fill_the_chart_and_show_what_is_not_nothing():
    drawn = charts.bars([(0, 0), (1, 0), (1000, 1)])
    assert drawn.top == 2000
    assert drawn.bars[0].ok_height == drawn.bars[0].not_ok_height == 0
    assert drawn.bars[1].ok_height == drawn.bars[2].not_ok_height == 1
    for bar in drawn.bars:
        assert 0 <= bar.ok_y <= bar.not_ok_y <= charts.HEIGHT


def test_a_line_breaks_where_there_is_no_value():
    (line,), top = charts.lines([[0.01, 0.02, None, 0.04, None, 0.03]])
    assert top == 0.05
    assert [len(piece.split()) for piece in line.pieces] == [2]
    assert len(line.dots) == 2


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1), (1, 1), (2, 2), (3, 5), (11, 20), (21, 25), (2_299, 2_500), (10**9, 10**9)],
)
def test_the_top_of_a_chart_is_a_round_number(value: int, top: int):
    assert charts.round_up(value) == top


def context_with(**fields: Any) -> Context:
    lists = {name: value if isinstance(value, list) else [value] for name, value in fields.items()}
    language = load()["en"]
    made = SimpleNamespace(
        form={name: values[-1] for name, values in lists.items()},
        lists=lists,
        language=language,
        text=language.text,
        may=lambda _role: True,
        problem_text=lambda one: language.text(f"invalid.{one.code}", **one.values),
    )
    return cast("Context", made)


def test_a_form_becomes_the_fields_of_an_endpoint():
    context = context_with(
        name=" erp ",
        url="https://x.test/",
        event_types=["order.created", "*"],
        other_types="stock.* order.created, custom.thing",
        headers="X-Key: a: b\n\nX-Other:1",
        labels="warehouse=BKK, CNX\nkind=a=b",
        retry_schedule_seconds="30s, 2m,1h",
        rate_limit="2.5",
        max_concurrency="4",
        unsigned="yes",
        profile="wms",
    )
    fields, problems = read_endpoint(context, creates=True)
    assert problems == {}
    assert fields == fields | {
        "name": "erp",
        "url": "https://x.test/",
        "event_types": ["order.created", "*", "stock.*", "custom.thing"],
        "ca_pem": None,
        "headers": {"X-Key": "a: b", "X-Other": "1"},
        "labels": {"warehouse": ["BKK", "CNX"], "kind": "a=b"},
        "max_concurrency": 4,
        "rate_limit": 2.5,
        "timeout_seconds": None,
        "retry_schedule_seconds": [30.0, 120.0, 3600.0],
        "profile": "wms",
        "secret": None,
    }


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("headers", "no colon"),
        ("headers", "A: 1\nA: 2"),
        ("labels", "none"),
        ("rate_limit", "many"),
        ("timeout_seconds", "1;2"),
        ("retry_schedule_seconds", "30s, soon"),
        ("retry_schedule_seconds", "-1s"),
    ],
)
def test_what_cannot_be_read_is_told_at_its_field(field: str, text: str):
    fields, problems = read_endpoint(context_with(**{field: text}), creates=False)
    assert list(problems) == [field]
    assert "name" in fields


def test_an_endpoint_fills_its_form_with_what_gives_the_same_endpoint():
    endpoint = {
        "name": "erp",
        "url": "https://x.test/",
        "profile": "wms",
        "event_types": ["order.created", "mine.*"],
        "headers": {"X-Key": "a: b"},
        "labels": {"warehouse": ["BKK", "CNX"], "kind": "x"},
        "ca_pem": None,
        "retry_schedule_seconds": [0.5, 30.0, 7200.0, 86_400.0],
        "max_concurrency": None,
        "rate_limit": 0.25,
        "timeout_seconds": 5.0,
    }
    given = make_endpoint(**endpoint)
    shown = shown_endpoint(given, ["order.created"])
    assert shown["other_types"] == "mine.*"
    assert shown["retry_schedule_seconds"] == "0.5s, 30s, 2h, 1d"
    fields, problems = read_endpoint(context_with(**shown), creates=False)
    assert problems == {}
    assert fields == {name: getattr(given, name) for name in fields}
    assert fields.keys() >= endpoint.keys() - {"profile"}


def test_faults_of_parts_of_a_field_are_told_at_the_field():
    problems = [
        problem("headers.Host", "reserved_header"),
        problem("retry_schedule_seconds[3]", "not_a_number"),
        problem("name", "required"),
        problem("headers", "headers_too_large", count=9000, maximum=8192),
    ]
    host, large, number, required = (problems[index].text for index in (0, 3, 1, 2))
    assert problems_by_field(context_with(), problems) == {
        "headers": f"Host: {host}; {large}",
        "retry_schedule_seconds": f"[3]: {number}",
        "name": required,
    }


def test_a_form_is_taken_once_and_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dispatcher.admin.console.csrf.FORMS_REMEMBERED_MAX", 2)
    forms = Forms()
    assert [forms.take(one) for one in "aabcd"] == [True, False, True, True, True]
    assert len(forms._answered) == 2
    forms.forget("d")
    assert forms.take("d")


def test_where_a_form_comes_from_is_what_the_browser_says():
    assert comes_from_us({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.test"})
    assert comes_from_us({"Origin": "https://Console.test", "Host": "console.test"})
    assert not comes_from_us({"Origin": "https://console.test:8443", "Host": "console.test"})
    assert not comes_from_us({"Origin": "null", "Host": ""})
    assert not any(
        comes_from_us({"Origin": origin, "Host": "console.test"})
        for origin in ("http://[", "http://[x]", "https://console.test/", "console.test", "://")
    )
    assert not same_token(None, "x")
    assert not same_token("\udc80".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), "x")


@pytest.mark.parametrize("path", ["", "x", "//x", "/\\x", "https://x", "/a\nb", "/" + "a" * 3000])
def test_a_path_that_could_lead_elsewhere_is_none(path: str):
    assert local_path(path) == "/"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"a": 1}', '{\n  "a": 1\n}'),
        ('{"a": 1.0, "b": "ก\\n"}', '{\n  "a": 1.0,\n  "b": "ก\\n"\n}'),
        ('{"a": 1e3}', '{"a": 1e3}'),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ('{"a": 12345678901234567890123}', '{"a": 12345678901234567890123}'),
        ("no json", "no json"),
    ],
)
def test_data_is_put_on_lines_only_where_that_changes_nothing(text: str, shown: str):
    assert readable(text) == shown


def test_vendored_files_are_what_their_manifest_says():
    manifest = orjson.loads((STATIC / "vendored.json").read_bytes())
    assert {entry["file"] for entry in manifest} == {
        file.name for file in STATIC.iterdir() if ".min." in file.name
    }
    for entry in manifest:
        digest = hashlib.sha384((STATIC / entry["file"]).read_bytes()).digest()
        assert entry["integrity"] == "sha384-" + base64.b64encode(digest).decode("ascii")
        assert (STATIC / entry["licence_file"]).stat().st_size > 0
        assert entry["version"] in entry["file"]


def test_no_asset_is_fetched_from_elsewhere():
    for name, asset in assets.load().items():
        if ".min." not in name:
            assert b"http://" not in asset.body.replace(b"http://www.w3.org", b"")
            assert b"https://" not in asset.body
            assert b"innerHTML" not in asset.body
            assert b"eval(" not in asset.body


def test_commands_to_copy_keep_every_part_one_argument():
    request = SentRequest(
        attempt_number=1,
        method="POST",
        url="https://x.test/a b?c='d'",
        headers=[
            ("Host", "x.test"),
            ("Content-Length", "3"),
            ("User-Agent", "d/1"),
            ("X-Own", "a'; rm -rf ~; '`id`$(id)"),
        ],
        signature_header="X-Signature",
        timestamp=1,
        signed_content="{}",
        also_signed=[],
    )
    curl = shlex.split(as_curl(request, '{"a":"it\'s\n"}'))
    assert curl == [
        "curl", "--request", "POST", "--header", "User-Agent: d/1", "--header",
        "X-Own: a'; rm -rf ~; '`id`$(id)", "--data-binary", "{\"a\":\"it's\n\"}",
        "https://x.test/a b?c='d'",
    ]  # fmt: skip
    verify = shlex.split(as_verify(request, "wms"))
    assert verify[:6] == ["dispatcher", "verify", "--profile", "wms", "--secret", "env:SECRET"]
    assert verify[6:] == [
        "--header", "X-Own: a'; rm -rf ~; '`id`$(id)", "--body", "body.json",
    ]  # fmt: skip
