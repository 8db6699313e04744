"""Endpoints as code: exported as a declaration, and brought in line with one.

    file ─▶ validate ─▶ compare with the endpoints, by (tenant, name) ─▶ show ─▶ create, update, (delete)

Invariants: a declaration is complete, so an omitted field has its default. All problems are reported
together, and nothing is changed while there are any. Applied twice, the second time changes nothing. It
never contains a secret: it refers to one (`env:NAME`, `file:PATH`), has `unsigned`, or leaves the secret
to the dispatcher. A state (paused, disabled) is not configuration, and is kept. Endpoints that the
declaration does not list are kept, unless it is applied with pruning: then those of its tenants are deleted.

Each endpoint is changed in a transaction of its own: after an interruption, apply the same declaration
again. An endpoint that was changed between comparison and update is rejected, not overwritten.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from dispatcher.admin.operations.context import Actor, Deployment, Role
from dispatcher.admin.operations.credentials import (
    CREDENTIAL_OWNERS,
    ROLES,
    credential_problems,
    given_credentials,
    opened_credentials,
)
from dispatcher.admin.operations.endpoint_rules import (
    also_sign_problems,
    read_new_endpoint,
    secret_problems,
    settings_of,
)
from dispatcher.admin.operations.endpoints import Endpoints
from dispatcher.admin.operations.rotation import Rotation
from dispatcher.admin.resources.declaration import AppliedDeclaration, AppliedEndpoint, FieldChange
from dispatcher.admin.resources.declaration import EndpointAction as Action
from dispatcher.admin.resources.endpoint import DEFAULTS, SETTINGS, Endpoint
from dispatcher.admin.resources.endpoint_requests import (
    DeclaredEndpoint,
    EndpointChange,
    EndpointsQuery,
    NewEndpoint,
)
from dispatcher.admin.resources.fields import TENANT_DEFAULT
from dispatcher.core import secret
from dispatcher.core.errors import InvalidRequestError, SecretError
from dispatcher.core.problems import Problem, problem
from dispatcher.core.profile import Profile
from dispatcher.core.secret import Secret
from dispatcher.store.secrets import load_secrets

UNSIGNED: Final = "unsigned"
PAGE_ROWS: Final = 500
ENDPOINTS_MAX: Final = 20_000

Resolve = Callable[[str], str]
"""Return the secret behind a reference; raises ValueError with what is wrong."""


class ApplyStep(NamedTuple):
    """One endpoint: as it is, as it is to be, and the difference."""

    action: Action
    tenant: str
    name: str
    before: Endpoint | None
    changes: dict[str, FieldChange]
    new: NewEndpoint | None = None
    change: EndpointChange | None = None
    secret: str | None = None
    """A new secret of an existing endpoint; None: it stays as it is."""


class _Stored(NamedTuple):
    """What is stored encrypted of an endpoint."""

    confidential: dict[str, Secret]
    current: str | None
    """The secret that signs now."""


class Configuration:
    """A deployment's endpoints as a declaration."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._endpoints = Endpoints(deployment)
        self._rotation = Rotation(deployment)

    async def export(self, actor: Actor, *, tenant: str | None = None) -> list[DeclaredEndpoint]:
        """Return every endpoint as it would be declared, by tenant and name; defaults are left out.

        Raises:
            ForbiddenError: no admin: headers are shown whole. NotFoundError: not the actor's tenant.
        """
        actor.require(Role.ADMIN)
        found = await self._all(actor, tenant)
        return [_declared(found[key]) for key in sorted(found)]

    async def apply(
        self,
        actor: Actor,
        declared: Sequence[object],
        *,
        resolve: Resolve,
        prune: bool = False,
        dry_run: bool = False,
        problems: Sequence[Problem] = (),
    ) -> AppliedDeclaration:
        """Apply a declaration, or only plan it (`dry_run`).

        `problems` of the declaration's file were found before; they are reported together with those
        found here.

        Raises:
            InvalidRequestError: every fault of the declaration; nothing was changed.
            PreconditionFailedError: an endpoint changed meanwhile; apply again.
            ForbiddenError: no admin.
        """
        actor.require(Role.ADMIN)
        steps = await self.plan(actor, declared, resolve=resolve, prune=prune, problems=problems)
        ids = [None if step.before is None else step.before.id for step in steps]
        warnings: list[str] = []
        if not dry_run:
            for index, step in enumerate(steps):
                ids[index], found = await self._take(actor, step)
                warnings += found
        return AppliedDeclaration(
            dry_run=dry_run,
            items=[
                AppliedEndpoint(
                    action=step.action,
                    tenant=step.tenant,
                    name=step.name,
                    id=endpoint_id,
                    changes=step.changes,
                )
                for step, endpoint_id in zip(steps, ids, strict=True)
            ],
            warnings=warnings,
        )

    async def plan(
        self,
        actor: Actor,
        declared: Sequence[object],
        *,
        resolve: Resolve,
        prune: bool,
        problems: Sequence[Problem] = (),
    ) -> list[ApplyStep]:
        """Return the steps of applying a declaration, in order.

        Raises:
            InvalidRequestError: every fault of the declaration.
        """
        there = await self._all(actor, None)
        problems = list(problems)
        steps: list[ApplyStep] = []
        named: dict[tuple[str, str], str] = {}
        for number, one in enumerate(declared, 1):
            where = f"endpoint {number}"
            if not isinstance(one, dict):
                problems.append(problem(where, "not_an_object"))
                continue
            default = self._deployment.settings.endpoints.default_profile
            fields = {"tenant": actor.tenant or TENANT_DEFAULT, "profile": default, **one}
            where = f"endpoint {number} ({fields.get('name')!r})"
            key = (str(fields["tenant"]), str(fields.get("name")))
            if key in named:
                problems.append(problem(where, "duplicate_endpoint", other=named[key]))
            named.setdefault(key, where)
            step, found = await self._step(actor, fields, there.get(key), resolve)
            problems += [one.at(f"{where}: {one.field}") for one in found]
            if step is not None:
                steps.append(step)
        if problems:
            raise InvalidRequestError(problems)
        tenants = {tenant for tenant, _ in named}
        for tenant, name in sorted(there):
            if tenant in tenants and (tenant, name) not in named:
                action = Action.DELETE if prune else Action.LEFT
                steps.append(ApplyStep(action, tenant, name, there[tenant, name], {}))
        return steps

    async def _step(
        self, actor: Actor, fields: Mapping[str, Any], before: Endpoint | None, resolve: Resolve
    ) -> tuple[ApplyStep | None, list[Problem]]:
        """Validate one declared endpoint as create or update would, and compare it."""
        profile = self._deployment.profiles.get(str(fields["profile"]))
        plain = {field: value for field, value in fields.items() if field != "secret"}
        unresolved: list[Problem] = []
        for field in ROLES:
            if plain.get(field) is not None:
                plain[field], found = _resolved(plain[field], resolve)
                unresolved += [one.at(field) for one in found]
        declared, problems = read_new_endpoint(plain, TENANT_DEFAULT, self._deployment)
        problems += unresolved
        stored = _Stored({}, None) if before is None else await self._stored(before.id)
        if declared is not None and not unresolved:
            problems += _combination_problems(declared, profile, stored.confidential)
        if actor.tenant not in {None, fields["tenant"]}:
            value = fields["tenant"]
            problems.append(problem("tenant", "not_one_of", value=value, allowed=actor.tenant))
        reference = fields.get("secret", "")
        text = None
        if reference not in {"", UNSIGNED}:
            text, found = _resolved(reference, resolve)
            problems += found
            problems += secret_problems(text, profile) if text is not None else []
        elif reference == UNSIGNED:
            problems += secret_problems(None, profile)
        if declared is not None and profile is not None and (reference or before is not None):
            own = stored.current if text is None and reference != UNSIGNED else text
            signing = None if own is None else Secret(own)
            problems += also_sign_problems(declared.also_sign, profile, signing, self._deployment)
        tenant, name = str(fields["tenant"]), str(fields.get("name"))
        if before is None:
            if problems or declared is None:
                return None, problems
            given = {"tenant": tenant, "profile": declared.profile, **settings_of(declared)}
            shown = {
                field: FieldChange({"from": None, "to": _shown(field, value)})
                for field, value in given.items()
            }
            shown |= {
                field: FieldChange({"from": None, "to": fields[field]})
                for field in given_credentials(declared)
            }
            if reference:
                declared = declared.model_copy(update={"secret": text, "key_type": None})
                shown["secret"] = {"from": None, "to": reference}
            return ApplyStep(Action.CREATE, tenant, name, None, shown, new=declared), []
        if before.profile != fields["profile"]:
            problems.append(problem("profile", "profile_fixed", profile=before.profile))
        if reference == UNSIGNED and before.secret is not None:
            problems.append(problem("secret", "unsigned_not_possible"))
        key_type = fields.get("key_type")
        if key_type is not None and (key_type == "ed25519") is (before.public_key is None):
            problems.append(problem("key_type", "secret_rotation_only"))
        if problems or declared is None:
            return None, problems
        wanted = {**DEFAULTS, **settings_of(declared)}
        changed = {f: wanted[f] for f in SETTINGS if wanted[f] != getattr(before, f)}
        shown = {
            field: FieldChange(
                {"from": _shown(field, getattr(before, field)), "to": _shown(field, value)}
            )
            for field, value in changed.items()
        }
        confidential = {
            field: one
            for field, one in given_credentials(declared).items()
            if stored.confidential.get(field) != one
        }
        for field in confidential:
            shown[field] = {"from": getattr(before, field), "to": fields[field]}
        if text is not None and stored.current != text:
            shown["secret"] = {"from": before.secret, "to": reference}
        else:
            text = None
        action = Action.UPDATE if shown else Action.UNCHANGED
        written = changed | {field: one.reveal() for field, one in confidential.items()}
        change = EndpointChange.of(**written) if written else None
        return ApplyStep(action, tenant, name, before, shown, change=change, secret=text), []

    async def _stored(self, endpoint_id: str) -> "_Stored":
        """Return what is stored encrypted of an endpoint; what no key decrypts can only be replaced."""
        async with self._deployment.database.reading() as connection:
            sealed = (await load_secrets(connection, [endpoint_id]))[endpoint_id]
        keyring = self._deployment.keyring
        current = None
        for one in sealed:
            if one.role == "current" and keyring is not None:
                with contextlib.suppress(SecretError):
                    current = keyring.open(one.sealed, owner=endpoint_id, key_id=one.key_id)
        return _Stored(opened_credentials(sealed, endpoint_id, keyring), current)

    async def _take(self, actor: Actor, step: ApplyStep) -> tuple[str | None, list[str]]:
        """Carry out one step; return the endpoint's id and warnings."""
        if step.new is not None:
            made = await self._endpoints.create(actor, step.new)
            return made.id, [f"{step.name}: {warning}" for warning in made.warnings]
        if step.before is None:
            return None, []
        if step.action in {Action.UNCHANGED, Action.LEFT}:
            return step.before.id, []
        endpoint_id, etag = step.before.id, step.before.etag
        if step.action is Action.DELETE:
            await self._endpoints.delete(actor, endpoint_id, if_match=etag)
            return endpoint_id, []
        warnings: list[str] = []
        if step.change is not None:
            updated = await self._endpoints.update(actor, endpoint_id, step.change, if_match=etag)
            warnings = [f"{step.name}: {warning}" for warning in updated.warnings]
        if step.secret is not None:
            profile = self._deployment.profiles[step.before.profile]
            # Where a request has room for one signature the new secret takes over at once: the
            # declaration names it, so its author has given it to the receiver.
            activate = None if profile.several_signatures else True
            await self._rotation.rotate(
                actor, endpoint_id, new_secret=step.secret, activate=activate
            )
        return endpoint_id, warnings

    async def _all(self, actor: Actor, tenant: str | None) -> dict[tuple[str, str], Endpoint]:
        found: dict[tuple[str, str], Endpoint] = {}
        cursor = None
        while len(found) < ENDPOINTS_MAX:
            query = EndpointsQuery(tenant=tenant, limit=PAGE_ROWS, cursor=cursor)
            page = await self._endpoints.page(actor, query)
            found |= {(one.tenant, one.name): one for one in page.items}
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise InvalidRequestError(
            [problem("endpoints", "too_many_endpoints", maximum=ENDPOINTS_MAX)]
        )


def _combination_problems(
    declared: NewEndpoint, profile: Profile | None, stored: Mapping[str, Secret]
) -> list[Problem]:
    """List why declared settings and confidential fields, also stored ones that stay, do not fit together."""
    settings = {**DEFAULTS, **settings_of(declared)}
    stays = {
        field: one
        for field, one in stored.items()
        if settings[CREDENTIAL_OWNERS[field]] is not None
    }
    return credential_problems(settings, profile, stays | given_credentials(declared))


def _resolved(reference: object, resolve: Resolve) -> tuple[str | None, list[Problem]]:
    if not isinstance(reference, str) or not reference.startswith(("env:", "file:")):
        return None, [problem("secret", "secret_reference")]
    try:
        return resolve(reference), []
    except ValueError as error:
        return None, [problem("secret", "secret_unavailable", detail=str(error))]


def _shown(field: str, value: Any) -> Any:  # noqa: ANN401 -- as the field is
    """Return the value for people to see; a header's value is often a credential."""
    return dict.fromkeys(value, secret.MASK) if field == "headers" and value else value


def _declared(endpoint: Endpoint) -> DeclaredEndpoint:
    declared: dict[str, Any] = {
        name: getattr(endpoint, name) for name in ("tenant", "name", "url", "profile")
    }
    for field in SETTINGS:
        if getattr(endpoint, field) != DEFAULTS[field]:
            declared[field] = getattr(endpoint, field)
    if endpoint.secret is None:
        declared["secret"] = UNSIGNED
    if endpoint.public_key is not None:
        declared["key_type"] = "ed25519"
    return DeclaredEndpoint.model_construct(
        **declared
    )  # rows are trusted: they are shown as they are
