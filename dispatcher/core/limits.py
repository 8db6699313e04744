"""Every bound of the dispatcher, with its unit in its name and its reason above it.

A bound that a deployment may choose is a setting, not a line here; these bounds are fixed.
"""

from typing import Final

# A status line decides an attempt, so the body is for people: 64 KiB is more than anyone reads.
RESPONSE_READ_BYTES_MAX: Final = 65_536
# What is stored of a failed answer's body: enough for an error message, small enough for a table.
RESPONSE_KEPT_BYTES_MAX: Final = 4_096
# What is stored of its headers, in whole lines; most heads are smaller.
RESPONSE_HEADERS_KEPT_BYTES_MAX: Final = 4_096
# Status line and headers of one response together: one line of the longest kind and 32 KiB of others;
# httptools itself has no such bound (R5).
HEAD_BYTES_MAX: Final = 98_304
# One header line; a 2xx of a receiver that adds a long cookie or policy was lost at 8 KiB (R5).
HEADER_LINE_BYTES_MAX: Final = 65_536
# Header lines in one answer; the figure that aiohttp uses (R5).
HEADER_COUNT_MAX: Final = 128
# 1xx answers before the final one; a flood of them grew memory by 11 MB in 3 s (R7).
INTERIM_ANSWERS_MAX: Final = 16
# Bytes off the wire for one attempt: chunk extensions and trailers never reach the body cap (R6).
RAW_BYTES_MAX: Final = 1_048_576
# A receiver may postpone a delivery, and not by more than this (R19).
RETRY_AFTER_SECONDS_MAX: Final = 3_600.0
# The longest HTTP date has 33 characters, so what is longer is none (R19).
RETRY_AFTER_DATE_CHARACTERS_MAX: Final = 33

# Also a CHECK of the outbox: a webhook carries facts, not files.
EVENT_DATA_BYTES_MAX: Final = 1_048_576
# Also a CHECK of the outbox; the names are labels in places where length costs.
EVENT_TYPE_CHARACTERS_MAX: Final = 128
# Labels are for filters and search: twenty are plenty, and each is matched for each endpoint.
LABELS_COUNT_MAX: Final = 20
# Also a CHECK of the outbox.
LABEL_NAME_CHARACTERS_MAX: Final = 64
# Also a CHECK of the outbox.
LABEL_VALUE_CHARACTERS_MAX: Final = 256

# The length that every common server still accepts in a request line.
URL_CHARACTERS_MAX: Final = 2_048
# Custom headers of one endpoint; more is a mistake or an attack (A12).
CUSTOM_HEADERS_COUNT_MAX: Final = 50
# Custom headers of one endpoint, names and values together; common servers refuse more (A12).
CUSTOM_HEADERS_BYTES_MAX: Final = 8_192
# Subscriptions of one endpoint; `*` and prefixes make longer lists needless.
SUBSCRIPTION_TYPES_COUNT_MAX: Final = 500
# The slowest rate of an endpoint, about one request a day; below, a lane would be as good as paused.
RATE_PER_SECOND_MIN: Final = 0.00001
# The fastest rate that a limit makes sense for.
RATE_PER_SECOND_MAX: Final = 100_000.0
# Alternatives for one name in an endpoint's label filter.
LABEL_FILTER_VALUES_COUNT_MAX: Final = 100

# Routes remembered by (tenant, event type): hostile type names must not fill the memory (A28).
ROUTE_CACHE_ENTRIES_MAX: Final = 10_000
# Endpoints named by all remembered routes together: 8 MB of references.
ROUTE_CACHE_REFERENCES_MAX: Final = 1_000_000
# Failed deliveries that a breaker distinguishes, the latest ones; it needs ten to open.
BREAKER_DELIVERIES_MAX: Final = 64
# Shards between which endpoints are divided; the schema has a row for each, and a CHECK.
SHARDS_COUNT: Final = 64
# Event types that a breaker distinguishes at its endpoint.
BREAKER_TYPES_MAX: Final = 64
