"""Turns the groups of a person into one role and one tenant; pure.

The first rule whose group the person has decides, and only that one: rules are never combined, so a role in
one tenant never becomes that role in another, and no order of the provider's list matters.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import orjson

from dispatcher.admin.operations.context import ALL_TENANTS, Role
from dispatcher.config.sections import OidcSettings, RoleRule

GROUPS_MAX: Final = 2_000
GROUP_CHARACTERS_MAX: Final = 256


class Rights(NamedTuple):
    """The rights of a session; no tenant: all of them."""

    role: Role
    tenant: str | None


def groups_of(claims: Mapping[str, object], claim: str) -> frozenset[str]:
    """Return the groups in a claim, which is a string or a list of strings; anything else counts as none."""
    value = claims.get(claim)
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > GROUPS_MAX:
        return frozenset()
    return frozenset(
        one for one in values if isinstance(one, str) and len(one) <= GROUP_CHARACTERS_MAX
    )


def rights_of(groups: frozenset[str], rules: Sequence[RoleRule]) -> Rights | None:
    """Return the rights of the first rule whose group is there; None if no rule is met."""
    for rule in rules:
        if rule.group in groups:
            return Rights(Role(rule.role), None if rule.tenant == ALL_TENANTS else rule.tenant)
    return None


def digest_of_rules(settings: OidcSettings) -> bytes:
    """Return the digest of all settings that decide who gets which rights."""
    deciding = [
        settings.issuer,
        settings.client_id,
        settings.groups_claim,
        [[rule.group, rule.role, rule.tenant] for rule in settings.roles],
    ]
    return hashlib.sha256(orjson.dumps(deciding)).digest()
