"""The console's navigation: groups of pages, in the order of the side bar.

A page of its own gets one line here and the text `nav.<key>` in both languages.
"""

from typing import Final, NamedTuple

from dispatcher.admin.operations.context import Role


class Entry(NamedTuple):
    """A link of the navigation; `covers` are further paths that belong to the entry."""

    href: str
    key: str
    role: Role = Role.VIEWER
    covers: tuple[str, ...] = ()


class Group(NamedTuple):
    """The entries below one heading."""

    key: str
    entries: tuple[Entry, ...]


GROUPS: Final = (
    Group(
        "monitor",
        (
            Entry("/", "home", covers=("/problems", "/search")),
            Entry("/deliveries", "deliveries", covers=("/schedule", "/jobs")),
            Entry("/events", "events"),
        ),
    ),
    Group(
        "configure",
        (Entry("/webhooks", "endpoints"), Entry("/event-types", "event_types")),
    ),
    Group(
        "admin",
        (
            Entry("/activity", "activity", Role.ADMIN),
            Entry("/access", "access", Role.ADMIN),
            Entry("/notifications", "notifications", Role.ADMIN),
            Entry("/system", "system"),
        ),
    ),
)


PORTAL_GROUPS: Final = (
    Group(
        "portal",
        (
            Entry("/webhooks", "endpoints"),
            Entry("/deliveries", "deliveries"),
            Entry("/events", "events"),
            Entry("/event-types", "event_types"),
        ),
    ),
)
"""The navigation of the portal of one tenant."""


def is_current(entry: Entry, path: str) -> bool:
    """Return whether a path belongs to an entry."""
    return any(
        path == prefix or (prefix != "/" and path.startswith(f"{prefix}/"))
        for prefix in (entry.href, *entry.covers)
    )
