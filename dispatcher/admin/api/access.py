"""Tokens, sessions, people, portal links and the audit log over HTTP."""

from dispatcher.admin.api.route import ApiResponse, Call
from dispatcher.admin.resources.access import AccessQuery
from dispatcher.admin.resources.audit import AuditQuery
from dispatcher.admin.resources.portal_link import NewPortalLink, PortalLinksQuery
from dispatcher.admin.resources.token import NewToken, TokensQuery


async def list_tokens(call: Call, query: TokensQuery) -> ApiResponse:
    """List tokens, newest first, revoked and expired ones included."""
    return ApiResponse(await call.operations.tokens.page(call.actor, query))


async def create_token(call: Call, fields: NewToken) -> ApiResponse:
    """Create a token; only this response holds its text."""
    return ApiResponse(await call.operations.tokens.create(call.actor, fields))


async def revoke_token(call: Call) -> ApiResponse:
    """Revoke a token; sessions that were opened with it end too."""
    await call.operations.tokens.revoke(call.actor, call.id)
    return ApiResponse(None)


async def list_sessions(call: Call, query: AccessQuery) -> ApiResponse:
    """List the console sessions that have not ended, newest first."""
    return ApiResponse(await call.operations.access.sessions(call.actor, query))


async def end_session(call: Call) -> ApiResponse:
    """End a console session; its person is signed out at the next request."""
    await call.operations.access.end_session(call.actor, call.id)
    return ApiResponse(None)


async def create_portal_link(call: Call, fields: NewPortalLink) -> ApiResponse:
    """Create a link that opens the portal of one tenant, once; only this response contains its URL.

    A token with the role operator creates links for viewers and operators, an admin's token also for managers.
    """
    return ApiResponse(await call.operations.portal_links.create(call.actor, fields))


async def list_portal_links(call: Call, query: PortalLinksQuery) -> ApiResponse:
    """List portal links, newest first; a link is deleted two days after its expiry."""
    return ApiResponse(await call.operations.portal_links.page(call.actor, query))


async def revoke_portal_link(call: Call) -> ApiResponse:
    """Revoke a portal link, used or not; its session ends at the next request."""
    await call.operations.portal_links.revoke(call.actor, call.id)
    return ApiResponse(None)


async def list_people(call: Call, query: AccessQuery) -> ApiResponse:
    """List the people who signed in through the OpenID provider, latest sign-in first."""
    return ApiResponse(await call.operations.access.people(call.actor, query))


async def list_audit(call: Call, query: AuditQuery) -> ApiResponse:
    """List what people and programs did, newest first."""
    return ApiResponse(await call.operations.audit.page(call.actor, query))
