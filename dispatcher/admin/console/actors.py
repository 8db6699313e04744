"""Names of actors as people know them, in place of the names of the audit log.

`token:acme/erp` becomes "erp (token of acme)". A person of the OpenID provider is named by an id, because
the displayed name is the person's own choice; pages resolve the id.
"""

from collections.abc import Mapping
from typing import Final

from dispatcher.admin.console.languages import Language

_KINDS: Final = frozenset({"cli", "link", "oidc", "portal", "token"})


def actor_name(language: Language, actor: str, names: Mapping[str, str]) -> str:
    """Return the name of an actor; `names` are those of people by their ids."""
    kind, _, rest = actor.partition(":")
    if actor == "admin-token":
        return language.text("actor.admin_token")
    if kind not in _KINDS or not rest:
        return actor
    if kind == "link":
        return language.text("actor.link", name=actor_name(language, rest, names))
    if kind == "token":
        tenant, _, name = rest.partition("/")
        key = "actor.token" if tenant == "*" else "actor.token_of"
        return language.text(key, name=name, tenant=tenant)
    return language.text(f"actor.{kind}", name=names.get(rest, rest))
