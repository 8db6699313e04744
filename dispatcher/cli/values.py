"""Convert option strings into the API's values; an invalid one is a usage error that names the option."""

import getpass
import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import typer

from dispatcher.cli.output import warn

NONE: Final = "none"
"""Clears a value."""
_SPAN: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def pairs(given: Sequence[str], option: str) -> dict[str, str | list[str]]:
    """Return `k=v` strings as an object; a repeated name has a list."""
    found: dict[str, str | list[str]] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(
                f"{text!r} has no name and value. Give NAME=VALUE.", param_hint=option
            )
        known = found.get(name)
        if known is None:
            found[name] = value
        elif isinstance(known, list):
            known.append(value)
        else:
            found[name] = [known, value]
    return found


def single_pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """Return `k=v` strings as an object of strings.

    Raises:
        typer.BadParameter: one is malformed, or a name is given twice.
    """
    found = pairs(given, option)
    single = {name: value for name, value in found.items() if isinstance(value, str)}
    if len(single) != len(found):
        twice = next(name for name in found if name not in single)
        raise typer.BadParameter(
            f"{twice!r} is given more than once. Give it once.", param_hint=option
        )
    return single


def number(text: str, option: str) -> float | int:
    """Return a number."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a number. Give a number, or none.", param_hint=option
        ) from None


def web_address(text: str, option: str) -> str:
    """Return an http or https URL."""
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise typer.BadParameter(
            f"{text!r} is not a URL. Give one such as http://localhost:3000/hook.",
            param_hint=option,
        )
    return text


def text_or_file(text: str, option: str) -> str:
    """Return the text itself, the file's after `@`, standard input's for `-`; UTF-8, without its BOM."""
    try:
        if text == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        if text == "@":
            raise typer.BadParameter("Name a file after @.", param_hint=option)
        if text.startswith("@"):
            return Path(text[1:]).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise typer.BadParameter(
            f"{text[1:]} cannot be read: {error.strerror}.", param_hint=option
        ) from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{text} is not UTF-8 text.", param_hint=option) from None
    return text


def secret_text(text: str, option: str) -> str:
    """Return a secret: standard input's for `-`, the file's after `@`, the variable's after `env:`, or the text.

    One line break at the end is not part of it. On a terminal `-` prompts without echo. A literal
    secret causes a warning, because every user of the machine can see it in the process list.

    Raises:
        typer.BadParameter: the file or the variable cannot be read.
    """
    if text == "-" and sys.stdin.isatty():
        return getpass.getpass(f"{option}: ")
    found = referenced(text, option)
    if found is None:
        warn(f"{option}: the value is visible in the process list. Use -, @FILE or env:NAME.")
        return text
    return found.removesuffix("\n").removesuffix("\r")


def referenced(text: str, option: str) -> str | None:
    """Return the value that `-`, `@FILE` or `env:NAME` refers to; None if the text is no reference.

    Raises:
        typer.BadParameter: the file or the variable cannot be read.
    """
    if text == "-" or text.startswith("@"):
        return text_or_file(text, option)
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        value = os.environ.get(name)
        if not value:
            raise typer.BadParameter(f"the variable {name} is not set.", param_hint=option)
        return value
    return None


def or_referenced(text: str, option: str) -> str:
    """Return a URL or a header's value, which may be a credential: the referenced value, or the text."""
    found = referenced(text, option)
    return text if found is None else found.removesuffix("\n").removesuffix("\r")


def moment(text: str | None, option: str) -> datetime | None:
    """Return the time of an RFC 3339 string with its zone, or of `15m`, `2h`, `7d` ago."""
    if text is None:
        return None
    span = _span(text)
    return _now() - span if span is not None else _time(text, option, "ago")


def coming_moment(text: str | None, option: str) -> datetime | None:
    """Return the time of an RFC 3339 string with its zone, or of `12h`, `90d` from now."""
    if text is None:
        return None
    span = _span(text)
    return _now() + span if span is not None else _time(text, option, "from now")


def span_seconds(text: str, option: str) -> float:
    """Return the seconds of a duration such as `15m`, `2h`, `7d`."""
    span = _span(text)
    if span is None:
        raise typer.BadParameter(
            f"{text!r} is not a duration. Use 15m, 2h or 7d.", param_hint=option
        )
    return span.total_seconds()


def _span(text: str) -> timedelta | None:
    found = _SPAN.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def _time(text: str, option: str, meaning: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a time. Use 2026-05-29T14:32:11Z, or 15m, 2h, 7d {meaning}.",
            param_hint=option,
        ) from None
    if at.tzinfo is None:
        raise typer.BadParameter(
            f"{text!r} has no zone. Add one, as in 2026-05-29T14:32:11Z or +07:00.",
            param_hint=option,
        )
    return at


def _now() -> datetime:
    from dispatcher.runtime.clock import SystemClock  # noqa: PLC0415 -- only where a time is relative

    return SystemClock.now()


def read_body(body: str) -> bytes:
    """Return the bytes of a captured body: standard input's for `-`, else the file's.

    Raises:
        typer.BadParameter: the file cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"{body} cannot be read: {error.strerror}", param_hint="--body"
        ) from None
