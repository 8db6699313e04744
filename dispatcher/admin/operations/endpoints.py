"""Endpoints: made, listed, shown, changed, paused, resumed, deleted.

The secrets of an endpoint are in `rotation.py`. Any change of a row moves the routing version (a
trigger does), by which every dispatcher learns of it before its next fan-out.
"""

import contextlib
import dataclasses
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from dispatcher.admin.operations.changes import change_detail
from dispatcher.admin.operations.context import Actor, Deployment, Role, allowed_tenant
from dispatcher.admin.operations.credentials import (
    CREDENTIAL_OWNERS,
    CREDENTIAL_SETTINGS,
    credential_problems,
    credential_warnings,
    given_credentials,
    opened_credentials,
    store_credentials,
)
from dispatcher.admin.operations.endpoint_rules import (
    also_sign_problems,
    event_types_warnings,
    header_problems,
    read_change,
    read_new_endpoint,
    settings_of,
    with_pull_url,
    with_secret_of_url,
)
from dispatcher.admin.operations.endpoint_view import _opened, endpoint_of
from dispatcher.admin.resources.endpoint import (
    DEFAULTS,
    SETTINGS,
    ChangedEndpoint,
    Endpoint,
    EndpointPage,
    etag_of,
)
from dispatcher.admin.resources.endpoint_recovery import (
    EndpointFailures,
    FailedResponse,
    WaitingDeliveries,
)
from dispatcher.admin.resources.endpoint_requests import EndpointChange, EndpointsQuery, NewEndpoint
from dispatcher.admin.resources.fields import TENANT_DEFAULT
from dispatcher.admin.resources.serialization import (
    Place,
    cursor_scope,
    page_of,
    read_cursor,
    time_text,
    write_cursor,
)
from dispatcher.core import ids, secret
from dispatcher.core.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
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
from dispatcher.store.endpoint_counts import COUNTED_MAX, count_failures, read_waiting
from dispatcher.store.endpoints import EndpointDetail, EndpointName
from dispatcher.store.secrets import SealedSecret, insert_secret, load_secrets

if TYPE_CHECKING:
    from dispatcher.admin.resources.delivery import AttemptOutcomeName
    from dispatcher.store.pool import Reach

ADMIN_SETTINGS: Final = (
    "max_concurrency",
    "rate_limit",
    "timeout_seconds",
    "retry_schedule_seconds",
)
"""Settings that spend the capacity of the deployment, which all tenants share; a manager cannot change them."""
CANCELLED_AT_ONCE_MAX: Final = 1000
"""Waiting deliveries of a deleted endpoint that end with it; a dispatcher's upkeep ends the rest."""
WAITING_COUNT_MAX: Final = 10_000
"""Waiting deliveries of an endpoint are counted up to here."""


class Endpoints:
    """The endpoints of a deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._database = deployment.database

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
        _require_limits(actor, DEFAULTS, row)
        async with self._database.transaction() as connection:
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
        assert made is not None  # noqa: S101 -- it was inserted in this transaction
        return self._changed(
            made,
            sealed[endpoint_id],
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

    async def page(
        self,
        actor: Actor,
        query: EndpointsQuery = EndpointsQuery(),  # noqa: B008 -- frozen
    ) -> EndpointPage:
        """Return a page of endpoints, newest first or by trouble.

        By trouble, a cursor is a number of rows: a page after it may repeat or miss an endpoint whose trouble has
        changed in between.

        Raises:
            InvalidRequestError: the cursor is another filter's.
        """
        tenant = allowed_tenant(actor, query.tenant)
        scope = cursor_scope("endpoints", actor.tenant, query.given())
        place = read_cursor(query.cursor, scope)
        if query.sort == "trouble":
            return await self._page_by_trouble(actor, tenant, query, place, scope)
        filters = [
            tenant, query.name, query.profile, query.state, *(place or (None, None)), query.limit + 1, None,
            query.health, query.q,
        ]  # fmt: skip
        async with self._database.reading() as connection:
            rows = await store.page_of_endpoints(connection, filters)
            sealed = await load_secrets(connection, [row.id for row in rows])
        items, next_cursor = page_of(
            rows,
            query.limit,
            lambda row: Place(row.created_at, row.id),
            lambda row: self._shown(row, sealed[row.id], actor),
            scope=scope,
        )
        return EndpointPage(items=items, next_cursor=next_cursor)

    async def _page_by_trouble(
        self,
        actor: Actor,
        tenant: str | None,
        query: EndpointsQuery,
        place: Place | None,
        scope: str,
    ) -> EndpointPage:
        offset = 0 if place is None else _offset(place)
        filters = [tenant, query.name, query.q, query.profile, query.state, query.health]
        async with self._database.reading() as connection:
            ids_found = await store.endpoints_by_trouble(
                connection, filters, rows_max=query.limit + 1, offset=offset
            )
            items = await self._of_ids(connection, actor, tenant, ids_found[: query.limit])
        end = Place(self._deployment.clock.now(), str(offset + query.limit))
        return EndpointPage(
            items=items,
            next_cursor=write_cursor(end, scope) if len(ids_found) > query.limit else None,
        )

    async def _of_ids(
        self, connection: "Reach", actor: Actor, tenant: str | None, ids: list[str]
    ) -> list[Endpoint]:
        any_filter = [tenant, *(None,) * 5, len(ids), ids, None, None]
        rows = {row.id: row for row in await store.page_of_endpoints(connection, any_filter)}
        sealed = await load_secrets(connection, list(rows))
        return [self._shown(rows[one], sealed[one], actor) for one in ids if one in rows]

    async def with_problems(
        self, actor: Actor, *, has_failed: bool, failed_max: int, rows_max: int
    ) -> tuple[list[Endpoint], bool]:
        """Return the endpoints that are disabled, not healthy, or have failed deliveries, and whether there are more.

        `has_failed`: failed deliveries count as a problem; at most `failed_max` of them are read.
        """
        async with self._database.reading() as connection:
            ids = await store.endpoints_with_problems(
                connection,
                actor.tenant,
                has_failed=has_failed,
                failed_max=failed_max,
                rows_max=rows_max + 1,
            )
            items = await self._of_ids(connection, actor, actor.tenant, ids[:rows_max])
        return items, len(ids) > rows_max

    async def failures(self, actor: Actor, endpoint_id: str) -> EndpointFailures:
        """Return the failed and the retrying deliveries of an endpoint by their last response.

        Raises:
            NotFoundError: there is none of that id, or it is deleted.
        """
        async with self._database.reading() as connection:
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant), endpoint_id
            )
            counts = await count_failures(connection, endpoint_id, actor.tenant)
        return EndpointFailures(
            endpoint_id=EndpointId(endpoint_id),
            responses=[
                FailedResponse(
                    outcome=cast("AttemptOutcomeName | None", one.outcome),
                    response_code=one.response_code,
                    failed_count=one.failed_count,
                    retrying_count=one.retrying_count,
                )
                for one in counts
            ],
            capped=max(row.failed_count, row.waiting_count) > COUNTED_MAX,
        )

    async def show(self, actor: Actor, endpoint_id: str) -> Endpoint:
        """Return an endpoint; its secret is masked.

        Raises:
            NotFoundError: there is none of that id, or it is deleted.
        """
        async with self._database.transaction() as connection:
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant), endpoint_id
            )
            sealed = await load_secrets(connection, [endpoint_id])
        return self._shown(row, sealed[endpoint_id], actor)

    async def names(self, actor: Actor, endpoint_ids: Iterable[str]) -> dict[str, EndpointName]:
        """Return the names of the actor's endpoints by id, deleted ones included."""
        wanted = sorted(set(endpoint_ids))
        if not wanted:
            return {}
        async with self._database.reading() as connection:
            rows = await store.read_names(connection, wanted, actor.tenant)
        return {row.id: row for row in rows}

    async def waiting(self, actor: Actor, endpoint_id: str) -> WaitingDeliveries:
        """Return how many deliveries wait for an endpoint: a pause holds them, a deletion cancels them.

        They are counted up to `WAITING_COUNT_MAX`.

        Raises:
            NotFoundError: no such endpoint.
        """
        async with self._database.reading() as connection:
            found(await store.load_endpoint(connection, endpoint_id, actor.tenant), endpoint_id)
            (row,) = await read_waiting(connection, [endpoint_id], None, WAITING_COUNT_MAX)
        return WaitingDeliveries(
            endpoint_id=endpoint_id,
            waiting_count=min(row.waiting_count, WAITING_COUNT_MAX),
            retrying_count=min(row.retrying_count, WAITING_COUNT_MAX),
            capped=row.waiting_count > WAITING_COUNT_MAX,
            oldest_due_at=time_text(row.oldest_due_at),
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
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant), endpoint_id
            )
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
        async with self._database.transaction() as connection:
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True),
                endpoint_id,
            )
            _require_version(row, if_match)
            change = self._change(row, change.given())
            before = {field: getattr(row, field) for field in SETTINGS}
            after = before | settings_of(change)
            changed = [field for field in SETTINGS if after[field] != before[field]]
            _require_limits(actor, before, after)
            given = given_credentials(change)
            await self._change_credentials(connection, row, after, given, changed)
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
            row = found(await store.load_endpoint(connection, endpoint_id, None), endpoint_id)
            sealed = await load_secrets(connection, [endpoint_id])
        warnings = (
            event_types_warnings(row.event_types, self._deployment)
            if "event_types" in changed
            else []
        )
        if "client_certificate" in changed:
            warnings += credential_warnings(after, self._deployment.clock.now())
        return self._changed(row, sealed[endpoint_id], actor, warnings=warnings)

    async def _change_credentials(
        self,
        connection: "Reach",
        row: EndpointDetail,
        after: Mapping[str, Any],
        given: Mapping[str, Secret],
        changed: Sequence[str],
    ) -> None:
        """Store the confidential fields that were given, and delete those that have no use any more.

        Raises:
            InvalidRequestError: the settings and the fields do not fit together.
        """
        if not given and CREDENTIAL_SETTINGS.isdisjoint(changed):
            return
        sealed = (await load_secrets(connection, [row.id]))[row.id]
        known = opened_credentials(sealed, row.id, self._deployment.keyring)
        stays = {
            field: one
            for field, one in known.items()
            if after[CREDENTIAL_OWNERS[field]] is not None
        }
        profile = self._deployment.profiles.get(row.profile)
        problems = credential_problems(after, profile, stays | dict(given))
        if problems:
            raise InvalidRequestError(problems)
        keyring, nonce = self._deployment.keys(), secrets.token_bytes(NONCE_BYTES)
        await store_credentials(connection, keyring, row.id, after, given, nonce)

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
            opened = [_opened(one, row.id, self._deployment.keyring) for one in signing]
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
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True),
                endpoint_id,
            )
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
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True),
                endpoint_id,
            )
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
            row = found(
                await store.load_endpoint(connection, endpoint_id, actor.tenant, lock=True),
                endpoint_id,
            )
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

    def _shown(self, row: EndpointDetail, sealed: Sequence[SealedSecret], actor: Actor) -> Endpoint:
        return endpoint_of(row, sealed, self._deployment, actor)

    def _changed(
        self,
        row: EndpointDetail,
        sealed: Sequence[SealedSecret],
        actor: Actor,
        *,
        warnings: list[str],
        **changes: Any,  # noqa: ANN401 -- fields of an endpoint
    ) -> ChangedEndpoint:
        endpoint = self._shown(row, sealed, actor)
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


def found(row: EndpointDetail | None, endpoint_id: str) -> EndpointDetail:
    """Return the endpoint that was looked for.

    Raises:
        NotFoundError: there is none.
    """
    if row is None:
        raise NotFoundError(problem("id", "endpoint_not_found", value=endpoint_id))
    return row


def _offset(place: Place) -> int:
    """Return the rows before a page by trouble.

    Raises:
        InvalidRequestError: the cursor is none of ours.
    """
    if not re.fullmatch(r"[0-9]{1,7}", place.id):
        raise InvalidRequestError([problem("cursor", "invalid_cursor")])
    return int(place.id)


def _require_limits(actor: Actor, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Return unless a manager changes a setting that only an admin may.

    Raises:
        InvalidRequestError: it is so; names each setting.
    """
    if actor.may(Role.ADMIN):
        return
    problems = [
        problem(name, "field_needs_admin")
        for name in ADMIN_SETTINGS
        if after.get(name) != before.get(name)
    ]
    if problems:
        raise InvalidRequestError(problems)


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
