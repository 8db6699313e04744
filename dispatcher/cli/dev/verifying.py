"""`dispatcher verify`: checks a captured request offline."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from dispatcher.cli.dev.signatures import SIGNATURE_HEADERS, signed_at, verify_any
from dispatcher.cli.output import fail, say, tell
from dispatcher.runtime.clock import SystemClock
from dispatcher.verify import VerificationError


def verify(
    *,
    profile: str,
    secrets: Sequence[str],
    headers: Sequence[str],
    body: str,
    tolerance: float | None,
) -> None:
    """Prints the verdict and ends with 0 (valid), 1 (not) or 2 (it cannot be told with what was given)."""
    if profile not in SIGNATURE_HEADERS:
        raise typer.BadParameter(
            f"must be one of {', '.join(SIGNATURE_HEADERS)}", param_hint="--profile"
        )
    found: dict[str, str] = {}
    for text in headers:
        name, separator, value = text.partition(":")
        if not separator or not name.strip():
            raise typer.BadParameter(f"give 'Name: value', not {text!r}", param_hint="--header")
        found[name.strip().lower()] = value.strip()
    try:
        content = sys.stdin.buffer.read() if body == "-" else Path(body).read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"{body} cannot be read: {error.strerror}", param_hint="--body"
        ) from None
    now = SystemClock.now().timestamp()
    try:
        verify_any(
            found,
            content,
            secrets,
            profile=profile,
            tolerance=math.inf if tolerance is None else tolerance,
            now=now,
        )
    except VerificationError as error:
        fail(f"not valid ({error.reason}): {error}")
        raise typer.Exit(2 if error.reason == "unusable_secret" else 1) from None
    say("valid")
    at = signed_at(found, profile)
    if at is not None and tolerance is None:
        tell(f"signed {now - at:.0f} s ago; receivers commonly refuse more than 300 s")
