"""Classes of responses, as people filter by them: the hundreds of a status code, or why there was none.

A filter may also name a status code from 300 to 599 exactly.

The class of a delivery is that of its last attempt. A succeeded delivery has the class `2xx`, even if a
later resend of it failed. Statements compare codes: the hundreds of a status code, or 100 and the code
of the outcome where no status code was received.
"""

import re
from collections.abc import Sequence
from typing import Final

from dispatcher.core import codes

_NO_STATUS: Final = 100
CLASSES: Final[dict[str, tuple[int, ...]]] = {
    "2xx": (2,),
    "3xx": (3,),
    "4xx": (4,),
    "5xx": (5,),
    "timeout": (_NO_STATUS + codes.OUTCOME_CODES["timeout"],),
    "connection": tuple(
        _NO_STATUS + codes.OUTCOME_CODES[outcome]
        for outcome in (
            "connect_error",
            "dns_error",
            "tls_error",
            "protocol_error",
            "blocked_address",
        )
    ),
}
"""The classes that can be filtered by, and the codes of each."""


EXACT: Final = "[345][0-9]{2}"
"""The pattern of a status code that a filter names. Deliveries that succeeded have the class 2xx alone."""


def class_codes(classes: Sequence[str]) -> list[int]:
    """Return the codes of several classes and status codes."""
    return sorted(
        code for name in classes for code in ([int(name)] if name.isdigit() else CLASSES[name])
    )


def is_wanted(wanted: Sequence[int], state: str, outcome: str, response_code: int | None) -> bool:
    """Return whether the last attempt of a delivery has one of these codes."""
    if class_code(state, outcome, response_code) in wanted:
        return True
    return state != "succeeded" and response_code in wanted


def class_code(state: str, outcome: str, response_code: int | None) -> int:
    """Return the code of a delivery's last attempt, by the state of the delivery."""
    if state == "succeeded":
        return CLASSES["2xx"][0]
    if response_code is not None:
        return response_code // 100
    return _NO_STATUS + codes.OUTCOME_CODES[outcome]


def filter_of(outcome: str, response_code: int | None) -> str | None:
    """Return the filter of an attempt that did not succeed: its status code or its class; None if there is none."""
    if response_code is not None and re.fullmatch(EXACT, str(response_code)):
        return str(response_code)
    code = class_code("failed", outcome, response_code)
    return next((name for name, members in CLASSES.items() if code in members), None)
