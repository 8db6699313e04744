"""The business key of an event: the label by which people know it, such as an order number."""

import re
from collections.abc import Mapping
from typing import Final

_KEY_NAME: Final = re.compile(r"(?:^|[._-])(?:id|no|number|ref|code)$")


def business_key(labels: Mapping[str, str]) -> str | None:
    """Return the label by which people know an event; None: it has no labels.

    That is the first label, in the order of the names, whose name ends in `id`, `no`, `number`, `ref` or
    `code`, as in `order_id`. If there is none, it is the first label.
    """
    names = sorted(labels)
    key = next((name for name in names if _KEY_NAME.search(name)), names[0] if names else None)
    return None if key is None else labels[key]
