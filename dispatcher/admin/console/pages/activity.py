"""The audit log: who did what, as sentences with their differences; sign-ins are folded."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from dispatcher.admin.console.actors import actor_name
from dispatcher.admin.console.app import PageRoute
from dispatcher.admin.console.context import Context
from dispatcher.admin.console.filters import read_time
from dispatcher.admin.console.times import Zone, moment
from dispatcher.admin.operations.context import Role
from dispatcher.admin.resources.audit import AuditLine, AuditPage, AuditQuery

ROWS: Final = 20
FIELDS: Final = ("by", "action", "subject", "since", "until")
SIGN_INS: Final = frozenset({"session.open", "session.close", "link.create"})
_PLACES: Final = {
    "ep_": ("webhooks",), "wh_": ("deliveries",), "evt_": ("events",), "job_": ("jobs",),
    "ntf_": ("notifications",),
}  # fmt: skip
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
_OWN_PLACE: Final = frozenset({"name", "changed", "before", "after"})
"""Parts of a detail that a sentence or its difference shows."""

_WORDS: Final = {
    "state": "state", "was": "state", "reason": "reason", "kind": "jobkind", "outcome": "outcome",
    "role": "role", "response": "response", "by": "source",
}  # fmt: skip
"""The groups of the words that name the values of a part of a detail."""


class Line(NamedTuple):
    """An entry as the page shows it."""

    at: str
    who: str
    action: str
    subject: str
    href: Sequence[str]
    """The parts of the address of its object; empty if the object has no page."""
    tenant: str | None
    diff: Sequence[tuple[str, str | None, str | None]]
    detail: Sequence[tuple[str, str]]


async def activity(context: Context) -> web.StreamResponse:
    """Show the audit log, newest first."""
    context.who.require(Role.ADMIN)
    problems: dict[str, str] = {}
    since = read_time(context, "since", problems)
    until = read_time(context, "until", problems)
    page, names = AuditPage(items=[], next_cursor=None), dict[str, str]()
    if not problems:
        page = await context.operations.audit.page(
            context.who,
            AuditQuery.of(
                actor=context.query("by"),
                action=context.query("action"),
                object=context.query("subject"),
                since=since,
                until=until,
                limit=ROWS,
                cursor=context.query("cursor"),
            ),
        )
        names = await context.operations.audit.names(context.who, page)
    lines = [_line(context, entry, names) for entry in page.items]
    return context.page(
        "activity.html",
        status=422 if problems else 200,
        page=page,
        groups=_fold(lines),
        problems=problems,
        actions=_actions(context),
        chips=_chips(context, names),
        is_filtered=any(context.query(name) for name in FIELDS),
    )


def _fold(lines: Sequence[Line]) -> list[list[Line]]:
    """Return groups of lines: sign-ins that follow each other together, any other line alone."""
    groups: list[list[Line]] = []
    for is_sign_in, found in groupby(lines, lambda line: line.action in SIGN_INS):
        members = list(found)
        groups += [members] if is_sign_in else [[line] for line in members]
    return groups


def _line(context: Context, entry: AuditLine, names: dict[str, str]) -> Line:
    detail = entry.detail
    prefix = next((one for one in _PLACES if entry.object.startswith(one)), None)
    if entry.object == entry.actor or entry.action in SIGN_INS:
        subject = ""
    else:
        subject = names.get(entry.object) or str(detail.get("name") or entry.object)
    return Line(
        at=entry.at,
        who=actor_name(context.language, entry.actor, names),
        action=entry.action,
        subject=subject,
        href=() if prefix is None else (*_PLACES[prefix], entry.object),
        tenant=entry.tenant,
        diff=_diff(context, detail),
        detail=[
            (context.language.word("field", name), _value(context, name, value))
            for name, value in detail.items()
            if name not in _OWN_PLACE and value not in (None, "", [], {})
        ],
    )


def _diff(context: Context, detail: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """Return the changed fields with both values; a field whose values are not kept has none."""
    before, after = detail.get("before") or {}, detail.get("after") or {}
    return [
        (
            context.language.word("field", name),
            _text(before[name], context.zone) if name in before else None,
            _text(after[name], context.zone) if name in after else None,
        )
        for name in detail.get("changed") or []
    ]


def _value(context: Context, name: str, value: object) -> str:
    """Return a part of a detail as people read it; a filter as its conditions."""
    if isinstance(value, dict):
        return ", ".join(
            f"{context.language.word('field', key)}: {_value(context, key, one)}"
            for key, one in value.items()
        )
    group = _WORDS.get(name)
    if group is not None and isinstance(value, str):
        return ", ".join(context.language.word(group, one) for one in value.split(","))
    return _text(value, context.zone)


def _text(value: object, zone: Zone) -> str:
    """Return a value of a detail as people read it."""
    if value is None or value in ("", [], {}):
        return "\N{EN DASH}"
    if isinstance(value, list):
        return ", ".join(_text(one, zone) for one in value)
    if isinstance(value, str):
        return _local(value, zone) if _TIME.fullmatch(value) else value
    return orjson.dumps(value).decode()


def _local(text: str, zone: Zone) -> str:
    """Return a time in the viewer's zone; a text that only looks like one is returned as it is."""
    try:
        found = moment(text, zone)
    except ValueError:  # a name may be anything
        found = None
    return text if found is None else found.local


def _actions(context: Context) -> list[tuple[str, str]]:
    """Return the actions of the filter with their words, and the one in force if it is another."""
    known = [
        key.removeprefix("action.") for key in context.language.texts if key.startswith("action.")
    ]
    chosen = context.query("action")
    extra = [chosen] if chosen is not None and chosen not in known else []
    return [(one, context.language.word("action", one)) for one in (*known, *extra)]


def _chips(context: Context, names: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return the filters in force, each with the address without it."""
    chips = []
    for name in FIELDS:
        value = context.query(name)
        if value is None:
            continue
        shown = value
        if name == "by":
            shown = actor_name(context.language, value, names)
        elif name == "action":
            shown = context.language.word("action", value)
        elif name == "subject":
            shown = names.get(value, value)
        address = context.address(None, **{name: None, "cursor": None})
        chips.append((context.text(f"activity.{name}"), shown, address))
    return chips


ROUTES: Final = (PageRoute("GET", "/activity", activity),)
