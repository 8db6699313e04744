"""Computes the geometry of charts: coordinates in a drawing of fixed size, which the templates render.

A chart is an SVG with presentation attributes only, because the content security policy forbids inline
styles. A table next to it has its figures.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, log10
from typing import Final, NamedTuple

WIDTH: Final = 480
HEIGHT: Final = 160
SPARK_WIDTH: Final = 96
SPARK_HEIGHT: Final = 24
SPARK_FAILED_MIN: Final = 4.0
"""One failure among thousands of successes is visible."""
_GAP: Final = 2


class Bar(NamedTuple):
    """One part of the range: the coordinates of its succeeded and its failed part, and its whole width."""

    x: float
    width: float
    start: float
    step: float
    ok_y: float
    ok_height: float
    not_ok_y: float
    not_ok_height: float


class Bars(NamedTuple):
    """A chart of stacked bars and the value at its top."""

    bars: tuple[Bar, ...]
    top: int


def bars(
    counts: Sequence[tuple[int, int]],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
    failed_min: float = 1.0,
) -> Bars:
    """Return bars for (succeeded, failed) counts; a count above zero is at least one pixel high.

    `failed_min` is the height of a single failure.
    """
    top = round_up(max((ok + not_ok for ok, not_ok in counts), default=0))
    step = width / max(1, len(counts))
    drawn = []
    for index, (ok, not_ok) in enumerate(counts):
        bad = max(failed_min, _length(not_ok, top, height)) if not_ok else 0.0
        good = min(_length(ok, top, height), height - bad)
        drawn.append(
            Bar(
                x=round(index * step + _GAP / 2, 2),
                width=round(max(1.0, step - _GAP), 2),
                start=round(index * step, 2),
                step=round(step, 2),
                ok_y=round(height - bad - good, 2),
                ok_height=round(good, 2),
                not_ok_y=round(height - bad, 2),
                not_ok_height=round(bad, 2),
            )
        )
    return Bars(tuple(drawn), top)


def spark(counts: Sequence[tuple[int, int]]) -> Bars:
    """Return bars that are small enough for a table row."""
    return bars(counts, width=SPARK_WIDTH, height=SPARK_HEIGHT, failed_min=SPARK_FAILED_MIN)


class Line(NamedTuple):
    """A line through the values: its pieces, and its isolated points."""

    pieces: tuple[str, ...]
    dots: tuple[tuple[float, float], ...]


class Lines(NamedTuple):
    """Several lines on one scale, and the value at the chart's top."""

    lines: tuple[Line, ...]
    top: float


def lines(series: Sequence[Sequence[float | None]]) -> Lines:
    """Return a line for each series; a missing value breaks it."""
    values = [value for one in series for value in one if value is not None]
    top = round_up_real(max(values, default=0.0))
    return Lines(tuple(_line(one, top) for one in series), top)


def _line(values: Sequence[float | None], top: float) -> Line:
    step = WIDTH / max(1, len(values))
    points: list[tuple[float, float] | None] = [
        None
        if value is None
        else (round((index + 0.5) * step, 1), round(HEIGHT - HEIGHT * value / top, 1))
        for index, value in enumerate(values)
    ]
    pieces: list[list[tuple[float, float]]] = []
    for before, point in pairwise([None, *points]):
        if point is None:
            continue
        if before is None:
            pieces.append([])
        pieces[-1].append(point)
    return Line(
        tuple(" ".join(f"{x},{y}" for x, y in piece) for piece in pieces if len(piece) > 1),
        tuple(piece[0] for piece in pieces if len(piece) == 1),
    )


def _length(value: int, top: int, height: float) -> float:
    return max(1.0, height * value / top) if value else 0.0


def round_up(value: int) -> int:
    """Return the next of 1, 2, 5, 10, 20, 25, 50, ..., which make a readable scale."""
    return int(round_up_real(float(max(1, value))))


def round_up_real(value: float) -> float:
    """Return the next of 1, 2, 2.5, 5 times a power of ten, which may be below 1."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** (ceil(log10(value)) - 1)
    for factor in (1, 2, 2.5, 5, 10):
        if value <= factor * power * 1.000001:
            return factor * power
    return 10 * power
