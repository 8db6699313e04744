"""The log events: the table of docs/reference/logs.md and the code agree, and names follow one form."""

import functools
import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error"}
LEVELS |= {"exception": "error", "critical": "critical"}
STRING = re.compile(r"""["']([^"']+)["']""")
LOGGED = re.compile(rf"\b_log\.({'|'.join(LEVELS)})\(\s*{STRING.pattern}")
REPEATED = re.compile(rf"\._repeat\(\s*{STRING.pattern}")
OUTAGE = re.compile(r"\bOutage\(([^()]*)\)")
"""Searched in the text: to parse the package takes half a second."""
NAMED_ELSEWHERE = {
    "partition.dropped": "info",
    "partition.emptied": "info",
    "library.logged": "the library's",
}
"""Names that the code composes: retention's by what it did, a library's with the level of its message."""
IRREGULAR = {"fenced", "kept", "lost", "prepared", "stalled", "taken", "unrecorded", "went"}


def logged(text: str) -> dict[str, str]:
    """Return each event of some code with its level."""
    found = {name: LEVELS[level] for level, name in LOGGED.findall(text)}
    found |= dict.fromkeys(REPEATED.findall(text), "info")
    for arguments in OUTAGE.findall(text):
        found |= zip(STRING.findall(arguments), ("warning", "info"), strict=True)
    return found


@functools.cache
def logged_by_the_package() -> dict[str, str]:
    paths = sorted((CHECKOUT / "dispatcher").rglob("*.py"))
    return NAMED_ELSEWHERE | logged("\n".join(path.read_text("utf-8") for path in paths))


def documented() -> list[tuple[str, str]]:
    text = (CHECKOUT / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `([a-z_.]+)` \| ([a-z' ]+) \| \S.* \|$", text, re.MULTILINE)


def test_log_events_document_equals_the_code():
    assert documented() == sorted(logged_by_the_package().items())


def test_log_events_names_are_a_component_and_a_past_tense_verb():
    unlike = []
    for name in logged_by_the_package():
        component, dot, verb = name.partition(".")
        words = set(verb.split("_"))
        is_past = any(word.endswith("ed") for word in words) or words & (IRREGULAR | {"chosen"})
        if not dot or "." in verb or not component or not is_past:
            unlike.append(name)
    assert unlike == []


def test_log_events_search_finds_each_form_of_a_call():
    code = "_log.info('a.started', x='b.c')\nOutage(_log, 'd.stalled', 'd.resumed')\n"
    code += "self._repeat('e.deleted', step)\n_log.exception(\n    'f.failed')\n"
    assert logged(code).items() == {
        ("a.started", "info"), ("d.stalled", "warning"), ("d.resumed", "info"),
        ("e.deleted", "info"), ("f.failed", "error"),
    }  # fmt: skip
