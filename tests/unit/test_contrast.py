"""Shades of a color are readable in both themes, whatever the color is."""

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.admin.console.pages.portal import DARK, LIGHT
from dispatcher.core.contrast import TEXT_CONTRAST, accent_on, contrast

CSS = Path(__file__).parents[2] / "dispatcher" / "admin" / "console" / "static" / "console.css"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("#000000", "#ffffff", 21.0), ("#777777", "#ffffff", 4.48), ("#ffffff", "#ffffff", 1.0)],
)
def test_contrast_of_known_pairs_is_that_of_wcag(first, second, expected):
    assert contrast(first, second) == pytest.approx(expected, abs=0.01)
    assert contrast(second, first) == contrast(first, second)


@given(st.integers(0, 0xFFFFFF))
@example(0xFFCC00)
@example(0x000000)
@example(0xFFFFFF)
@example(0x777777)
def test_accent_of_any_color_is_readable_in_both_themes(number):
    color = f"#{number:06x}"
    for surfaces, is_dark in ((LIGHT, False), (DARK, True)):
        made = accent_on(color, *surfaces, is_dark=is_dark)
        for surface in (*surfaces, made.soft):
            assert contrast(made.accent, surface) >= TEXT_CONTRAST
        assert contrast(made.accent, made.ink) >= TEXT_CONTRAST


def test_accent_of_a_readable_color_is_the_color_itself():
    assert accent_on("#0f5b4f", *LIGHT, is_dark=False).accent == "#0f5b4f"


def test_accent_is_made_for_the_surfaces_of_the_style_sheet():
    css = CSS.read_text(encoding="utf-8")
    for number, name in enumerate(("paper", "raised")):
        found = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", css)
        assert found is not None
        given = [
            one if len(one) == 7 else "#" + "".join(c * 2 for c in one[1:])
            for one in found.groups()
        ]
        assert given == [LIGHT[number], DARK[number]]
