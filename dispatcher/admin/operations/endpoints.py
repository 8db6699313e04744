"""Endpoints: created, changed, paused, resumed, deleted.

`endpoint_reader.py` lists and shows them. The secrets of an endpoint are in `rotation.py`. Any change of a
row moves the routing version (a trigger does), by which every dispatcher learns of it before its next fan-out.
"""

import contextlib
import dataclasses
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from dispatcher.admin.operations.changes import change_detail
from dispatcher.admin.operations.context import Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.credentials import (
    change_credentials,
    credential_problems,
    credential_warnings,
    given_credentials,
    store_credentials,
)
from dispatcher.admin.operations.endpoint_reader import EndpointReader
from dispatcher.admin.operations.endpoint_rules import (
    also_sign_problems,
    event_types_warnings,
    header_problems,
    read_change,
    read_new_endpoint,
    require_limits,
    settings_of,
    with_pull_url,
    with_secret_of_url,
)
from dispatcher.admin.operations.endpoint_view import opened_secret
from dispatcher.admin.resources.endpoint import (
    DEFAULTS,
    SETTINGS,
    ChangedEndpoint,
    Endpoint,
    etag_of,
)
from dispatcher.admin.resources.endpoint_requests import EndpointChange, NewEndpoint
from dispatcher.admin.resources.fields import TENANT_DEFAULT
from dispatcher.admin.resources.serialization import (
    time_text,
)
from dispatcher.core import ids, secret
from dispatcher.core.errors import (
    ConflictError,
    InvalidRequestError,
    PreconditionFailedError,
    StoreUnavailableError,
)
from dispatcher.core.limits import SHARDS_COUNT
from dispatcher.core.model import EndpointId, EndpointState, Reason
from dispatcher.core.problems import problem
from dispatcher.core.sealing import NONCE_BYTES, Keyring
from dispatcher.core.secret import Secret
from dispatcher.core.url import masked_url
from dispatcher.store import endpoints as store
from dispatcher.store.audit import write_audit
from dispatcher.store.deliveries import Deliveries
from dispatcher.store.endpoint_counts import DeliveryCounts, count_deliveries
from dispatcher.store.endpoints import EndpointDetail
from dispatcher.store.secrets import SealedSecret, insert_secret, load_secrets

if TYPE_CHECKING:
    from dispatcher.store.pool import Reach

CANCELLED_AT_ONCE_MAX: Final = 1000
"""Waiting deliveries of a deleted endpoint that end with it; a dispatcher's upkeep ends the rest."""


class Endpoints(EndpointReader):
    """The endpoints of a deployment, with their changes."""

    def read_new(self, actor: Actor, fields: Mapping[str, object]) -> NewEndpoint:
        """Return a new endpoint from the members of a body, a form or a command.

        Raises:
            InvalidRequestError: every problem, also of the rules of the profile and the settings.
        """
        fields = with_secret_of_url(with_pull_url(fields), self._deployment)
        new, problems = read_new_endpoint(fields, actor.tenant or TENANT_DEFAULT, self._deployment)
        if new is not None:
            profile = self._deployment.profiles[new.profile]
            settings = {**DEFAULTS, **settings_of(new)}
            problems = credential_problems(settings, profile, given_credentials(new))
        if new is None or problems:
            raise InvalidRequestError(problems)
        return new

    async def create(self, actor: Actor, endpoint: NewEndpoint) -> ChangedEndpoint:
        """Create an endpoint and return it with its whole secret.

        An omitted `secret` is generated; null creates an unsigned endpoint.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: every fault. ConflictError: the name is
            in use in its tenant.
        """
        actor.require(Role.MANAGER)
        keyring = self._deployment.keys()
        new = self.read_new(actor, endpoint.given())
        tenant, profile = new.tenant, self._deployment.profiles[new.profile]
        allowed_tenant(actor, tenant)
        chosen = None if new.secret is None else Secret(new.secret)
        if "secret" not in new.model_fields_set:
            if profile.secret_is_given:
                raise InvalidRequestError(
                    [problem("secret", "secret_issued", profile=profile.name)]
                )
            chosen = secret.generate(
                profile, secrets.token_bytes, ed25519=new.key_type == "ed25519"
            )
            problems = also_sign_problems(new.also_sign, profile, chosen, self._deployment)
            if problems:
                raise InvalidRequestError(problems)
        endpoint_id = new_endpoint_id(self._deployment)
        row = {**DEFAULTS, **settings_of(new)}
        require_limits(actor, DEFAULTS, row)
        async with self._deployment.encrypting() as connection:
            await store.insert_endpoint(
                connection,
                [endpoint_id, tenant, profile.name, shard_of(endpoint_id), *stored_in_order(row)],
                new.name,
            )
            await self._require_room(connection, tenant)
            if chosen is not None:
                await insert_secret(
                    connection, endpoint_id, "current", *seal(keyring, chosen, endpoint_id)
                )
            await store_credentials(
                connection,
                keyring,
                endpoint_id,
                row,
                given_credentials(new),
                secrets.token_bytes(NONCE_BYTES),
            )
            detail = {"name": new.name, "profile": profile.name, "url": masked_url(new.url)}
            await write_audit(
                connection, actor.name, tenant, "endpoint.create", endpoint_id, detail
            )
            made = await store.load_endpoint(connection, endpoint_id, None)
            sealed = await load_secrets(connection, [endpoint_id])
        return self._changed(
            made,
            sealed[endpoint_id],
            DeliveryCounts(),
            actor,
            warnings=[
                *event_types_warnings(made.event_types, self._deployment),
                *credential_warnings(row, self._deployment.clock.now()),
            ],
            secret=None
            if chosen is None
            else secret.mask(chosen)
            if new.key_type == "ed25519"
            else chosen.reveal(),
        )

    async def _require_room(self, connection: "Reach", tenant: str) -> None:
        """Return if the endpoint that was just inserted is within its tenant's limit.

        Raises:
            ConflictError: it is not; the caller's transaction ends without it.
        """
        limit = self._deployment.settings.limits.endpoints_per_tenant
        if await store.count_endpoints(connection, tenant, limit + 1) > limit:
            raise ConflictError(
                problem("tenant", "too_many_endpoints_of_tenant", tenant=tenant, maximum=limit)
            )

    async def read_change(
        self, actor: Actor, endpoint_id: str, fields: Mapping[str, object]
    ) -> EndpointChange:
        """Return a change of an endpoint from the members of a body, a form or a command.

        Raises:
            InvalidRequestError: every problem, also of the rules of the profile and the settings.
            NotFoundError: no such endpoint. ConflictError: another profile or tenant was given, which
            never change.
        """
        async with self._database.reading() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant)
        change = self._change(row, fields)
        for field, present in (("profile", row.profile), ("tenant", row.tenant)):
            if fields.get(field, present) != present:
                raise ConflictError(problem(field, "fixed_field", name=field))
        return change

    def _change(self, row: EndpointDetail, fields: Mapping[str, object]) -> EndpointChange:
        profile = self._deployment.profiles.get(row.profile)
        change, problems = read_change(fields, profile, self._deployment)
        if change is None:
            raise InvalidRequestError(problems)
        return change

    async def update(
        self,
        actor: Actor,
        endpoint_id: str,
        change: EndpointChange,
        *,
        if_match: str | None = None,
    ) -> ChangedEndpoint:
        """Change the given fields and return the endpoint.

        `if_match` is the `etag` of the endpoint that the change was made from; None: any.

        Raises:
            ForbiddenError: no admin. InvalidRequestError: every problem. NotFoundError: no such
            endpoint. ConflictError: the name is in use. PreconditionFailedError: it has changed
            since.
        """
        actor.require(Role.MANAGER)
        begin = (
            self._deployment.encrypting if given_credentials(change) else self._database.transaction
        )
        async with begin() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True)
            _require_version(row, if_match)
            change = self._change(row, change.given())
            before = {field: getattr(row, field) for field in SETTINGS}
            after = before | settings_of(change)
            changed = [field for field in SETTINGS if after[field] != before[field]]
            require_limits(actor, before, after)
            given = given_credentials(change)
            await change_credentials(connection, self._deployment, row, after, given, changed)
            changed += sorted(given)
            if changed:
                await self._require_signable(connection, row, after)
                await store.update_endpoint(
                    connection,
                    [endpoint_id, *stored_in_order(after)],
                    after["name"],
                )
                if "ordering" in changed:
                    await store.request_reload(connection, endpoint_id, actor.name)
                await write_audit(
                    connection,
                    actor.name,
                    row.tenant,
                    "endpoint.update",
                    endpoint_id,
                    change_detail(changed, before, after),
                )
            row = await store.load_endpoint(connection, endpoint_id, None)
            sealed = await load_secrets(connection, [endpoint_id])
            counts = await count_deliveries(connection, [endpoint_id])
        warnings = (
            event_types_warnings(row.event_types, self._deployment)
            if "event_types" in changed
            else []
        )
        if "client_certificate" in changed:
            warnings += credential_warnings(after, self._deployment.clock.now())
        return self._changed(
            row, sealed[endpoint_id], counts[endpoint_id], actor, warnings=warnings
        )

    async def _require_signable(
        self, connection: "Reach", row: EndpointDetail, after: Mapping[str, Any]
    ) -> None:
        """Return if the profiles of `also_sign` can sign requests with these settings.

        Raises:
            InvalidRequestError: they cannot: a header or the secret does not fit.
        """
        profile = self._deployment.profiles.get(row.profile)
        if not after["also_sign"] or profile is None:
            return
        problems = header_problems(after, profile, self._deployment)
        if after["also_sign"] != row.also_sign:
            sealed = (await load_secrets(connection, [row.id]))[row.id]
            signing = [one for one in sealed if one.role in {"current", "previous"}]
            opened = [opened_secret(one, row.id, self._deployment.keyring) for one in signing]
            for own in [one for one in opened if one is not None] if signing else [None]:
                problems += also_sign_problems(after["also_sign"], profile, own, self._deployment)
        if problems:
            raise InvalidRequestError(problems)

    async def pause(self, actor: Actor, endpoint_id: str) -> Endpoint:
        """Hold an endpoint's deliveries until it is resumed; a paused endpoint is not changed.

        Raises:
            NotFoundError: no such endpoint. ConflictError: it is disabled.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True)
            if row.state == EndpointState.DISABLED:
                raise ConflictError(problem("state", "endpoint_disabled"))
            if await store.pause_endpoint(connection, endpoint_id):
                await write_audit(
                    connection, actor.name, row.tenant, "endpoint.pause", endpoint_id, {}
                )
        return await self.show(actor, endpoint_id)

    async def resume(self, actor: Actor, endpoint_id: str) -> Endpoint:
        """Activate a paused or disabled endpoint; its waiting deliveries are sent, oldest first.

        Raises:
            NotFoundError: no such endpoint.
        """
        actor.require(Role.OPERATOR)
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True)
            if await store.resume_endpoint(connection, endpoint_id):
                detail = {"was": row.state, "reason": row.reason}
                await write_audit(
                    connection, actor.name, row.tenant, "endpoint.resume", endpoint_id, detail
                )
        return await self.show(actor, endpoint_id)

    async def delete(self, actor: Actor, endpoint_id: str, *, if_match: str | None = None) -> None:
        """Delete an endpoint and its secrets, and cancel its waiting deliveries; its history is kept.

        Raises:
            NotFoundError: no such endpoint. PreconditionFailedError: it has changed since
            `if_match`.
        """
        actor.require(Role.MANAGER)
        async with self._database.transaction() as connection:
            row = await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True)
            _require_version(row, if_match)
            await store.delete_endpoint(connection, endpoint_id)
            await write_audit(
                connection,
                actor.name,
                row.tenant,
                "endpoint.delete",
                endpoint_id,
                {"name": row.name},
            )
        # The endpoint is deleted: whatever is not cancelled here is left to upkeep.
        with contextlib.suppress(StoreUnavailableError):
            await Deliveries(self._database).cancel_of_endpoints(
                [(EndpointId(endpoint_id), Reason.ENDPOINT_DELETED)], CANCELLED_AT_ONCE_MAX
            )

    def _changed(
        self,
        row: EndpointDetail,
        sealed: Sequence[SealedSecret],
        counts: DeliveryCounts,
        actor: Actor,
        *,
        warnings: list[str],
        **changes: Any,  # noqa: ANN401 -- fields of an endpoint
    ) -> ChangedEndpoint:
        endpoint = self._shown(row, sealed, counts, actor)
        values = {one.name: getattr(endpoint, one.name) for one in dataclasses.fields(endpoint)}
        return ChangedEndpoint(**{**values, **changes}, warnings=warnings)


def seal(keyring: Keyring, chosen: Secret, endpoint_id: str) -> tuple[str, bytes]:
    """Return the key's id and the encrypted secret."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return keyring.sealing_key_id, keyring.seal(chosen.reveal(), owner=endpoint_id, nonce=nonce)


def _require_version(row: EndpointDetail, if_match: str | None) -> None:
    present = etag_of(time_text(row.updated_at))
    if if_match is not None and if_match != present:
        raise PreconditionFailedError(problem("If-Match", "version_changed", version=present))


def new_endpoint_id(deployment: Deployment) -> str:
    """Return a new endpoint id."""
    unix_ms = int(deployment.clock.now().timestamp() * 1000)
    return ids.new_id(ids.ENDPOINT_PREFIX, unix_ms, secrets.token_bytes(ids.RANDOMNESS_BYTES))


def shard_of(endpoint_id: str) -> int:
    """Return the shard of an endpoint: the same in every process and version."""
    return int.from_bytes(hashlib.sha256(endpoint_id.encode()).digest()[:8], "big") % SHARDS_COUNT


def stored_in_order(settings: Mapping[str, Any]) -> list[object]:
    """Return all settings in the order of `EndpointSettings`, as the statements take them."""
    return [_stored(settings[name]) for name in SETTINGS]


def _stored(value: Any) -> object:  # noqa: ANN401 -- as the setting is
    match value:
        case dict():
            return orjson.dumps(value).decode()
        case [*items] if items and not isinstance(items[0], str):
            return [float(one) for one in items]
        case _:
            return value
