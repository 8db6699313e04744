"""Diagnoses what came off the wire, with one or several secrets, by the profiles' own rules."""

from collections.abc import Mapping, Sequence

from dispatcher.core.diagnosis import Finding, Request, diagnose
from dispatcher.core.profile import Profile
from dispatcher.core.secret import Secret
from dispatcher.runtime.clock import SystemClock

VALID = "valid"
_LEAST_SPECIFIC = ("wrong_secret", "body_changed", "secret_malformed", "secret_missing")


def diagnose_secrets(
    request: Request,
    secrets: Sequence[str],
    *,
    profile: Profile,
    profiles: Mapping[str, Profile],
    tolerance_seconds: float,
    computed: str | None = None,
) -> Finding:
    """Return the finding of the secret that explains the request best; one valid secret is enough."""
    findings = [
        diagnose(
            request,
            Secret(secret),
            profile=profile,
            profiles=profiles.values(),
            now=SystemClock.now().timestamp(),
            tolerance_seconds=tolerance_seconds,
            computed=computed,
        )
        for secret in secrets
    ]
    return min(findings, key=_specificity)


def _specificity(finding: Finding) -> int:
    """Return a rank: a valid finding first, then one that names a mistake, then the general ones."""
    if finding.code == VALID:
        return 0
    return 2 + _LEAST_SPECIFIC.index(finding.code) if finding.code in _LEAST_SPECIFIC else 1


def profile_of_headers(
    headers: Mapping[str, object], profiles: Mapping[str, Profile]
) -> str | None:
    """Return the name of the profile whose signature header is there; `headers` by lower-case name."""
    return next(
        (
            name
            for name, profile in profiles.items()
            if profile.signs and profile.signature.header.lower() in headers
        ),
        None,
    )
