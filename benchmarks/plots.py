"""Plots as SVG, written by hand: a line a series, a bar a goal, or a curve with ranges; into `benchmarks/results/`."""

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
_WIDTH, _HEIGHT, _LEFT, _TOP = 720, 320, 70, 40
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def _write(name: str, height: int, title: str, parts: Sequence[str]) -> None:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>'
    )
    (RESULTS / f"{name}.svg").write_text(head + "".join(parts) + "</svg>\n", encoding="utf-8")


def lines(
    name: str, title: str, xs: Sequence[float], series: Mapping[str, Sequence[float]]
) -> None:
    """Plots series over minutes; the axis of values begins at zero."""
    if not xs:
        return
    top = max((max(values, default=0.0) for values in series.values()), default=0.0) or 1.0
    width, height = _WIDTH - _LEFT - 20, _HEIGHT - _TOP - 40
    span = (xs[-1] - xs[0]) or 1.0
    parts = []
    for step in range(5):
        y = _TOP + height - height * step / 4
        parts.append(
            f'<line x1="{_LEFT}" y1="{y:.0f}" x2="{_LEFT + width}" y2="{y:.0f}" stroke="#ddd"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.0f}" text-anchor="end">{top * step / 4:,.4g}</text>'
        )
    for number, (label, values) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{_LEFT + width * (x - xs[0]) / span:.1f},{_TOP + height - height * value / top:.1f}"
            for x, value in zip(xs, values, strict=True)
        )
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>'
        )
        parts.append(
            f'<text x="{_LEFT + 130 * number}" y="{_HEIGHT - 8}" fill="{colour}">{escape(label)}</text>'
        )
    parts.append(
        f'<text x="{_LEFT + width}" y="{_HEIGHT - 8}" text-anchor="end">'
        f"minutes {xs[0]:.1f} to {xs[-1]:.1f}</text>"
    )
    _write(name, _HEIGHT, title, parts)


def bars(name: str, title: str, rows: Sequence[tuple[str, float, float, float]]) -> None:
    """Plots how far each goal is reached: (what, lowest, median, highest), 1 being the aim."""
    left, width = 330, _WIDTH - 330 - 30
    top = max(2.0, max((min(3.0, row[3]) for row in rows), default=2.0))
    height = _TOP + 22 * len(rows) + 30
    parts = []
    for number, (what, low, middle, high) in enumerate(rows):
        y = _TOP + 22 * number
        low_x, middle_x, high_x = (
            left + width * min(top, value) / top for value in (low, middle, high)
        )
        colour = "#2ca02c" if middle >= 1 else "#d62728"
        parts.append(
            f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(what[:56])}</text>'
            f'<rect x="{left}" y="{y + 2}" width="{middle_x - left:.1f}" height="12" fill="{colour}"/>'
            f'<line x1="{low_x:.1f}" y1="{y + 8}" x2="{high_x:.1f}" y2="{y + 8}" stroke="black"/>'
        )
    aim_x = left + width / top
    parts.append(
        f'<line x1="{aim_x:.1f}" y1="{_TOP - 6}" x2="{aim_x:.1f}" y2="{height - 22}" stroke="black" '
        f'stroke-dasharray="4"/><text x="{aim_x:.1f}" y="{height - 8}" text-anchor="middle">the aim</text>'
    )
    _write(name, height, title, parts)


_STYLE = """<style>
svg { --back: #fff; --text: #222; --grid: #ddd; --line: #1f77b4; }
@media (prefers-color-scheme: dark) { svg { --back: #1e2129; --text: #ddd; --grid: #444; --line: #6db3f2; } }
.back { fill: var(--back); } text { fill: var(--text); } .grid { stroke: var(--grid); }
.curve { fill: none; stroke: var(--line); stroke-width: 1.5; } .point { fill: var(--line); }
</style>"""


def curves(title: str, panels: Mapping[str, Sequence[tuple[str, Sequence[float]]]]) -> str:
    """Return the SVG of curves side by side, light or dark as the reader's system is.

    Each panel has points from left to right: a label and the values of its rounds, of which the median and
    the range are drawn. The axis of values starts at zero and is the same in all panels.
    """
    values = [value for points in panels.values() for _, rounds in points for value in rounds]
    top = max(1.25, *values) * 1.05
    width, height = (_WIDTH - _LEFT) / len(panels), _HEIGHT - _TOP - 60
    bottom = _TOP + height

    def at(value: float) -> float:
        return bottom - height * value / top

    parts = []
    for number, (name, points) in enumerate(panels.items()):
        left = _LEFT + width * number
        step = (width - 20) / len(points)
        for tick in range(5):
            if (value := tick / 4) > top:
                break
            parts.append(
                f'<line class="grid" x1="{left:.0f}" y1="{at(value):.1f}" '
                f'x2="{left + width - 20:.0f}" y2="{at(value):.1f}"/>'
            )
            if number == 0:
                parts.append(
                    f'<text x="{left - 6:.0f}" y="{at(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
                )
        middles = []
        for place, (label, rounds) in enumerate(points):
            x, middle = left + step * (place + 0.5), at(statistics.median(rounds))
            middles.append(f"{x:.1f},{middle:.1f}")
            parts.append(
                f'<line class="curve" x1="{x:.1f}" y1="{at(min(rounds)):.1f}" x2="{x:.1f}" y2="{at(max(rounds)):.1f}"/>'
                f'<circle class="point" cx="{x:.1f}" cy="{middle:.1f}" r="4"/>'
                f'<text x="{x:.1f}" y="{bottom + 18:.0f}" text-anchor="middle">{escape(label)}</text>'
            )
        parts.append(
            f'<polyline class="curve" points="{" ".join(middles)}"/>'
            f'<text x="{left + (width - 20) / 2:.1f}" y="{bottom + 40:.0f}" text-anchor="middle">{escape(name)}</text>'
        )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">{_STYLE}<rect class="back" width="100%" height="100%"/>'
        f'<text x="{_LEFT}" y="22" font-size="15">{escape(title)}</text>'
    )
    return head + "".join(parts) + "</svg>\n"
