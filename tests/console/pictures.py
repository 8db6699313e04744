"""Pictures of the documentation that tests of the console take at their end, in the long run."""

from tests.console.conftest import Watched
from tests.console.test_screenshots import BYTES_MAX, IMAGES


def take(tab: Watched, name: str, height: int, *, foot: bool = False) -> None:
    """Write the present page as a picture, from its top or its foot."""
    tab.page.set_viewport_size({"width": 1280, "height": height})
    if foot:
        tab.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    path = IMAGES / f"{name}.png"
    tab.page.screenshot(path=path)
    assert path.stat().st_size < BYTES_MAX, name
