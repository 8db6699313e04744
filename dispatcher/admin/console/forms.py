"""The form of an endpoint: what was typed becomes the fields of the API, and the other way round.

Rules are the operations': here only the form is undone (lines into lists, `30s` into seconds). What
cannot be undone is told beside its field, together with the operations' own findings.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from dispatcher.admin.console.visit import Visit
from dispatcher.admin.operations.objects import Object

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DELAY: Final = re.compile(r"([0-9]{1,8}(?:\.[0-9]{1,6})?)\s*([smhd]?)")
NUMBERS: Final = ("max_concurrency", "rate_limit", "timeout_seconds")
EMPTY: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("name", "url", "other_types", "headers", "labels", "ca_pem", "tenant"), ""),
    **dict.fromkeys(("retry_schedule_seconds", "version", "pause_if_failed", *NUMBERS), ""),
    "event_types": [],
    "profile": "standard",
    "secret_kind": "make",
    "endpoint": None,
}
"""A form that nobody has filled in yet."""


def read_endpoint(visit: Visit, *, creates: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the fields of a form that was sent, and what is wrong with it by field."""
    form, problems = visit.form, {}
    fields: dict[str, Any] = {
        "name": form.get("name", "").strip(),
        "url": form.get("url", "").strip(),
        "event_types": [
            *visit.lists.get("event_types", []),
            *form.get("other_types", "").replace(",", " ").split(),
        ],
        "ca_pem": form.get("ca_pem", "").strip() or None,
    }
    fields["event_types"] = list(dict.fromkeys(fields["event_types"]))
    for name, read in (("headers", _headers), ("labels", _labels)):
        fields[name], wrong = read(form.get(name, ""))
        if wrong is not None:
            problems[name] = visit.text(f"form.{name}_line", line=wrong)
    for name in NUMBERS:
        text = form.get(name, "").strip()
        try:
            number = float(text) if text else None
        except ValueError:
            problems[name] = visit.text("form.number")
            continue
        fields[name] = int(number) if number is not None and number.is_integer() else number
    schedule = form.get("retry_schedule_seconds", "").strip()
    fields["retry_schedule_seconds"], wrong = _schedule(schedule)
    if wrong is not None:
        problems["retry_schedule_seconds"] = visit.text("form.delay", text=wrong)
    if creates:
        fields |= _given_once(form)
    return fields, problems


def _given_once(form: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"profile": form.get("profile", "")}
    if form.get("tenant", "").strip():
        fields["tenant"] = form["tenant"].strip()
    match form.get("secret_kind"):
        case "own":
            fields["secret"] = form.get("secret", "").strip()
        case "none":
            fields["secret"] = None
        case _:
            pass
    return fields


def _headers(text: str) -> tuple[dict[str, str], str | None]:
    found: dict[str, str] = {}
    for line in _lines(text):
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or name.strip() in found:
            return found, line
        found[name.strip()] = value.strip()
    return found, None


def _labels(text: str) -> tuple[dict[str, str | list[str]], str | None]:
    found: dict[str, str | list[str]] = {}
    for line in _lines(text):
        name, sign, value = line.partition("=")
        if not sign or not name.strip() or name.strip() in found:
            return found, line
        values = [one.strip() for one in value.split(",")]
        found[name.strip()] = values[0] if len(values) == 1 else values
    return found, None


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _schedule(text: str) -> tuple[list[float] | None, str | None]:
    """Returns delays; nothing means as the profile says, `none` one attempt alone."""
    if not text:
        return None, None
    if text.lower() == "none":
        return [], None
    delays = []
    for part in text.split(","):
        match = _DELAY.fullmatch(part.strip())
        if match is None:
            return None, part.strip()
        delays.append(float(match[1]) * _UNITS[match[2]])
    return delays, None


def shown_endpoint(endpoint: Object, known_types: Sequence[str]) -> dict[str, Any]:
    """Returns what a form shows of an endpoint that is there."""
    schedule = endpoint["retry_schedule_seconds"]
    return {
        "name": endpoint["name"],
        "url": endpoint["url"],
        "profile": endpoint["profile"],
        "event_types": endpoint["event_types"],
        "other_types": " ".join(one for one in endpoint["event_types"] if one not in known_types),
        "headers": "\n".join(f"{name}: {value}" for name, value in endpoint["headers"].items()),
        "labels": "\n".join(
            f"{name}={value if isinstance(value, str) else ', '.join(value)}"
            for name, value in endpoint["labels"].items()
        ),
        "ca_pem": endpoint["ca_pem"] or "",
        "retry_schedule_seconds": ""
        if schedule is None
        else (", ".join(_delay_text(delay) for delay in schedule) or "none"),
        **{name: _number_text(endpoint[name]) for name in NUMBERS},
    }


def _delay_text(seconds: float) -> str:
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{_number_text(seconds)}s"


def _number_text(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")


def faults_by_field(visit: Visit, problems: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Returns the operations' findings by the form's field; several of one field are joined."""
    found: dict[str, str] = {}
    for name, message in problems:
        field, dot, rest = name.partition(".")
        if not dot:
            field, bracket, index = name.partition("[")
            rest = bracket + index
        text = visit.language.texts.get(f"fault.{message}", message)
        text = f"{rest}: {text}" if rest else text
        found[field] = f"{found[field]}; {text}" if field in found else text
    return found
