"""A hook of MkDocs: links to files outside `docs/` become text, because the site does not have them."""

import re
from typing import Any

LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)[^)\s]*\)")


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:  # noqa: ANN401 -- the generator is not installed here
    """Return the page without the links that leave the documentation."""
    depth = page.file.src_uri.count("/")

    def keep(match: re.Match[str]) -> str:
        return match[1] if match[2].count("/") > depth else match[0]

    return LINK.sub(keep, markdown)
