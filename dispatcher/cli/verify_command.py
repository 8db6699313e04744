"""`dispatcher verify`: verify a captured request offline and name the mistake."""

import math
from collections.abc import Sequence
from pathlib import Path

import typer

from dispatcher.cli.output import fail, say, tell
from dispatcher.cli.values import read_body
from dispatcher.config.profiles import load_profiles
from dispatcher.config.settings import Settings
from dispatcher.core.diagnosis import Request
from dispatcher.core.errors import ConfigurationError
from dispatcher.core.profile import Profile
from dispatcher.dev.diagnosing import VALID, diagnose_secrets

_UNUSABLE = frozenset({"secret_missing", "secret_malformed"})
"""Nothing can be verified with what was given: a usage error."""


def verify(
    *,
    config: Path | None,
    profile: str,
    secrets: Sequence[str],
    headers: Sequence[str],
    body: str,
    tolerance: float | None,
    computed: str | None,
) -> None:
    """Print the finding and exit with 0 (valid), 1 (not valid) or 2 (not decidable)."""
    profiles = _load_profiles(config)
    if profile not in profiles:
        raise typer.BadParameter(
            f"must be one of {', '.join(sorted(profiles))}", param_hint="--profile"
        )
    request = Request(_parse_headers(headers), read_body(body))
    finding = diagnose_secrets(
        request,
        secrets,
        profile=profiles[profile],
        profiles=profiles,
        tolerance_seconds=math.inf if tolerance is None else tolerance,
        computed=computed,
    )
    if finding.code != VALID:
        fail(f"not valid ({finding.code}): {finding.message}")
        tell(finding.fix)
        raise typer.Exit(2 if finding.code in _UNUSABLE else 1)
    say(VALID)
    if computed is None:
        tell(finding.fix)


def _load_profiles(config: Path | None) -> dict[str, Profile]:
    """Return the profiles that sign: shipped, and next to the configuration file, which is not read."""
    try:
        loaded = load_profiles(Settings(config_path=config).directories_for("profiles")).profiles
    except ConfigurationError as error:
        raise typer.BadParameter("; ".join(error.problems), param_hint="--config") from None
    return {name: profile for name, profile in loaded.items() if profile.signs}


def _parse_headers(texts: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        name, separator, value = text.partition(":")
        if not separator or not name.strip():
            raise typer.BadParameter(f"give 'Name: value', not {text!r}", param_hint="--header")
        found.setdefault(name.strip().lower(), []).append(value.strip())
    return found
