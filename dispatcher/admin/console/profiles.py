"""What a profile means, as facts that a page can put into words: formats, limits, retries, secrets."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from dispatcher.admin.console.verification_code import public_key_code, verification_code
from dispatcher.core.profile import Profile

_FIRST: Final = ("wms", "humansoft", "standard")


class ProfileFacts(NamedTuple):
    """A profile for people."""

    name: str
    body: tuple[str, ...]
    """The names of the body's members; none: the event's data alone."""
    headers: tuple[str, ...]
    signed: tuple[str, ...]
    """The parts of the signed text, joined by full stops."""
    encoding: str
    attempts: int
    delays: Sequence[float]
    jitter: bool
    timeout_seconds: float
    https_only: bool
    gone_disables: bool
    secret_prefix: str
    several_signatures: bool
    has_public_keys: bool


def in_order(profiles: Mapping[str, Profile]) -> list[Profile]:
    """Return the profiles as they are offered: the usual ones first, the others by name."""
    first = [profiles[name] for name in _FIRST if name in profiles]
    return first + [one for name, one in sorted(profiles.items()) if name not in _FIRST]


def facts(profile: Profile) -> ProfileFacts:
    """Return what a profile means."""
    return ProfileFacts(
        name=profile.name,
        body=tuple(field.name for field in profile.fields),
        headers=tuple(
            name
            for name in (*(field.name for field in profile.headers), profile.signature.header)
            if name
        ),
        signed=tuple(str(part) for part in profile.signature.content),
        encoding=str(profile.signature.encoding),
        attempts=len(profile.retry_schedule_seconds) + 1,
        delays=profile.retry_schedule_seconds,
        jitter=profile.jitter is not None,
        timeout_seconds=profile.timeout_seconds,
        https_only=profile.https_only,
        gone_disables=profile.gone_disables,
        secret_prefix=profile.secret.prefix,
        several_signatures=profile.several_signatures,
        has_public_keys=profile.ed25519 is not None,
    )


def code_of(profile: Profile | None, public_key: str | None = None) -> Mapping[str, str]:
    """Return the code that verifies a profile's signatures, by language; empty where there is none.

    With a public key it is the code for ed25519.
    """
    if profile is None:
        return {}
    return verification_code(profile) if public_key is None else public_key_code(profile)


def also_codes(
    profiles: Mapping[str, Profile], names: Sequence[str], public_key: str | None
) -> list[tuple[Mapping[str, str], ProfileFacts]]:
    """Return the code and the facts of each profile that also signs; one whose file is missing is left out."""
    found = [profiles[name] for name in names if name in profiles]
    return [(code_of(one, public_key), facts(one)) for one in found]
