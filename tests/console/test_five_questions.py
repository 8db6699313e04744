"""The five questions of people at work, each in at most three steps: by mouse, by keyboard, and without scripts.

*Is anything wrong? Where is this order? How did the receiver respond? How do I send the waiting deliveries?
Why is the signature refused?*
With `--long` it also takes the pictures of docs/tutorials/support-a-webhook.md.
"""

from collections.abc import Callable, Iterator
from typing import Final

import pytest
from playwright.sync_api import expect

from tests.console.conftest import Living, Watched
from tests.console.questions import ORDER, SECRET, Day, Hand
from tests.console.test_screenshots import BYTES_MAX, IMAGES
from tests.support.pace import in_time

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]

STEPS_MAX: Final = 3
SECONDS_MAX: Final = 15.0


@pytest.fixture
def day(living: Living) -> Iterator[Day]:
    made = Day(living)
    yield made
    made.end()


def is_anything_wrong(hand: Hand, day: Day) -> None:
    hand.begin("/webhooks")
    if hand.page.locator(".side a[href='/']").is_visible():
        hand.choose(hand.page.locator(".side a[href='/']"))
    else:
        hand.page.locator("#drawer").check()
        hand.choose(hand.page.locator(".side a[href='/']"))
        hand.steps += 1
    card = hand.page.locator(f"#problem-{day.erp}")
    expect(card).to_contain_text("ERP_Order_Sync")
    expect(card).to_contain_text("500")


def where_is_this_order(hand: Hand, day: Day) -> None:
    del day
    hand.begin()
    hand.search(ORDER)
    hand.page.wait_for_url("**/deliveries?label=*")
    row = hand.page.locator("#delivery-rows tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text(hand.text("state.retrying"))


def what_did_they_answer(hand: Hand, day: Day) -> None:
    where_is_this_order(hand, day)
    hand.choose(hand.page.locator("#delivery-rows th a"))
    attempt = hand.page.locator(".timeline > li").first
    expect(attempt).to_contain_text("500")
    expect(attempt).to_contain_text("database is full")


def make_it_right(hand: Hand, day: Day) -> None:
    hand.begin()
    day.repair()
    card = hand.page.locator(f"#problem-{day.erp}")
    hand.choose(card.get_by_role("button", name=hand.text("retry.button")))
    accepted = hand.text("retry.released_text").rpartition("}")[2]
    place = card.locator(".outcome") if hand.has_scripts else hand.page.locator("main")
    expect(place).to_contain_text(accepted)
    expect(place).to_contain_text("200")


def why_is_the_signature_refused(hand: Hand, day: Day) -> None:
    del day
    hand.begin("/deliveries?endpoint_id=WMS_Stock")
    hand.choose(hand.page.locator("#delivery-rows th a"))
    hand.fill(hand.page.locator("#f-secret"), f'"{SECRET}"')
    hand.choose(hand.page.locator("#diagnosis button.primary"))
    expect(hand.page.locator("#result")).to_contain_text(hand.text("finding.secret_in_quotes"))


QUESTIONS: Final = {
    "problem": is_anything_wrong,
    "order": where_is_this_order,
    "response": what_did_they_answer,
    "retry": make_it_right,
    "diagnosis": why_is_the_signature_refused,
}


@pytest.mark.parametrize(
    ("language", "width", "options", "hand_options", "picture"),
    [
        ("en", 1280, {"locale": "en-GB"}, {}, ""),
        ("th", 390, {"locale": "th-TH", "color_scheme": "dark"}, {}, "-thai"),
        ("en", 390, {"locale": "en-GB"}, {"scripts": False}, None),
        ("th", 1280, {"locale": "th-TH", "color_scheme": "dark"}, {"keyboard": True}, None),
    ],
    ids=["english-light", "thai-dark-phone", "scripts-off-phone", "keyboard-thai-dark"],
)
def test_each_question_takes_three_steps(
    day: Day,
    open_tab: Callable[..., Watched],
    long_run: bool,
    language: str,
    width: int,
    options: dict[str, str],
    hand_options: dict[str, bool],
    picture: str | None,
) -> None:
    scripts = hand_options.get("scripts", True)
    tab = open_tab(
        viewport={"width": width, "height": 760}, java_script_enabled=scripts, **options
    ).sign_in()
    hand = Hand(tab, language, **hand_options)
    for name, question in QUESTIONS.items():
        question(hand, day)
        steps, seconds = hand.ended()
        assert steps <= STEPS_MAX, name
        assert in_time(seconds, SECONDS_MAX), name
        if long_run and picture is not None:
            path = IMAGES / f"question-{name}{picture}.png"
            tab.page.screenshot(path=path)
            assert path.stat().st_size < BYTES_MAX, path.name
    assert tab.complaints == []
