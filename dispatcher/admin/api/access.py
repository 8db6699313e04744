"""Tokens and the audit log over HTTP, for admins."""

from dispatcher.admin.api.routes import Answer, Call
from dispatcher.admin.resources.audit import AuditQuery
from dispatcher.admin.resources.token import NewToken, TokensQuery


async def list_tokens(call: Call, query: TokensQuery) -> Answer:
    """List tokens, newest first, revoked and expired ones included."""
    return Answer(await call.operations.tokens.page(call.actor, query))


async def create_token(call: Call, fields: NewToken) -> Answer:
    """Create a token; only this response holds its text."""
    return Answer(await call.operations.tokens.create(call.actor, fields))


async def revoke_token(call: Call) -> Answer:
    """Revoke a token; sessions that were opened with it end too."""
    await call.operations.tokens.revoke(call.actor, call.id)
    return Answer(None)


async def list_audit(call: Call, query: AuditQuery) -> Answer:
    """List what people and programs did, newest first."""
    return Answer(await call.operations.audit.page(call.actor, query))
