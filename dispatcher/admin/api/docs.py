"""`/openapi.json` and `/docs`: the API's own description, for programs and for people.

The first request makes both, because they take a fifth of the CPU time of a start. The page needs
no script, and nothing from anywhere else. Both are the same for everybody and hold nothing of the
deployment, so they need no token.
"""

import asyncio
from importlib import resources
from typing import Any, Final

from aiohttp import web
from jinja2 import Environment

from dispatcher.admin.api.openapi import models_to_complete, openapi
from dispatcher.admin.resources.serialization import write_json

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
CACHE: Final = "no-cache"
_CONTENT_TYPES: Final = {
    "/openapi.json": "application/json",
    "/docs": "text/html",
    "/docs/docs.css": "text/css",
}


def add_docs(app: web.Application) -> None:
    """Add the routes of the description."""
    description = _Description()
    for path, content_type in _CONTENT_TYPES.items():
        _add(app, path, description, content_type)


class _Description:
    """The bodies of all routes, made once."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._bodies: dict[str, bytes] = {}

    async def body(self, path: str) -> bytes:
        """Return the body of a route; the first call takes about half a second and blocks no other task."""
        async with self._lock:
            if not self._bodies:
                # Here, since pydantic replaces parts of a model in use while it completes the model.
                for model in models_to_complete():
                    model.model_rebuild()
                    await asyncio.sleep(0)
                self._bodies = await asyncio.to_thread(_make)
        return self._bodies[path]


def _make() -> dict[str, bytes]:
    document = openapi()
    return {
        "/openapi.json": write_json(document),
        "/docs": _page(document).encode(),
        "/docs/docs.css": _file("docs.css").encode(),
    }


def _add(app: web.Application, path: str, description: _Description, content_type: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(
            body=await description.body(path),
            content_type=content_type,
            charset="utf-8",
            headers={
                "Cache-Control": CACHE,
                "Content-Security-Policy": CONTENT_SECURITY_POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
            },
        )

    app.router.add_get(path, answer)


def _page(document: dict[str, Any]) -> str:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["kind"] = _kind
    environment.filters["paragraphs"] = lambda text: text.strip().split("\n\n")
    return environment.from_string(_file("docs.html")).render(
        document=document,
        schemas=document["components"]["schemas"],
        groups=_groups(document),
    )


def _groups(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the operations by tag, with their path and method."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(
                {**operation, "path": path, "method": method.upper()}
            )
    return groups


def _kind(schema: dict[str, Any]) -> str:
    """Return a schema in a few words: what it is, and its bounds."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[1]
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(one) for one in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "anything")
    if kind == "array":
        kind = f"list of {_kind(schema.get('items', {}))}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        kind = f"object of {_kind(schema['additionalProperties'])}"
    elif "format" in schema:
        kind = schema["format"]
    bounds = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "to",
        "minLength": "length from",
        "maxLength": "length to",
        "minItems": "entries from",
        "maxItems": "entries to",
    }
    said = [f"{words} {schema[key]}" for key, words in bounds.items() if key in schema]
    return f"{kind} ({', '.join(said)})" if said else str(kind)


def _file(name: str) -> str:
    return resources.files("dispatcher.admin.api").joinpath(name).read_text(encoding="utf-8")
