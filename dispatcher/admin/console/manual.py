"""The documentation, rendered for the console.

The pages are the Markdown files of `docs/`, which the wheel contains. Invariants: HTML in a page is text
and never markup; a link leads to another page of the help, to another site, or nowhere (a file of the
repository); a page's name is looked up in a table that is read once, so that no path of a request reaches
the file system. A page is rendered once for each process, in a thread, because the longest takes longer
than one step of the event loop may.
"""

import asyncio
import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from markupsafe import Markup

from dispatcher.config.shipped import shipped_docs_directory

if TYPE_CHECKING:
    from markdown_it.token import Token

PREFIX: Final = "/help/"
IMAGE_TYPES: Final[Mapping[str, str]] = {".png": "image/png", ".svg": "image/svg+xml"}
TRANSLATED: Final = "th"
"""The folder of the Thai pages; its files have the names of the English ones."""
_COMMENT: Final = re.compile(r"(?m)^<!-- [^\n]* -->$")
"""Marks a generated part of a page; with HTML off it would be shown as text."""
_DIAGRAM: Final = re.compile(r'<p>(?=<img [^>]*\.svg")')
"""The paragraph of a diagram, which scrolls on a narrow screen."""
_LINK_OF_HELP: Final = re.compile(rf'<a href="{PREFIX}([^"#]*)(#[^"]*)?">(.*?)</a>', re.DOTALL)
_NOT_OF_A_SLUG: Final = re.compile(r"[^\w\- ]")


class Heading(NamedTuple):
    """A section of a page."""

    anchor: str
    text: str


class HelpPage(NamedTuple):
    """A rendered page."""

    name: str
    title: str
    body: Markup
    sections: Sequence[Heading]
    """Headings of the second level."""
    anchors: frozenset[str]
    """All headings."""
    language: str


@cache
def files() -> Mapping[str, Path]:
    """Return the pages and images by their names, such as `operators`, `th/operators`, `images/test.png`."""
    folder = shipped_docs_directory()
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".md":
            found[name.removesuffix(".md")] = path
        elif path.suffix in IMAGE_TYPES:
            found[name] = path
    return found


async def find_page(name: str, language: str) -> HelpPage | None:
    """Return a page in a language, or in English if it is not translated; None if it does not exist.

    `th/quick-start` is the translation in every language: an English page links to it.
    """
    translated = f"{language}/{name}"
    chosen = translated if language == TRANSLATED and translated in files() else name
    path = files().get(chosen)
    if path is None or path.suffix != ".md":
        return None
    return await asyncio.to_thread(render, chosen)


@cache
def render(name: str) -> HelpPage:
    """Return a rendered page.

    Raises:
        KeyError: there is no page of that name.
    """
    from markdown_it import MarkdownIt  # noqa: PLC0415 -- 45 ms of a start, for pages that few starts show

    text = _COMMENT.sub("", files()[name].read_text(encoding="utf-8"))
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    headings = _set_anchors(tokens)
    for token in tokens:
        _adapt(token, name)
        for child in token.children or ():
            _adapt(child, name)
    title = next((one.text for level, one in headings if level == 1), name)
    body = parser.renderer.render(_in_boxes(tokens), parser.options, {})
    # With HTML off, only the renderer writes this tag. A block that scrolls must be reachable by keys.
    body = body.replace("<pre>", '<pre tabindex="0">')
    body = _DIAGRAM.sub('<p tabindex="0">', body)
    # The corner of a table with headers on two sides is no header (WCAG 1.3.1).
    body = body.replace("<th></th>", "<td></td>")
    is_translated = name.startswith(f"{TRANSLATED}/")
    return HelpPage(
        name=name.removeprefix(f"{TRANSLATED}/"),
        title=title,
        body=Markup(body),  # noqa: S704 -- rendered from shipped files, with HTML off
        sections=tuple(one for level, one in headings if level == 2),  # noqa: PLR2004 -- the second level
        anchors=frozenset(one.anchor for _, one in headings),
        language=TRANSLATED if is_translated else "en",
    )


def links_below(body: Markup, base: str, pages: Collection[str]) -> Markup:
    """Return a rendered page whose links to these pages are below `base`; links to other pages become their text."""

    def rewritten(match: re.Match[str]) -> str:
        return (
            f'<a href="{base}{PREFIX}{match[1]}{match[2] or ""}">{match[3]}</a>'
            if match[1] in pages
            else match[3]
        )

    text = _LINK_OF_HELP.sub(rewritten, body)
    return Markup(text.replace(f'src="{PREFIX}', f'src="{base}{PREFIX}'))  # noqa: S704 -- of a rendered page


def slug(text: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return _NOT_OF_A_SLUG.sub("", text.strip().lower()).replace(" ", "-")


def _set_anchors(tokens: "Sequence[Token]") -> list[tuple[int, Heading]]:
    """Give each heading its anchor; return levels and headings."""
    headings: list[tuple[int, Heading]] = []
    counts: dict[str, int] = {}
    for token, inline in pairwise(tokens):
        if token.type != "heading_open":
            continue
        text = "".join(
            child.content
            for child in inline.children or ()
            if child.type in {"text", "code_inline"}
        )
        anchor = slug(text)
        number = counts.get(anchor, 0)
        counts[anchor] = number + 1
        if number:
            anchor = f"{anchor}-{number}"
        token.attrSet("id", anchor)
        headings.append((int(token.tag[1:]), Heading(anchor, text)))
    return headings


def _adapt(token: "Token", name: str) -> None:
    """Rewrite addresses, and replace attributes that the content policy forbids."""
    # Alignment is a style attribute in Markdown's tables.
    style = token.attrs.pop("style", None)
    if style == "text-align:right":
        token.attrSet("class", "number")
    if token.type == "link_open":
        _adapt_link(token, name)
    elif token.type == "image":
        address = _address(str(token.attrGet("src") or ""), name)
        if address is None:  # a picture outside the documentation, which is not shipped
            token.type = "text"
        else:
            token.attrSet("src", address)
    elif token.type in {"fence", "code_block"}:
        token.info = ""


def _adapt_link(token: "Token", name: str) -> None:
    href = str(token.attrs.pop("href", ""))
    address = _address(href, name)
    if address is None:
        return
    token.attrSet("href", address)
    if urlsplit(address).scheme:
        token.attrSet("rel", "noopener noreferrer")


def _address(href: str, name: str) -> str | None:
    """Return the address of a link of a page; None if the link leads to a file of the repository."""
    parts = urlsplit(href)
    if parts.scheme:
        return href if parts.scheme == "https" else None
    if parts.netloc:
        return None
    if not parts.path:
        return href
    folder = posixpath.dirname(name)
    target = posixpath.normpath(posixpath.join(folder, parts.path)).removesuffix(".md")
    if target not in files():
        return None
    if name.startswith(f"{TRANSLATED}/"):  # its viewer gets translations by the plain name
        target = target.removeprefix(f"{TRANSLATED}/")
    return f"{PREFIX}{target}" + (f"#{parts.fragment}" if parts.fragment else "")


def _in_boxes(tokens: "Sequence[Token]") -> "list[Token]":
    """Put tables into boxes that scroll; each is named by its section and its number."""
    from markdown_it.token import Token  # noqa: PLC0415 -- see render

    found: list[Token] = []
    section, number = "", 0
    for token, inline in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and inline is not None:
            section = inline.content.replace("`", "")
        if token.type == "table_open":
            box = Token("box_open", "div", 1, block=True)
            number += 1
            label = f"{section} ({number})"
            box.attrs = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label}
            found.append(box)
        found.append(token)
        if token.type == "table_close":
            found.append(Token("box_close", "div", -1, block=True))
    return found
