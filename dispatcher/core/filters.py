"""Content filters: expressions in CEL (Common Expression Language) that decide whether an endpoint gets an event.

    data.total > 1000 && data.warehouse == "BKK-1" && labels.region == "th"

An expression reads `data`, `labels`, `type`, `id` and `tenant`. It is compiled when its endpoint is, and evaluated
at fan-out after the event type and the labels have matched. The event is converted once, and only if one of its
endpoints has a filter.

Invariants: an expression that was accepted takes a few milliseconds at most. The language has no loops apart from
macros, and evaluation cannot be interrupted, so `filter_problems` refuses what multiplies work: nested macros,
`map` and `filter` (quadratic in the library), macros whose body reads anything but its variable, long sums of
strings, and costly regular expressions. `EventValues` bounds the event. An evaluation error (a missing field, an
event that is too large) does not match, and fan-out counts it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from dispatcher.core.model import Event
from dispatcher.core.problems import Problem, problem

if TYPE_CHECKING:
    from cel import Context, Program

EXPRESSION_CHARACTERS_MAX: Final = 1_024
DATA_CHARACTERS_MAX: Final = 65_536
"""Of an event's data; larger events match no filter. Converting as many takes some 5 ms."""
VALUES_MAX: Final = 3_000
"""Values (numbers, strings, lists, objects) of an event's data: a macro takes up to a microsecond for each."""
OPERATORS_MAX: Final = 64
SUMS_MAX: Final = 4
"""Additions, because each of them may copy a string of the event."""
PAIRS_MAX: Final = 4
"""Comparisons of two values of the event, because both may be large lists."""
MACROS_MAX: Final = 2
PATTERN_CHARACTERS_MAX: Final = 64
CLASSES_MAX: Final = 2
r"""Classes of a regular expression such as `\w`, which take 1.6 ms each to compile."""
VARIABLES: Final = ("data", "labels", "type", "id", "tenant")

_FUNCTIONS: Final = frozenset(
    {"has", "size", "string", "int", "uint", "double", "bool", "timestamp", "duration", "type", "dyn", "bytes"}
)  # fmt: skip
_NOT_BOOLEAN: Final = _FUNCTIONS - {"has", "bool"}
_MACROS: Final = frozenset({"all", "exists", "exists_one"})
_COSTLY_MACROS: Final = frozenset({"map", "filter"})
_WORDS: Final = frozenset({"true", "false", "null", "in"})
_COMPARISONS: Final = frozenset({"==", "!=", "<", ">", "<=", ">=", "in"})
_LOGICAL: Final = frozenset({"&&", "||", "!", "?"})
_OPERATORS: Final = _COMPARISONS | _LOGICAL | {"+", "-", "*", "/", "%"}
_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<string>[rRbB]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<number>\d[\w.]*|\.\d[\w]*)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<operator>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    )""",
    re.VERBOSE | re.DOTALL,
)
_CLASS: Final = re.compile(r"\\[wWdDsSpPbB]|\[\[?:")


class Token(NamedTuple):
    """A part of an expression."""

    kind: str
    text: str


class FilterResult(NamedTuple):
    """What an expression returned for an event."""

    matched: bool
    error: str | None = None
    """Why it could not be evaluated; then it does not match."""


class EventValues:
    """An event as expressions read it, converted at the first evaluation."""

    def __init__(
        self, event_id: str, event_type: str, tenant: str, data: str, labels: Mapping[str, str]
    ) -> None:
        self._names: dict[str, Any] = {
            "id": event_id,
            "type": event_type,
            "tenant": tenant,
            "labels": dict(labels),
        }
        self._data = data
        self._context: Context | None = None
        self._error: str | None = None

    @classmethod
    def of(cls, event: Event) -> "EventValues":
        """Return the values of a claimed event."""
        return cls(event.id, event.type, event.tenant, event.data, event.labels)

    def convert(self) -> "tuple[Context | None, str | None]":
        """Return what an evaluation needs, or why the event cannot be evaluated."""
        if self._context is None and self._error is None:
            from cel import Context  # noqa: PLC0415 -- most deployments filter nothing

            self._error = self._bound()
            if self._error is None:
                self._context = Context(variables={**self._names, "data": orjson.loads(self._data)})
        return self._context, self._error

    def value(self, path: Sequence[str]) -> Any:  # noqa: ANN401 -- whatever the event has there
        """Return the value at a path.

        Raises:
            KeyError: there is none.
        """
        found: Any = {**self._names, "data": orjson.loads(self._data)}
        for name in path:
            if not isinstance(found, Mapping):
                raise KeyError(name)
            found = found[name]
        return found

    def _bound(self) -> str | None:
        if len(self._data) > DATA_CHARACTERS_MAX:
            return f"the data have more than {DATA_CHARACTERS_MAX} characters"
        # Each value of a list or an object follows one of these characters, also in a string: an upper bound.
        bound = sum(map(self._data.count, ",[{"))
        if bound > VALUES_MAX and _count(orjson.loads(self._data)) > VALUES_MAX:
            return f"the data have more than {VALUES_MAX} values"
        return None


def _count(value: object) -> int:
    if isinstance(value, dict):
        return 1 + sum(map(_count, value.values()))
    return 1 + sum(map(_count, value)) if isinstance(value, list) else 1


class ContentFilter:
    """A compiled expression."""

    def __init__(self, expression: str, program: "Program | None", problem: str = "") -> None:
        self.expression = expression
        self._program = program
        self._problem = problem

    def evaluate(self, values: EventValues) -> FilterResult:
        """Return whether an event matches; an error does not."""
        if self._program is None:
            return FilterResult(matched=False, error=self._problem)
        context, error = values.convert()
        if error is not None:
            return FilterResult(matched=False, error=error)
        try:
            result = self._program.execute(context)
        except KeyError as missing:
            return FilterResult(matched=False, error=f"there is no {missing}")
        except Exception as failure:  # noqa: BLE001 -- whatever the library raises for these values
            return FilterResult(matched=False, error=str(failure).partition("\n")[0][:200])
        if not isinstance(result, bool):
            return FilterResult(matched=False, error="the result is not a boolean")
        return FilterResult(matched=result)

    def paths(self) -> list[tuple[str, ...]]:
        """Return the paths that the expression reads, such as ("data", "total")."""
        found: dict[tuple[str, ...], None] = {}
        tokens = tokens_of(self.expression) or []
        for at, token in enumerate(tokens):
            if token.kind != "name" or token.text not in VARIABLES or _follows_dot(tokens, at):
                continue
            if _is_call(tokens, at):
                continue
            path = [token.text]
            at += 1  # noqa: PLW2901 -- reads on from the variable
            while at + 1 < len(tokens) and tokens[at].text == "." and not _is_call(tokens, at + 1):
                path.append(tokens[at + 1].text)
                at += 2  # noqa: PLW2901 -- as above
            found[tuple(path)] = None
        return [*found]


def compile_filter(expression: str) -> ContentFilter:
    """Compile an accepted expression; one that this version refuses matches nothing and reports an error."""
    problems = filter_problems(expression)
    if problems:
        return ContentFilter(expression, None, problems[0].message)
    from cel import compile as compile_cel  # noqa: PLC0415 -- most deployments filter nothing

    return ContentFilter(expression, compile_cel(expression))


def filter_problems(expression: str, field: str = "content_filter") -> list[Problem]:
    """List why an expression is refused."""
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        return [problem(field, "too_long", maximum=EXPRESSION_CHARACTERS_MAX)]
    tokens = tokens_of(expression)
    syntax = _syntax_problem(expression) if tokens is not None else "a character is not part of CEL"
    if tokens is None or syntax is not None:
        return [problem(field, "invalid_filter", detail=syntax)]
    refused = [*dict.fromkeys(_refusals(tokens))]
    if refused:
        return [problem(field, "filter_too_complex", detail="; ".join(refused))]
    unknown = _unknown_names(tokens)
    if unknown:
        return [
            problem(field, "unknown_filter_name", value=unknown[0], allowed=", ".join(VARIABLES))
        ]
    return [] if _may_be_boolean(expression, tokens) else [problem(field, "filter_not_boolean")]


def tokens_of(expression: str) -> list[Token] | None:
    """Return the parts of an expression; None if a character belongs to none."""
    tokens: list[Token] = []
    at, end = 0, len(expression.rstrip())
    while at < end:
        found = _TOKEN.match(expression, at)
        if found is None or found.lastgroup is None:
            return None
        tokens.append(Token(found.lastgroup, found[found.lastgroup]))
        at = found.end()
    return tokens


def _syntax_problem(expression: str) -> str | None:
    from cel import compile as compile_cel  # noqa: PLC0415 -- most deployments filter nothing

    try:
        compile_cel(expression)
    except Exception as error:  # noqa: BLE001 -- whatever the library's parser raises
        text = str(error)
        found = re.search(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n|]*)", text)
        if found is None:
            return "it cannot be parsed"
        return f"{found[3][:120].strip()} (line {found[1]}, column {found[2]})"
    return None


def _follows_dot(tokens: Sequence[Token], at: int) -> bool:
    return at > 0 and tokens[at - 1].text == "."


def _is_call(tokens: Sequence[Token], at: int) -> bool:
    return at + 1 < len(tokens) and tokens[at + 1].text == "("


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """Return where the parenthesis that opens here is closed."""
    depth = 0
    for at in range(opening, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[at].text, 0) if tokens[at].kind == "operator" else 0
        if depth == 0:
            return at
    return len(tokens)


def _macros(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Return where the arguments of each macro begin and end."""
    return [
        (at + 2, _closing(tokens, at + 1))
        for at, token in enumerate(tokens)
        if token.text in _MACROS and _follows_dot(tokens, at) and _is_call(tokens, at)
    ]


def _refusals(tokens: Sequence[Token]) -> list[str]:
    refused: list[str] = []
    operators = [t.text for t in tokens if t.text in _OPERATORS and t.kind != "string"]
    if len(operators) > OPERATORS_MAX:
        refused.append(f"it has more than {OPERATORS_MAX} operators")
    if operators.count("+") > SUMS_MAX:
        refused.append(f"it has more than {SUMS_MAX} additions")
    if _pairs(tokens) > PAIRS_MAX:
        refused.append(f"it compares two values of the event more than {PAIRS_MAX} times")
    for at, token in enumerate(tokens):
        if token.kind != "name" or not _is_call(tokens, at) or not _follows_dot(tokens, at):
            continue
        if token.text in _COSTLY_MACROS:
            refused.append(f"{token.text}() is not supported")
        if token.text == "matches":
            refused += _pattern_refusals(tokens[at + 2 : _closing(tokens, at + 1)])
    macros = _macros(tokens)
    if len(macros) > MACROS_MAX:
        refused.append(f"it has more than {MACROS_MAX} macros")
    for begin, end in macros:
        refused += _body_refusals(tokens[begin:end])
    return refused


def _pairs(tokens: Sequence[Token]) -> int:
    """Count comparisons without a literal on either side."""
    return sum(
        token.text in _COMPARISONS
        and token.kind != "string"
        and not (_is_literal(tokens, at - 1) or _is_literal(tokens, at + 1))
        for at, token in enumerate(tokens)
    )


def _is_literal(tokens: Sequence[Token], at: int) -> bool:
    if not 0 <= at < len(tokens):
        return False
    token = tokens[at]
    return token.kind in {"string", "number"} or token.text in {"true", "false", "null", "-"} or (
        token.text == "[" and at + 1 < len(tokens) and _is_literal(tokens, at + 1)
    )  # fmt: skip


def _pattern_refusals(arguments: Sequence[Token]) -> list[str]:
    if len(arguments) != 1 or arguments[0].kind != "string":
        return ["the pattern of matches() has to be one string"]
    pattern = arguments[0].text
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        return [f"the pattern of matches() has more than {PATTERN_CHARACTERS_MAX} characters"]
    if "{" in pattern or "(?" in pattern or len(_CLASS.findall(pattern)) > CLASSES_MAX:
        return [
            f"the pattern of matches() has a counted repetition, a flag, or more than {CLASSES_MAX} classes"
        ]
    return []


def _body_refusals(arguments: Sequence[Token]) -> list[str]:
    """List what the body of a macro may not have: it runs once for each element."""
    variable, body = arguments[0].text, arguments[2:]
    refused = []
    for at, token in enumerate(body):
        if token.kind == "string":
            continue
        is_free = token.kind == "name" and not _follows_dot(body, at)
        if token.text in _MACROS | _COSTLY_MACROS and _is_call(body, at):
            refused.append("a macro is inside of another one")
        elif token.text in {"+", "matches"}:
            refused.append(f"{token.text} is inside of a macro")
        elif is_free and token.text not in {variable, *_WORDS, *_FUNCTIONS}:
            refused.append(f"a macro reads {token.text[:40]}, which is not its variable")
    if _pairs(body):
        refused.append("a macro compares two values of the event")
    return refused


def _unknown_names(tokens: Sequence[Token]) -> list[str]:
    variables = {
        *VARIABLES,
        *_WORDS,
        *_FUNCTIONS,
        *(tokens[begin].text for begin, _ in _macros(tokens)),
    }
    return [
        token.text
        for at, token in enumerate(tokens)
        if token.kind == "name"
        and not _follows_dot(tokens, at)
        and token.text not in (variables if not _is_call(tokens, at) else _FUNCTIONS)
        and not (at + 1 < len(tokens) and tokens[at + 1].text == ":" and _is_key(tokens, at))
    ]


def _is_key(tokens: Sequence[Token], at: int) -> bool:
    return at > 0 and tokens[at - 1].text in {"{", ","}


def _may_be_boolean(expression: str, tokens: Sequence[Token]) -> bool:
    """Return whether the result can be a boolean; a field of the event may be one."""
    depth, top = 0, []
    for at, token in enumerate(tokens):
        if token.kind == "operator":
            depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.text, 0)
        if depth == 0 or (token.text == "(" and depth == 1):
            top.append((at, token))
    if any(token.text in _COMPARISONS | _LOGICAL for _, token in top if token.kind != "string"):
        return True
    if any(token.text in {"+", "-", "*", "/", "%"} for _, token in top if token.kind != "string"):
        return False
    calls = [t.text for at, t in top if t.kind == "name" and _is_call(tokens, at)]
    if calls:
        return calls[-1] not in _NOT_BOOLEAN
    result = ContentFilter(expression, _compiled(expression)).evaluate(
        EventValues("", "", "", "{}", {})
    )
    return result.error != "the result is not a boolean"


def _compiled(expression: str) -> "Program":
    from cel import compile as compile_cel  # noqa: PLC0415 -- most deployments filter nothing

    return compile_cel(expression)
