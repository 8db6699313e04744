"""Finds values in an endpoint's row that operations never save, but that the columns allow.

Operations refuse such values. The columns cannot: `headers` and `labels` are JSON, arrays take NULL
and nest, a delay may be Infinity. A row that was written by hand must cost its own deliveries
only, so every reader of rows calls this first and uses none of the values found.
"""

import math
from collections.abc import Sequence
from typing import Final

DELAY_SECONDS_MAX: Final = 366 * 86_400.0
"""Longer than what operations allow: a year may be intended, 1e300 never is."""


def faults(
    *,
    event_types: Sequence[object],
    labels: object,
    headers: object,
    retry_schedule_seconds: object,
) -> list[str]:
    """Return what cannot be read, as `<column> <what is wrong>`; none is good."""
    found = []
    if not all(isinstance(one, str) for one in event_types):
        found.append("event_types holds something that is no text")
    if not isinstance(labels, dict) or not all(map(_is_label, labels.values())):
        found.append("labels holds something that is neither a text nor a list of texts")
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        found.append("headers holds something that is no text")
    if retry_schedule_seconds is not None and not _is_schedule(retry_schedule_seconds):
        found.append("retry_schedule_seconds holds something that is no delay of 0 s to a year")
    return found


def _is_label(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str)


def _is_schedule(value: object) -> bool:
    return isinstance(value, Sequence) and all(
        isinstance(one, int | float) and math.isfinite(one) and 0 <= one <= DELAY_SECONDS_MAX
        for one in value
    )
