"""The day on which the five questions are asked, and the hand that answers them."""

import asyncio
import time
import urllib.request
from typing import Any, Final

import orjson
from playwright.sync_api import Locator, expect

from dispatcher.admin.console import languages
from tests.console.conftest import ADMIN_TOKEN, Living, Watched
from tests.support.cluster import run_apart
from tests.support.daemon import until

ORDER: Final = "ORD-2026-9876"
SECRET: Final = "whsec_" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
FAILING_COUNT: Final = 12
TABS_MAX: Final = 150
HAS_FOCUS: Final = """one => one === document.activeElement && one.matches(":focus-visible") && (() => {
    const style = getComputedStyle(one);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 || style.boxShadow !== "none";
})()"""


class Day:
    """Two webhooks: one whose receiver responds with 500, one whose receiver refuses the signature."""

    def __init__(self, living: Living) -> None:
        self._living = living
        living.receiver.behave(
            erp={}, wms={"statuses": [401], "body": '{"error": "invalid signature"}'}
        )
        self._made = [
            self._endpoint("ERP_Order_Sync", "erp", ["order.*"]),
            self._endpoint("WMS_Stock", "wms", ["stock.*"]),
        ]
        self.erp = self._made[0]
        for number in range(6):
            self._event("order.created", f"ORD-2026-{9860 + number}")
        self._wait("attempts", "SELECT count(*) FROM words.attempt WHERE outcome = 'ok'", 6)
        failing = {"statuses": [500], "body": '{"error": "database is full", "retry": false}'}
        living.receiver.behave(erp=failing)
        self._event("stock.changed", "STK-2026-0042")
        for number in range(FAILING_COUNT - 1):
            self._event("order.created", f"ORD-2026-{9870 + number}")
        waiting = "SELECT count(*) FROM words.delivery_open WHERE attempt_count > 0"
        self._wait("failures", waiting, FAILING_COUNT)
        self._wait("the problem", "SELECT count(*) FROM dispatcher.endpoint_status", 1)

    def repair(self) -> None:
        """Let the receiver accept orders again."""
        self._living.receiver.behave(erp={})

    def end(self) -> None:
        """Remove all that was made, so that the next day begins like this one."""
        for endpoint_id in self._made:
            self._ask("DELETE", f"/endpoints/{endpoint_id}")
        gone = "SELECT (count(*) = 0)::integer FROM dispatcher.delivery_open"
        self._wait("the cancelled deliveries", gone, 1)
        for table in (
            "event",
            "body",
            "delivery_done",
            "attempt",
            "endpoint_status",
            "endpoint_recent",
            "endpoint_health",
        ):
            self._living.sql(f"TRUNCATE dispatcher.{table} CASCADE")

    def _endpoint(self, name: str, path: str, types: list[str]) -> str:
        fields = {
            "name": name, "url": self._living.receiver.url(f"/{path}"), "event_types": types, "profile": "wms",
            "secret": SECRET, "retry_schedule_seconds": [600, 3600],
        }  # fmt: skip
        return str(self._ask("POST", "/endpoints", fields)["id"])

    def _event(self, event_type: str, key: str) -> None:
        text = orjson.dumps({"order_id": key}).decode()
        self._living.sql(
            "INSERT INTO dispatcher.outbox (type, data, labels) VALUES ($1, $2::text::json, $2::text::jsonb)",
            event_type, text,
        )  # fmt: skip

    def _ask(self, method: str, path: str, fields: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        data = None if fields is None else orjson.dumps(fields)
        request = urllib.request.Request(  # noqa: S310 -- of the test's own daemon
            f"{self._living.base}/api/v1{path}", data, headers, method=method
        )
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 -- as above
            text = response.read()
        return orjson.loads(text) if text else None

    def _wait(self, what: str, query: str, count: int) -> None:
        async def is_there() -> bool:
            rows = await asyncio.to_thread(self._living.sql, query)
            return int(rows[0][0]) >= count

        run_apart(lambda: until(is_there, seconds=60, what=what))


class Hand:
    """Answers a question from Home on, and counts the steps: opening, choosing, or filling in."""

    def __init__(
        self, tab: Watched, language: str, *, keyboard: bool = False, scripts: bool = True
    ) -> None:
        self.tab, self.page = tab, tab.page
        self.has_scripts = scripts
        self._keyboard = keyboard
        self._texts = languages.load()[language].texts
        self.steps = 0
        self._began = 0.0

    def text(self, key: str) -> str:
        return self._texts[key]

    def begin(self, path: str = "/") -> None:
        """Open the page from which the question is asked."""
        self.page.goto(self.tab.base + path)
        self.steps, self._began = 0, time.monotonic()

    def ended(self) -> tuple[int, float]:
        return self.steps, time.monotonic() - self._began

    def search(self, text: str) -> None:
        """Type into the search of every page, and press Enter."""
        field = self.page.locator(".search input[name=q]")
        if self._keyboard:
            self.page.keyboard.press("/")
            assert field.evaluate(HAS_FOCUS), "the search has the focus, visibly"
            self.page.keyboard.type(text)
        else:
            field.fill(text)
        field.press("Enter")
        self.steps += 1

    def choose(self, target: Locator) -> None:
        """Click, or go to it by Tab and press Enter."""
        if self._keyboard:
            self._reach(target)
            self.page.keyboard.press("Enter")
        else:
            target.click()
        self.steps += 1

    def fill(self, target: Locator, text: str) -> None:
        """Type or paste into a field."""
        if self._keyboard:
            self._reach(target)
            self.page.keyboard.type(text)
        else:
            target.fill(text)
        self.steps += 1

    def _reach(self, target: Locator) -> None:
        expect(target).to_be_visible()
        for _ in range(TABS_MAX):
            self.page.keyboard.press("Tab")
            if target.evaluate("one => one === document.activeElement"):
                assert target.evaluate(HAS_FOCUS), "the focus is visible"
                return
        raise AssertionError(f"Tab never reaches {target}")
