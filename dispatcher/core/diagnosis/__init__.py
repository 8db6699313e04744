"""Names the mistake behind a signature that does not verify.

A receiver's developer has a captured request, the secret that the receiver uses and, at best, the
signature that the receiver's code computed. Two searches follow from that:

    request ──▶ which secret and which body, each changed in one known way, give its signature?
    computed ─▶ which key, content, hash and encoding, each wrong in one known way, give that value?

Invariants: a finding never contains a secret or a part of one; every mistake has a code and a
message of its own; the search is bounded (some hundred HMACs of the body at most). The module does
no I/O and reads no clock. It diagnoses; only a `valid` finding means that the request is authentic.
"""

from collections.abc import Iterable, Sequence

from dispatcher.core.diagnosis.computed import check_computed
from dispatcher.core.diagnosis.mistakes import Failed, Finding, failure, finding_for
from dispatcher.core.diagnosis.request import KnownSecret, explain_request, read_request
from dispatcher.core.diagnosis.signed import Request, is_signed, keys_of
from dispatcher.core.diagnosis.texts import WHITESPACE
from dispatcher.core.profile import Profile, SignedPart
from dispatcher.core.secret import Secret

__all__ = ["Finding", "KnownSecret", "Request", "diagnose"]

TOLERANCE_SECONDS = 300.0
"""How old a signed request may be. Source: Standard Webhooks 1.0 and the Humansoft document."""


def diagnose(
    request: Request,
    secret: Secret,
    *,
    profile: Profile,
    profiles: Iterable[Profile],
    now: float,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    computed: str | None = None,
    known_secrets: Sequence[KnownSecret] = (),
    sent_body: bytes | None = None,
) -> Finding:
    """Return the one finding that explains the request best.

    `profile` is the endpoint's, `profiles` all that are loaded. `now` is in seconds since 1970.
    `computed` is the value that the receiver's code compared with the header. `sent_body` is the
    body that the dispatcher sent, where the caller has it.
    """
    others = [other for other in profiles if other.name != profile.name]
    try:
        context, received = read_request(request, profile, others)
        if not secret.reveal().strip(WHITESPACE):
            return finding_for("secret_missing")
        if not is_signed(received, keys_of(secret, profile), context, request.body, profile):
            explain_request(
                request, secret, profile, others, context, received, known_secrets, sent_body
            )
        _check_age(context.timestamp, profile, now, tolerance_seconds)
        if computed is not None:
            check_computed(computed, secret, profile, context, request.body, received)
    except Failed as failed:
        return failed.finding
    return finding_for("valid")


def _check_age(timestamp: str, profile: Profile, now: float, tolerance_seconds: float) -> None:
    if SignedPart.TIMESTAMP not in profile.signature.content:
        return
    age = now - int(timestamp)
    if age > tolerance_seconds:
        raise failure("timestamp_too_old", seconds=round(age), tolerance=round(tolerance_seconds))
    if age < -tolerance_seconds:
        raise failure(
            "timestamp_in_future", seconds=round(-age), tolerance=round(tolerance_seconds)
        )
