"""The console's words: both languages have the same keys, pages use no others and hold no text of their own."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest

from dispatcher.admin.console import languages
from dispatcher.admin.console.labels import ADVISED_CODES, TONES, advice
from dispatcher.admin.resources.endpoint_requests import NewEndpoint
from dispatcher.admin.resources.presentation import Control, ControlKind, metadata_of
from dispatcher.config.profiles import load_profiles
from dispatcher.core.model import (
    DeliveryState,
    EndpointState,
    Flag,
    HealthState,
    Outcome,
    Reason,
    Trigger,
)
from dispatcher.core.problem_codes import SENTENCES
from tests.support.resources import make_attempt

CONSOLE = Path(languages.__file__).parent
TEMPLATES = sorted((CONSOLE / "templates").glob("*.html"))
TAGS = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
# Names that are the same in every language: code, keys, units of statistics.
SAME_EVERYWHERE = {"p50", "p95", "PostgreSQL"}
SPOKEN_ATTRIBUTES = {"aria-label", "title", "placeholder", "alt", "label"}
CODE = {"code", "pre", "kbd", "script"}


class Texts(HTMLParser):
    """Collects what a reader of a page sees or hears that stands in the template itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        for name, value in attrs:
            if name in SPOKEN_ATTRIBUTES and value:
                self._keep(value)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not CODE & set(self._open):
            self._keep(data)

    def _keep(self, text: str) -> None:
        for word in re.findall(r"[^\W\d_][\w.]*", text):
            if word not in SAME_EVERYWHERE:
                self.found.append(word)


def texts_of(source: str) -> list[str]:
    parser = Texts()
    parser.feed(TAGS.sub(" ", source))
    return parser.found


def test_both_languages_have_the_same_keys_and_names():
    english, thai = (languages.load()[code].texts for code in ("en", "th"))
    assert english.keys() == thai.keys()
    for key, text in english.items():
        names = [{one[1] for one in Formatter().parse(t) if one[1]} for t in (text, thai[key])]
        assert names[0] == names[1], key
        assert text.strip() == text != "", key
        assert thai[key].strip() == thai[key] != "", key


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_holds_no_text_of_its_own(path: Path):
    assert texts_of(path.read_text(encoding="utf-8")) == []


def test_the_hunt_for_texts_finds_each_kind():
    source = '<p title="Say">Hello {{ name }}<code>code</code></p><input placeholder="x1">'
    assert texts_of(source) == ["Say", "Hello", "x1"]


ENGLISH_IN_THAI = set(
    (Path(__file__).parent / "thai_terms.txt").read_text(encoding="utf-8").split()
)
"""Names, and terms that Thai support staff use in English. Everything else is written in Thai."""


def test_thai_texts_have_no_english_but_names_and_terms():
    wrong = {}
    for key, text in languages.load()["th"].texts.items():
        words = re.findall(r"[A-Za-z][\w.*-]*", re.sub(r"`[^`]*`|\{\w*\}", "", text))
        others = [one for one in words if not {one, one.rstrip(".")} & ENGLISH_IN_THAI]
        if others:
            wrong[key] = others
    assert wrong == {}


def test_thai_texts_use_the_words_of_the_glossary():
    """Retry, resend and the state retrying are three terms; a breaker, the audit log and seconds have one each."""
    texts = languages.load()["th"].texts
    for wrong in ("ส่งซ้ำ", "เล่นซ้ำ", "เบรกเกอร์", "หมุนเวียน", "ทรานแซกชัน"):
        assert {key for key, text in texts.items() if wrong in text} == set(), wrong
    assert texts["state.retrying"] == "รอลองใหม่"
    assert texts["delivery.resend"] == "ส่งอีกครั้ง (Resend)"
    assert texts["nav.activity"] == "ประวัติการใช้งาน"
    assert texts["unit.s"] == "วินาที"


TEMPLATE_TEXT = re.compile(r"""\bt\(\s*["']([^"']+)["']\s*[,)]""")
"""Searched in the text: to parse all templates takes half a second."""


@functools.cache
def used_keys() -> frozenset[str]:
    keys: set[str] = set()
    for path in TEMPLATES:
        keys |= set(TEMPLATE_TEXT.findall(path.read_text(encoding="utf-8")))
    for path in CONSOLE.rglob("*.py"):
        keys |= set(re.findall(r'\btext\("([^"]+)"', path.read_text(encoding="utf-8")))
    return frozenset(keys)


def test_every_key_that_is_asked_for_is_there():
    assert used_keys() - languages.load()["en"].texts.keys() == set()
    assert len(used_keys()) > 200


def test_every_key_that_is_there_is_asked_for():
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (*TEMPLATES, *CONSOLE.rglob("*.py"), *CONSOLE.glob("static/console.js"))
    )
    # Keys that are put together from a group and a value: the group is asked for.
    groups = set(re.findall(r'word\("([a-z]+)"', source)) | {
        "act", "advice", "error", "invalid", "form", "health", "health_text", "keys", "nav", "note", "phase",
        "problem", "profile", "range", "retry", "schedule", "tab", "theme", "unit", "jobstate", "help",
        "sign_in", "portal", "access", "actor",
        "change", "linkstate", "search", "check", "source", "activity", "tokenstate",
        "finding", "finding_fix", "ordering",
    }  # fmt: skip
    unused = {
        key
        for key in languages.load()["en"].texts.keys() - used_keys()
        if key.partition(".")[0] not in groups
    }
    assert unused == set()


def test_every_code_of_a_problem_is_translated():
    texts = languages.load()["th"].texts
    codes = {key.removeprefix("invalid.") for key in texts if key.startswith("invalid.")}
    assert codes == SENTENCES.keys()


def test_every_label_and_hint_of_a_control_is_there():
    texts = languages.load()["en"].texts
    for name, control in metadata_of(NewEndpoint, Control).items():
        assert f"field.{name}" in texts
        if control.kind is not ControlKind.OWN:
            assert f"form.{name}_hint" in texts


def test_every_code_of_a_problem_is_used():
    package = CONSOLE.parents[1]
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
        if path.name != "problem_codes.py"
    )
    assert [code for code in SENTENCES if f'"{code}"' not in source] == []


def test_every_value_of_a_closed_set_has_its_word():
    texts = languages.load()["th"].texts
    wanted = {
        *(f"state.{one}" for one in (*DeliveryState, *EndpointState)),
        *(f"health.{one}" for one in HealthState),
        *(f"health_text.{one}" for one in HealthState if one is not HealthState.HEALTHY),
        *(f"reason.{one}" for one in Reason),
        *(f"outcome.{one}" for one in Outcome),
        *(f"why.{one}" for one in Outcome if one is not Outcome.OK),
        *(f"trigger.{one}" for one in Trigger),
        *(f"flag.{one}" for one in Flag),
        *(f"advice.code_{code}" for code in ADVISED_CODES),
        *(
            f"profile.{name}.text"
            for name in load_profiles([Path(__file__).parents[2] / "config" / "profiles"]).profiles
        ),
    }
    assert wanted - texts.keys() == set()
    assert set(TONES) == {*DeliveryState, *EndpointState, *HealthState, *Outcome}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_attempt_that_failed_has_advice(outcome: Outcome):
    texts = languages.load()["en"].texts
    for code in (None, 301, 399, 400, 401, 418, 500, 599, 700):
        key = advice(make_attempt(outcome=str(outcome), response_code=code))
        assert (key is None) == (outcome is Outcome.OK)
        assert key is None or key in texts


@pytest.mark.parametrize(
    ("chosen", "accepted", "code"),
    [
        (None, None, "en"),
        ("th", "en", "th"),
        ("xx", "th-TH,th;q=0.9,en;q=0.8", "th"),
        (None, "fr, en;q=0.2, th;q=0.7", "th"),
        (None, "de", "en"),
        (None, "th;q=oops", "th"),
        (None, "," * 5000 + "th", "en"),
    ],
)
def test_the_language_is_the_chosen_one_else_the_browsers(
    chosen: str | None, accepted: str | None, code: str
):
    assert languages.choose(chosen, accepted).code == code
