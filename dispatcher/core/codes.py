"""The small integers that stand for words in the history tables.

A state, an outcome or a reason is stored as two bytes and shown as a word: by these tables in
Python, by the arrays of the views `delivery` and `attempt_all` in SQL. Codes begin with 1, as the
subscripts of those arrays do; a code is never given to another word. A test compares the two.
"""

from typing import Final
from zlib import crc32

STATES: Final = ("pending", "retrying", "succeeded", "failed", "cancelled")
TRIGGERS: Final = ("scheduled", "manual", "replay", "test")
OUTCOMES: Final = (
    "ok",
    "http_error",
    "gone",
    "throttled",
    "timeout",
    "connect_error",
    "dns_error",
    "tls_error",
    "protocol_error",
    "blocked_address",
)
REASONS: Final = (
    "schedule_spent",
    "gone",
    "test_failed",
    "cancelled_by_person",
    "endpoint_disabled",
    "endpoint_deleted",
    "paused_too_long",
    "unencodable_event",
    "event_erased",
    "unknown_profile",
    "invalid_headers",
    "invalid_url",
    "invalid_ca_pem",
    "invalid_settings",
    "secret_unreadable",
    "failing_too_long",
    "http_not_allowed",
    "skipped",
)


def _codes(words: tuple[str, ...]) -> dict[str, int]:
    return {word: code for code, word in enumerate(words, 1)}


STATE_CODES: Final = _codes(STATES)
TRIGGER_CODES: Final = _codes(TRIGGERS)
OUTCOME_CODES: Final = _codes(OUTCOMES)
REASON_CODES: Final = _codes(REASONS)

OK: Final = OUTCOME_CODES["ok"]
SUCCEEDED: Final = STATE_CODES["succeeded"]


def state_of(code: int) -> str:
    """Return the word of a delivery's state."""
    return STATES[code - 1]


def reason_of(code: int | None) -> str | None:
    """Return the word of a reason; None: there is none."""
    return None if code is None else REASONS[code - 1]


def reason_code(reason: str | None) -> int | None:
    """Return the code of a reason; None: there is none."""
    return None if reason is None else REASON_CODES[reason]


def trigger_of(code: int) -> str:
    """Return why an attempt was made."""
    return TRIGGERS[code - 1]


def outcome_of(code: int) -> str:
    """Return how an attempt ended."""
    return OUTCOMES[code - 1]


def event_type_code(event_type: str) -> int:
    """Return 32 bits of an event type, signed as Postgres's integer is.

    Deliveries carry it in place of the text, for filters. Two types can share a code, so a
    filter must compare the event's own type as well.
    """
    code = crc32(event_type.encode())
    return code - (1 << 32) if code >> 31 else code


def type_filter_code(pattern: str | None) -> int | None:
    """Return the code of a filter's type; None: there is none, or it is a pattern such as `order.*`."""
    return None if pattern is None or pattern.endswith("*") else event_type_code(pattern)
