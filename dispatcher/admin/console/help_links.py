"""The section of the documentation that each page of the console links to.

The longest prefix of the path decides. A test compares the table with the pages' routes and with the
headings of the documentation.
"""

from collections.abc import Mapping
from typing import Final

LINKS: Final[Mapping[str, str]] = {
    "/": "console#home",
    "/problems": "console#home",
    "/search": "console#the-frame",
    "/deliveries": "console#deliveries",
    "/schedule": "console#retry-now-and-the-schedule",
    "/jobs": "operators#jobs",
    "/events": "console#events",
    "/event-types": "console#events",
    "/webhooks": "console#webhooks",
    "/activity": "console#activity",
    "/access": "console#access",
    "/tokens": "console#access",
    "/notifications": "console#notifications",
    "/system": "console#system",
    "/preferences": "console#languages-times-keys",
    "/sign-in": "console#secure-access",
    "/help": "",
}
GUIDES: Final = (
    "console", "receivers", "producers", "cli", "api", "errors", "operators", "runbooks", "reporting", "logs",
    "security", "reliability", "scaling", "performance", "upgrading", "architecture",
)  # fmt: skip
"""The pages of the contents, in order; the text of each is `help.about.<page>`."""


def help_address(path: str) -> str:
    """Return the address of the documentation's section about a page of the console."""
    fitting = [
        prefix
        for prefix in LINKS
        if path == prefix or (prefix != "/" and path.startswith(f"{prefix}/"))
    ]
    section = LINKS[max(fitting, key=len)] if fitting else ""
    return f"/help/{section}" if section else "/help"
