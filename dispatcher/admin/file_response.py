"""A response that is a file, written in parts as they are made.

The first part is awaited before the response begins, so that an error in it becomes an error page or a problem. After
that the status is sent. If a later part fails, or the client takes no bytes for `WRITE_SECONDS_MAX`, the connection is
aborted: the client sees an incomplete file, not a short one.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Final

from aiohttp import hdrs, web

WRITE_SECONDS_MAX: Final = 10.0


async def send_file(
    request: web.Request,
    parts: AsyncGenerator[str, None],
    name: str,
    media_type: str,
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """Send a text file for download.

    Raises:
        What the first part raises. ConnectionAbortedError: a later part failed.
    """
    try:
        first = await anext(parts)
        response = web.StreamResponse(
            headers={
                **headers,
                hdrs.CONTENT_TYPE: f"{media_type}; charset=utf-8",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"',
            }
        )
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            return response
        try:
            await _write(response, first)
            async for part in parts:
                await _write(response, part)
        except BaseException as error:
            if request.transport is not None:
                request.transport.abort()
            if isinstance(error, Exception):
                raise ConnectionAbortedError(f"{name}: {error}") from error
            raise
    finally:
        await parts.aclose()
    return response


async def _write(response: web.StreamResponse, part: str) -> None:
    async with asyncio.timeout(WRITE_SECONDS_MAX):
        await response.write(part.encode())
