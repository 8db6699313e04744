"""The section of the documentation that each page of the console links to.

The longest prefix of the path decides. A test compares the table with the pages' routes and with the
headings of the documentation.
"""

from collections.abc import Mapping, Sequence
from typing import Final

LINKS: Final[Mapping[str, str]] = {
    "/": "reference/console#home",
    "/problems": "reference/console#home",
    "/search": "reference/console#the-frame",
    "/deliveries": "reference/console#deliveries",
    "/schedule": "reference/console#retry-now-and-the-schedule",
    "/jobs": "reference/operations#jobs",
    "/events": "reference/console#events",
    "/event-types": "reference/console#events",
    "/webhooks": "reference/console#webhooks",
    "/activity": "reference/console#activity",
    "/access": "reference/console#access",
    "/tokens": "reference/console#access",
    "/notifications": "reference/console#notifications",
    "/system": "reference/console#system",
    "/preferences": "reference/console#languages-times-keys",
    "/portal": "reference/console#portal",
    "/sign-in": "reference/console#secure-access",
    "/help": "",
}
GUIDES: Final[Mapping[str, Sequence[str]]] = {
    "tutorial": ("quick-start", "tutorials/receive-a-webhook", "tutorials/support-a-webhook"),
    "how_to": (
        "how-to/publish-from-sql", "how-to/publish-from-python", "how-to/publish-from-java", "how-to/publish-from-go",
        "how-to/publish-from-node", "how-to/publish-from-php", "how-to/publish-from-ruby", "how-to/check-event-data",
        "how-to/receive-and-verify", "how-to/authenticate-to-receivers", "how-to/find-an-order",
        "how-to/late-deliveries", "how-to/embed-the-portal",
        "how-to/recover-after-an-outage", "how-to/rotate-secrets", "how-to/install",
        "how-to/go-to-production", "how-to/back-up", "how-to/fail-over",
        "how-to/distribute-the-history", "how-to/upgrade", "how-to/runbooks",
    ),
    "reference": (
        "reference/console", "reference/sql", "reference/api", "reference/cli", "reference/errors",
        "reference/event-types", "reference/operations", "reference/settings", "reference/logs", "reference/reporting",
    ),
    "explanation": (
        "explanation/delivery", "explanation/breaker", "explanation/reliability", "explanation/security",
        "explanation/performance", "explanation/scaling", "architecture",
    ),
}  # fmt: skip
"""The pages of the contents by kind, in order; their texts are `help.kind.<kind>` and `help.about.<page>`."""

PORTAL_PAGES: Final = ("how-to/receive-and-verify", "reference/event-types", "explanation/delivery")
"""The pages of the portal's help: those about receiving. The others are for the people who run the deployment."""
_PORTAL_LINKS: Final[Mapping[str, str]] = {
    "/webhooks": "how-to/receive-and-verify",
    "/deliveries": "explanation/delivery",
    "/events": "explanation/delivery",
    "/event-types": "reference/event-types",
}


def about(page: str) -> str:
    """Return the key of the text about a page."""
    return f"help.about.{page.rpartition('/')[2]}"


def help_address(path: str, *, in_portal: bool = False) -> str:
    """Return the address of the documentation's section about a page of the console or the portal."""
    links = _PORTAL_LINKS if in_portal else LINKS
    fitting = [
        prefix
        for prefix in links
        if path == prefix or (prefix != "/" and path.startswith(f"{prefix}/"))
    ]
    section = links[max(fitting, key=len)] if fitting else ""
    return f"/help/{section}" if section else "/help"
