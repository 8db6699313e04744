"""What commands print: tables that fit a terminal, ages, colours, YAML."""

import json  # noqa: TID251 -- an independent reader
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from dispatcher.cli.delivery import columns
from dispatcher.cli.output import Column, Output, age, cut, duration, say_table
from dispatcher.cli.yaml import write_yaml
from dispatcher.runtime.clock import SystemClock

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
COLUMNS = (
    Column("NAME", "name", can_be_cut=True),
    Column("ID", "id"),
    Column("TENANT", "tenant", if_different=True),
    Column("STATE", "state", is_state=True),
    Column("URL", "url", can_be_cut=True),
    Column("MORE", "more", is_wide=True),
)


def row(name: str, tenant: str = "acme") -> SimpleNamespace:
    url = "https://example.com/" + "a" * 80
    return SimpleNamespace(
        name=name, id="ep_" + "0" * 26, tenant=tenant, state="active", url=url, more="x" * 90
    )


def printed(
    capsys: pytest.CaptureFixture[str], rows: list[SimpleNamespace], output: Output
) -> list[str]:
    say_table(rows, COLUMNS, "none", output)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [80, 110])
def test_a_table_fits_and_cuts_the_name_last(monkeypatch, capsys, width: int):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = printed(capsys, [row("ที่คลังสินค้า_ก้ำกึ่ง"), row("ERP_Order_Sync")], Output.TABLE)
    assert max(map(cell_len, lines)) <= width
    assert lines[0].split() == ["NAME", "ID", "STATE", "URL"]
    assert lines[2].startswith("ERP_Order_Sync ")
    assert lines[1].startswith("ที่คลังสินค้า_ก้ำกึ่ง ")
    assert all("ep_" + "0" * 26 in line and line.endswith("…") for line in lines[1:])


@pytest.mark.parametrize(("width", "names"), [(80, []), (110, ["TYPE"])])
def test_a_list_of_deliveries_keeps_the_business_key_whole(
    monkeypatch, capsys, width: int, names: list[str]
):
    monkeypatch.setenv("COLUMNS", str(width))
    delivery = SimpleNamespace(
        **{name: name for name in ("tenant", "reason", "event_id", "endpoint_id", "ordering_key")},
        id="wh_" + "0" * 26,
        state="succeeded",
        labels={"warehouse": "BKK", "order_id": "ORD-2026-01234"},
        event_type="inventory.stock.adjusted",
        attempt_count=1,
        next_attempt_at=None,
        created_at=SystemClock.now() - timedelta(minutes=3),
    )
    widths: list[int] = []
    for kept in (None, widths, widths):
        last = {delivery.id: SimpleNamespace(response_code=200)}
        shown = columns({"endpoint_id": "ERP_Order_Sync_of_Bangkok"}, last)  # type: ignore[arg-type]  # stands for attempts
        say_table([delivery], shown, "none", widths=kept)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "STATE", "CODE", "KEY", *names, "ENDPOINT", "AGE"]
    assert all("ORD-2026-01234 " in line for line in lines if not line.startswith("ID"))
    assert max(map(cell_len, [head, *lines])) <= width


def test_a_wide_table_has_all_columns_and_whole_values(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    head, line = printed(capsys, [row("ERP")], Output.WIDE)
    assert head.split() == ["NAME", "ID", "TENANT", "STATE", "URL", "MORE"]
    assert line.endswith("x" * 90)


def test_a_column_of_equal_values_is_left_out(capsys):
    assert "TENANT" not in printed(capsys, [row("a"), row("b")], Output.TABLE)[0]
    assert "TENANT" in printed(capsys, [row("a"), row("b", "zeta")], Output.TABLE)[0]


@given(st.text(), st.integers(2, 30))
def test_a_cut_text_is_never_wider(text: str, cells: int):
    assert cell_len(cut(text, cells)) <= cells
    if cell_len(text) <= cells:
        assert cut(text, cells) == text


def test_combining_characters_have_no_width_of_their_own():
    assert cut("กี่กี่กี่", 2) == "กี่…"
    assert cut("กี่กี่กี่", 3) == "กี่กี่กี่"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (7_199, "119m"), (7_200, "2h"), (86_399, "23h"),
     (86_400, "1d"), (700 * 86_400, "700d"), (730 * 86_400, "2y")],
)  # fmt: skip
def test_a_duration_has_one_unit(seconds: int, expected: str):
    assert duration(seconds) == expected


def test_an_age_is_of_the_past_or_of_the_future():
    now = datetime(2026, 5, 29, tzinfo=UTC)
    assert age("2026-05-28T23:57:00.000000Z", now) == "3m"
    assert age(now + timedelta(hours=5), now) == "in 5h"
    assert age(None, now) == "-"


@given(JSON)
def test_yaml_means_the_same_as_json(value: object):
    assert yaml.safe_load(write_yaml(json.dumps(value))) == value


def test_yaml_keeps_the_digits_of_numbers():
    text = '{"a": 1.0, "b": 12345678901234567890123, "c": [1.50], "d": "1.0", "e": "no"}'
    assert write_yaml(text) == (
        'a: 1.0\nb: 12345678901234567890123\nc:\n  - 1.50\nd: "1.0"\ne: "no"\n'
    )
