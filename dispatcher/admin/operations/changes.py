"""What an entry of the audit log keeps of a change: the fields, and the values of those that hold no secret.

The log is kept for a year and read by every admin of the tenant, so a value is kept only if its field is in
`_PLAIN`, and then of bounded size. A URL is kept without the parts that may be a credential. Of any other
field (headers, certificates, addresses of people) only the name is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from dispatcher.core.url import masked_url

VALUE_BYTES_MAX: Final = 1_000
"""A longer value, such as a list of 500 event types, is left out: its field is named."""
_PLAIN: Final = frozenset(
    {
        "name", "event_types", "labels", "max_concurrency", "rate_limit", "timeout_seconds",
        "retry_schedule_seconds", "ordering", "also_sign", "include", "exclude", "endpoint_ids",
        "to_endpoint_id", "quiet_seconds", "digest_seconds",
    }
)  # fmt: skip


def change_detail(
    changed: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, object]:
    """Return the detail of an audit entry about a change of fields."""
    shown = [name for name in changed if name in {"url", "oauth_token_url"} or name in _PLAIN]
    values = {name: (_kept(name, before[name]), _kept(name, after[name])) for name in shown}
    whole = {
        name: both for name, both in values.items() if max(map(_size, both)) <= VALUE_BYTES_MAX
    }
    return {
        "changed": list(changed),
        "before": {name: both[0] for name, both in whole.items()},
        "after": {name: both[1] for name, both in whole.items()},
    }


def _kept(name: str, value: Any) -> Any:  # noqa: ANN401 -- of any field
    is_url = name in {"url", "oauth_token_url"} and value is not None
    return masked_url(value) if is_url else value


def _size(value: object) -> int:
    return len(orjson.dumps(value, default=str))
