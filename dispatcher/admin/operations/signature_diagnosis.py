"""Names the mistake of a receiver that rejects the signature of a delivery.

The receiver's secret comes with the request, is compared and discarded: it is neither stored, logged nor returned, and
no finding contains a part of it. Where the caller has no captured headers or body, those that the dispatcher signs
for this attempt take their place, so that a secret alone suffices. The secrets of the same tenant serve to recognise
a replaced, staged or foreign one. A search computes some hundred HMACs, so it runs in a thread, one at a time.
"""

import asyncio
import math
import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.delivery_report import chosen_attempt, made_head
from dispatcher.admin.resources.signature_diagnosis import CapturedRequest, SignatureFinding
from dispatcher.core.diagnosis import Finding, KnownSecret, Request, diagnose
from dispatcher.core.errors import (
    ConfigurationError,
    ConflictError,
    EncodingError,
    InvalidRequestError,
    NotFoundError,
    SecretError,
)
from dispatcher.core.problems import problem
from dispatcher.core.profile import Profile
from dispatcher.core.secret import Secret
from dispatcher.store import endpoints as store
from dispatcher.store.attempts import load_attempts
from dispatcher.store.bodies import load_body
from dispatcher.store.delivery_details import find_delivery
from dispatcher.store.secrets import OtherSecret, SealedSecret, load_other_secrets, load_secrets

_REQUEST_LINE: Final = re.compile(r"[A-Z]{3,7} \S+( HTTP/[0-9.]+)?")
OTHER_SECRETS_MAX: Final = 1_000
"""Secrets of other endpoints that are compared; each is decrypted first, which takes some microseconds."""


class Diagnosis(NamedTuple):
    """A finding, with the values of its sentences for translations."""

    finding: Finding
    attempt_number: int | None
    signature_header: str


class SignatureDiagnosis:
    """Diagnoses the signatures of a deployment's deliveries."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database
        self._running = asyncio.Lock()

    async def diagnose(
        self, actor: Actor, delivery_id: str, captured: CapturedRequest
    ) -> SignatureFinding:
        """Return the finding in English.

        Raises:
            NotFoundError: there is no such delivery or attempt. ConflictError: its request carries no signature, or
            cannot be made again. InvalidRequestError: a header is no `Name: value`.
        """
        found = await self.find(actor, delivery_id, captured)
        return SignatureFinding(
            code=found.finding.code,
            message=found.finding.message,
            fix=found.finding.fix,
            attempt_number=found.attempt_number,
            signature_header=found.signature_header,
        )

    async def find(self, actor: Actor, delivery_id: str, captured: CapturedRequest) -> Diagnosis:
        """Return the finding with its values; raises what `diagnose` raises."""
        actor.require(Role.OPERATOR)
        headers = None if captured.headers is None else _read_headers(captured.headers)
        async with self._database.reading() as connection:
            row = await find_delivery(connection, delivery_id, actor.tenant)
            if row is None:
                raise NotFoundError(problem("id", "delivery_not_found", value=delivery_id))
            endpoint = await store.find_endpoint(connection, row.endpoint_id, actor.tenant)
            if endpoint is None:
                raise ConflictError(problem("id", "endpoint_deleted"))
            attempts = await load_attempts(connection, row)
            sent_body = await load_body(connection, row)
            sealed = (await load_secrets(connection, [row.endpoint_id]))[row.endpoint_id]
            others = await load_other_secrets(
                connection, row.tenant, row.endpoint_id, OTHER_SECRETS_MAX
            )
        profile = self._deployment.profiles.get(row.profile)
        if profile is None:
            raise ConflictError(problem("profile", "profile_not_configured", profile=row.profile))
        if not profile.signs:
            raise ConflictError(
                problem("profile", "profile_without_signature", profile=row.profile)
            )
        attempt = chosen_attempt(attempts, captured.attempt_number)
        body = sent_body if captured.body is None else captured.body.encode("utf-8", "replace")
        if body is None:
            raise ConflictError(problem("body", "event_erased"))
        if headers is None:
            if attempt is None or sent_body is None:
                raise ConflictError(problem("headers", "no_request_to_diagnose"))
            try:
                head = made_head(
                    self._deployment, endpoint, profile, sealed, row, attempt, sent_body
                )
            except (ConfigurationError, EncodingError, InvalidRequestError) as error:
                detail = str(error)
                raise ConflictError(problem("id", "endpoint_unusable", detail=detail)) from error
            headers = _by_name(head)
        request = Request(headers, body)
        secret, known = Secret(captured.secret), self._known(row.endpoint_id, sealed, others)
        async with self._running:
            finding = await asyncio.to_thread(
                self._search, request, secret, profile, known, sent_body, captured.computed or None
            )
        number = None if attempt is None else attempt.attempt_number
        return Diagnosis(finding, number, profile.signature.header)

    def _search(
        self,
        request: Request,
        secret: Secret,
        profile: Profile,
        known: Sequence[KnownSecret],
        sent_body: bytes | None,
        computed: str | None,
    ) -> Finding:
        return diagnose(
            request,
            secret,
            profile=profile,
            profiles=[one for one in self._deployment.profiles.values() if one.signs],
            now=self._deployment.clock.now().timestamp(),
            # A captured request is old whenever a person looks at it.
            tolerance_seconds=math.inf,
            computed=computed,
            known_secrets=known,
            sent_body=sent_body,
        )

    def _known(
        self, endpoint_id: str, sealed: Sequence[SealedSecret], others: Sequence[OtherSecret]
    ) -> list[KnownSecret]:
        """Return the secrets that a receiver may have by mistake; those that do not open are left out."""
        keyring, found = self._deployment.keyring, list[KnownSecret]()
        if keyring is None:
            return found
        for one in sealed:
            if one.role in {"previous", "staged"}:
                kind: Literal["previous", "staged"] = (
                    "staged" if one.role == "staged" else "previous"
                )
                try:
                    text = keyring.open(one.sealed, owner=endpoint_id, key_id=one.key_id)
                except SecretError:
                    continue
                found.append(KnownSecret(kind, Secret(text)))
        for other in others:
            try:
                text = keyring.open(other.sealed, owner=other.endpoint_id, key_id=other.key_id)
            except SecretError:
                continue
            found.append(KnownSecret("other_endpoint", Secret(text), other.endpoint_name))
        return found


def _read_headers(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return headers by lower-case name; a request line and empty lines are skipped."""
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(lines):
        name, colon, value = line.partition(":")
        if not line.strip() or _REQUEST_LINE.fullmatch(line.strip()):
            continue
        if not colon or not name.strip():
            raise InvalidRequestError([problem(f"headers[{number}]", "not_a_header")])
        pairs.append((name, value))
    return _by_name(pairs)


def _by_name(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name.strip().lower(), []).append(value.strip())
    return found
