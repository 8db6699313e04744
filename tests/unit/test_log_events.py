"""The log events: the table of docs/reference/logs.md and the code agree, and names follow one form."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error"}
LEVELS |= {"exception": "error", "critical": "critical"}
NAMED_ELSEWHERE = {
    "partition.dropped": "info",
    "partition.emptied": "info",
    "library.logged": "the library's",
}
"""Names that the code composes: retention's by what it did, a library's with the level of its message."""
IRREGULAR = {"fenced", "kept", "lost", "prepared", "stalled", "taken", "unrecorded", "went"}


def _strings(arguments: list[ast.expr]) -> list[str]:
    values = [one.value for one in arguments if isinstance(one, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def _of_call(call: ast.Call) -> Iterator[tuple[str, str]]:
    match call.func:
        case ast.Name(id="Outage"):
            yield from zip(_strings(call.args), ("warning", "info"), strict=True)
        case ast.Attribute(attr="_repeat"):
            yield from ((name, "info") for name in _strings(call.args[:1]))
        case ast.Attribute(value=ast.Name(id="_log"), attr=level) if level in LEVELS:
            yield from ((name, LEVELS[level]) for name in _strings(call.args[:1]))
        case _:
            pass


def logged(trees: list[ast.Module]) -> dict[str, str]:
    """Return each event of the code with its level."""
    calls = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    return NAMED_ELSEWHERE | dict(found for call in calls for found in _of_call(call))


@functools.cache
def logged_by_the_package() -> dict[str, str]:
    texts = [path.read_text("utf-8") for path in sorted((CHECKOUT / "dispatcher").rglob("*.py"))]
    calls = ("_log.", "Outage(", "_repeat(")
    return logged([ast.parse(text) for text in texts if any(call in text for call in calls)])


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
    found = logged([ast.parse(code)]).items() - NAMED_ELSEWHERE.items()
    assert found == {
        ("a.started", "info"), ("d.stalled", "warning"), ("d.resumed", "info"),
        ("e.deleted", "info"), ("f.failed", "error"),
    }  # fmt: skip
