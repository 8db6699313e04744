"""The form of an endpoint: texts that people typed become the fields of the API, and the reverse.

The controls are those of the resource's fields. Rules are the operations': here only the form is undone
(lines into lists, `30s` into seconds). A text that cannot be read is reported at its field, together
with the operations' own problems.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from dispatcher.admin.console.context import Context
from dispatcher.admin.operations.endpoint_rules import ADMIN_SETTINGS
from dispatcher.admin.resources.endpoint import Endpoint
from dispatcher.admin.resources.endpoint_requests import EndpointChange, NewEndpoint
from dispatcher.admin.resources.presentation import Control, ControlKind, Section, metadata_of
from dispatcher.core.problems import Problem

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DELAY: Final = re.compile(r"([0-9]{1,8}(?:\.[0-9]{1,6})?)\s*([smhd]?)")
_CONTROLS: Final = metadata_of(NewEndpoint, Control)
_CHANGEABLE: Final = tuple(metadata_of(EndpointChange, Control))
EMPTY: Final[Mapping[str, Any]] = {
    **dict.fromkeys((*_CONTROLS, "other_types", "version", "pause_if_failed", "unsigned"), ""),
    "event_types": [],
    "endpoint": None,
}
"""An empty form."""


def controls_in(section: str, *, creates: bool, is_admin: bool) -> list[tuple[str, Control]]:
    """Return the controls of a part of the form, with their fields.

    Some exist only in a new form, and some for admins only.
    """
    return [
        (name, control)
        for name, control in _CONTROLS.items()
        if control.section == Section(section)
        and control.kind is not ControlKind.OWN
        and (creates or name in _CHANGEABLE)
        and (is_admin or name not in ADMIN_SETTINGS)
        and (is_admin or name != "tenant")
    ]


def read_endpoint(context: Context, *, creates: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a form that was sent, and its problems by field."""
    form, problems = context.form, {}
    fields: dict[str, Any] = {}
    for name in _CHANGEABLE:
        kind = _CONTROLS[name].kind
        if name in ADMIN_SETTINGS and not context.may("admin"):
            continue
        # A list of choices has no empty one: a form that was sent without it leaves the field as it is.
        if kind is ControlKind.OWN or (
            kind in {ControlKind.SECRET, ControlKind.CHOICE} and not form.get(name, "").strip()
        ):
            continue
        try:
            fields[name] = _READERS[kind](form.get(name, "").strip())
        except UnreadableError as error:
            problems[name] = context.text(error.key.format(name=name), **error.values)
    types = [
        *context.lists.get("event_types", []),
        *form.get("other_types", "").replace(",", " ").split(),
    ]
    fields["delivery"] = "pull" if form.get("delivery") == "pull" else "push"
    fields["event_types"] = list(dict.fromkeys(types))
    if creates:
        try:
            fields |= _given_once(form)
        except UnreadableError as error:
            problems["secret"] = context.text(error.key)
    return fields, problems


class UnreadableError(ValueError):
    """A text that a control cannot read; `key` is that of the message, with `{name}` for the field."""

    def __init__(self, key: str, **values: str) -> None:
        self.key, self.values = key, values
        super().__init__(key)


def _given_once(form: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"profile": form.get("profile", "")}
    if form.get("tenant", "").strip():
        fields["tenant"] = form["tenant"].strip()
    secret = form.get("secret", "").strip()
    if secret and form.get("unsigned"):
        raise UnreadableError("form.secret_and_unsigned")
    if form.get("key_type"):
        fields["key_type"] = form["key_type"]
    if secret:
        fields["secret"] = secret
    elif form.get("unsigned"):
        fields["secret"] = None
    return fields


def _headers(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in _lines(text):
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or name.strip() in headers:
            raise UnreadableError("form.{name}_line", line=line)
        headers[name.strip()] = value.strip()
    return headers


def _labels(text: str) -> dict[str, str | list[str]]:
    labels: dict[str, str | list[str]] = {}
    for line in _lines(text):
        name, sign, value = line.partition("=")
        if not sign or not name.strip() or name.strip() in labels:
            raise UnreadableError("form.{name}_line", line=line)
        values = [one.strip() for one in value.split(",")]
        labels[name.strip()] = values[0] if len(values) == 1 else values
    return labels


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _number(text: str) -> float | int | None:
    try:
        number = float(text) if text else None
    except ValueError:
        raise UnreadableError("form.number") from None
    return int(number) if number is not None and number.is_integer() else number


def _schedule(text: str) -> list[float] | None:
    """Return delays; an empty text is the profile's schedule, `none` a single attempt."""
    if not text:
        return None
    if text.lower() == "none":
        return []
    delays = []
    for part in text.split(","):
        match = _DELAY.fullmatch(part.strip())
        if match is None:
            raise UnreadableError("form.delay", text=part.strip())
        delays.append(float(match[1]) * _UNITS[match[2]])
    return delays


def _text(text: str) -> str:
    return text


_READERS: Final[Mapping[ControlKind, Callable[[str], Any]]] = {
    ControlKind.LINE: _text,
    ControlKind.URL: _text,
    ControlKind.PEM: lambda text: text or None,
    ControlKind.EXPRESSION: lambda text: text or None,
    ControlKind.CHOICE: _text,
    ControlKind.WORDS: lambda text: text.replace(",", " ").split(),
    ControlKind.LINES: _lines,
    ControlKind.OPTIONAL: lambda text: text or None,
    ControlKind.SECRET: _text,
    ControlKind.NUMBER: _number,
    ControlKind.WHOLE: _number,
    ControlKind.DELAYS: _schedule,
    ControlKind.HEADERS: _headers,
    ControlKind.LABELS: _labels,
}


def shown_endpoint(endpoint: Endpoint, known_types: Sequence[str]) -> dict[str, Any]:
    """Return what the form shows of an existing endpoint."""
    types = endpoint.event_types
    return {
        **dict.fromkeys(_CHANGEABLE, ""),
        "profile": endpoint.profile,
        "delivery": endpoint.delivery,
        "event_types": types,
        "other_types": " ".join(one for one in types if one not in known_types),
        **{
            name: _WRITERS[_CONTROLS[name].kind](getattr(endpoint, name))
            for name in _CHANGEABLE
            if _CONTROLS[name].kind not in {ControlKind.OWN, ControlKind.SECRET}
        },
    }


def _labels_text(labels: Mapping[str, str | list[str]]) -> str:
    return "\n".join(
        f"{name}={value if isinstance(value, str) else ', '.join(value)}"
        for name, value in labels.items()
    )


def _schedule_text(delays: Sequence[float] | None) -> str:
    if delays is None:
        return ""
    return ", ".join(_delay_text(delay) for delay in delays) or "none"


def _delay_text(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{_number_text(seconds)}s"


def _number_text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


_WRITERS: Final[Mapping[ControlKind, Callable[[Any], str]]] = {
    ControlKind.LINE: _text,
    ControlKind.URL: _text,
    ControlKind.PEM: lambda text: text or "",
    ControlKind.EXPRESSION: lambda text: text or "",
    ControlKind.CHOICE: _text,
    ControlKind.WORDS: " ".join,
    ControlKind.LINES: "\n".join,
    ControlKind.OPTIONAL: lambda text: text or "",
    ControlKind.NUMBER: _number_text,
    ControlKind.WHOLE: _number_text,
    ControlKind.DELAYS: _schedule_text,
    ControlKind.HEADERS: lambda headers: "\n".join(f"{n}: {v}" for n, v in headers.items()),
    ControlKind.LABELS: _labels_text,
}


def problems_by_field(context: Context, problems: Sequence[Problem]) -> dict[str, str]:
    """Return the operations' problems by the form's field; several of one field are joined."""
    texts: dict[str, str] = {}
    for problem in problems:
        field, dot, rest = problem.field.partition(".")
        if not dot:
            field, bracket, index = problem.field.partition("[")
            rest = bracket + index
        text = context.problem_text(problem)
        text = f"{rest}: {text}" if rest else text
        texts[field] = f"{texts[field]}; {text}" if field in texts else text
    return texts
