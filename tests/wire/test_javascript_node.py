"""Node.js agrees about the JSON that JavaScript writes and refuses."""

from hypothesis import example, given, settings

from dispatcher.core.javascript import stringify
from tests.unit.test_javascript import NOT_JSON
from tests.wire.json_texts import documents, numbers
from tests.wire.node_process import needs_node, node

STRINGIFY = "const answerTo = (text) => JSON.stringify(JSON.parse(text));"


@needs_node
def test_node_agrees_about_every_document() -> None:
    with node(STRINGIFY) as process:

        @given(documents)
        @settings(max_examples=300, deadline=None)
        @example('{"1":{"b":1e21,"0":-0.0},"0":[12.0,"\\ud800"],"1":2}')
        def agree(text: str) -> None:
            assert stringify(text).body == process.ask(text)

        agree()


@needs_node
def test_node_agrees_about_every_number() -> None:
    with node(STRINGIFY) as process:

        @given(numbers)
        @settings(max_examples=400, deadline=None)
        def agree(text: str) -> None:
            assert stringify(f"[{text}]").body == process.ask(f"[{text}]")

        agree()


@needs_node
def test_node_refuses_what_is_refused_here() -> None:
    with node(STRINGIFY) as process:
        for text in NOT_JSON:
            assert process.ask(text) is None
