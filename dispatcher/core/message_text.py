"""Messages for people, composed from an event's fields by the `[text]` of a profile.

What always holds: a value is escaped as its receiver needs it, so that a name can neither mention a
channel nor become a link; control characters other than line breaks are removed; a message is never
longer than the service accepts, and is never cut within an escaped character.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from dispatcher.core.model import Event
from dispatcher.core.notifying import NOTIFICATION
from dispatcher.core.profile import FieldSource, TextEscape, TextPart, TextRules

ELLIPSIS: Final = "…"
VALUE_CHARACTERS_MAX: Final = 2_000
"""How much of one value a message repeats."""

_MARKDOWN: Final = frozenset("\\*_~`|[]()<>#@")
_SLACK: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_LINK: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,260}/[A-Za-z0-9/_?=.-]{0,500}")
_LAST_OF_THE_BASIC_PLANE: Final = 0xFFFF


def compose(rules: TextRules, event: Event) -> str:
    """Return the message about an event."""
    data = data_members(event)
    pieces: list[str] = []
    room = rules.characters_max - 1
    for part in rules.parts:
        for text, is_ours in _texts(part, event, data):
            escape = TextEscape.NONE if is_ours else rules.escape
            for character in text:
                piece = _escaped(character, escape)
                units = sum(1 + (ord(one) > _LAST_OF_THE_BASIC_PLANE) for one in piece)
                if units > room:
                    return "".join([*pieces, ELLIPSIS])
                pieces.append(piece)
                room -= units
    return "".join(pieces)


def data_members(event: Event) -> Mapping[str, Any]:
    """Return the members of an event's data; none if they hold what JSON readers refuse."""
    try:
        data = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def value_text(value: object) -> str:
    """Return a string, a number or a boolean as text; an empty text for anything else."""
    if isinstance(value, str):
        return value[:VALUE_CHARACTERS_MAX]
    if isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    return ""


def _texts(part: TextPart, event: Event, data: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the texts of a part, each with whether the profile itself wrote it."""
    if part.text:
        return [(part.text, True)]
    value = value_text(data.get(part.member)) if part.member else ""
    if not value and part.source is FieldSource.CONSOLE_LINK:
        link = console_link(event, data)
        return [(part.before + link + part.after, True)] if link else []
    if not value and part.source is not None:
        value = _source_text(part.source, event)
    return [(part.before, True), (value, False), (part.after, True)] if value else []


def console_link(event: Event, data: Mapping[str, Any]) -> str:
    """Return the link of a notification, which needs no escape; empty if the event has none of that form.

    Only the dispatcher raises notifications, and no character of the form formats, mentions or ends a
    link in a chat. Escaped, the underscore of an id would break the link.
    """
    link = data.get("link")
    if event.type != NOTIFICATION or not isinstance(link, str):
        return ""
    return link if _LINK.fullmatch(link) else ""


def _source_text(source: FieldSource, event: Event) -> str:
    match source:
        case FieldSource.EVENT_ID:
            return event.id
        case FieldSource.OCCURRED_AT:
            return event.occurred_at.strftime("%Y-%m-%d %H:%M:%S UTC")
        case _:
            return event.type


def _escaped(character: str, escape: TextEscape) -> str:
    if not character.isprintable() and character != "\n":
        return " " if character.isspace() else ""
    match escape:
        case TextEscape.SLACK:
            return _SLACK.get(character, character)
        case TextEscape.MARKDOWN:
            return f"\\{character}" if character in _MARKDOWN else character
        case TextEscape.NONE:
            return character
