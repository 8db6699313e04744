"""JSON Schemas of event types: compiled when the catalogue is loaded, evaluated at publishing and at fan-out.

Invariants: a schema that was accepted takes a few milliseconds for most events. The worst found, 48 alternatives for
each of 3,000 values, took 57 to 115 ms on a busy machine. An evaluation runs in Rust and
cannot be interrupted, so `compile_schema` refuses what multiplies work: references to other documents, cycles, dynamic
references, and schemas of too many parts. Patterns run on an engine with linear time. An event that is larger than
`DATA_CHARACTERS_MAX` or has more than `VALUES_MAX` values is not evaluated, and does not fit its schema. Nothing is
fetched: the library has no network here. A type without a schema costs one look into a dictionary.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from dispatcher.core.filters import DATA_CHARACTERS_MAX, VALUES_MAX
from dispatcher.core.problems import Problem, problem

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

SCHEMA_BYTES_MAX: Final = 65_536
PARTS_MAX: Final = 2_000
"""JSON values of a schema whose references are replaced by what they refer to."""
LAYER_WEIGHT: Final = 20
"""What a part counts below a keyword that evaluates the same value again."""
DEPTH_MAX: Final = 64
ERRORS_MAX: Final = 20
LISTED_VALUES_MAX: Final = 300
"""The library lists all errors or the first one: 16 µs for each, so only small events get a list."""
DETAIL_CHARACTERS_MAX: Final = 160
LAYERS: Final = frozenset(
    {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "patternProperties", "contains"}
)  # fmt: skip
REFUSED: Final = frozenset(
    {"$id", "id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "unevaluatedItems",
     "unevaluatedProperties"}
)  # fmt: skip
"""Keywords that need a second document, a cycle, or the evaluation of a part for a second time."""
DIALECTS: Final = frozenset(
    {"https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema"}
)
_NAMED: Final = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"}
)
"""Keywords whose members are names, not keywords."""
_VALUES: Final = frozenset({"const", "enum", "default", "examples"})
"""Keywords whose value is data, not a schema."""


class SchemaPolicy(StrEnum):
    """What happens to an event that does not fit the schema of its type."""

    WARN = "warn"
    REJECT = "reject"


class SchemaError(ValueError):
    """A schema that cannot be used; the message states why."""


class Mismatch(NamedTuple):
    """One part of an event's data that does not fit; `detail` repeats no value of the event."""

    field: str
    """A path, as in `data.lines[0].sku`."""
    detail: str


class Schema:
    """A compiled schema."""

    def __init__(
        self, document: dict[str, Any], validator: "Validator", policy: SchemaPolicy
    ) -> None:
        self.document = document
        self.policy = policy
        self._validator = validator

    def mismatches(self, data: str) -> Sequence[Mismatch]:
        """Return how the text of an event's data differs from the schema; none: it fits."""
        if len(data) > DATA_CHARACTERS_MAX:
            return [Mismatch("data", f"it has more than {DATA_CHARACTERS_MAX} characters")]
        # Each value of a list or an object follows one of these characters, also in a string: an upper bound.
        bound = sum(map(data.count, ",[{"))
        if bound > VALUES_MAX:
            return [Mismatch("data", f"it has more than {VALUES_MAX} values")]
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return [Mismatch("data", "it is not valid JSON with valid text")]
        if self._validator.is_valid(value):
            return []
        if bound <= LISTED_VALUES_MAX:
            errors = [
                error
                for error, _ in zip(
                    self._validator.iter_errors(value), range(ERRORS_MAX), strict=False
                )
            ]
            return [_mismatch(error) for error in errors]
        import jsonschema_rs  # noqa: PLC0415 -- most deployments have no schema

        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [_mismatch(error)]
        return []

    def problems(self, data: str) -> list[Problem]:
        """Return the same as problems of fields."""
        return [
            problem(one.field, "schema_mismatch", detail=one.detail)
            for one in self.mismatches(data)
        ]


def compile_schema(text: str, policy: SchemaPolicy = SchemaPolicy.WARN) -> Schema:
    """Compile the JSON text of a schema.

    Raises:
        SchemaError: it is not a schema, or it may take too long.
    """
    if len(text.encode()) > SCHEMA_BYTES_MAX:
        raise SchemaError(f"must have at most {SCHEMA_BYTES_MAX} bytes")
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SchemaError(f"must be JSON text ({error})") from error
    if not isinstance(document, dict):
        raise SchemaError("must be a JSON object")
    dialect = document.get("$schema")
    if dialect is not None and str(dialect).removesuffix("#") not in DIALECTS:
        raise SchemaError(f"$schema must be one of {', '.join(sorted(DIALECTS))}")
    parts = _parts(document, document, (), 0)
    if parts > PARTS_MAX:
        raise SchemaError(
            f"has more than {PARTS_MAX} parts, counting references and alternatives by their cost"
        )
    import jsonschema_rs  # noqa: PLC0415 -- most deployments have no schema

    try:
        validator = jsonschema_rs.validator_for(
            document, pattern_options=jsonschema_rs.RegexOptions(), mask="the value", offline=True
        )
    except ValueError as error:
        raise SchemaError(
            f"is not a valid JSON Schema ({_shortened(str(error).partition(chr(10))[0])})"
        ) from error
    return Schema(document, validator, policy)


def _parts(root: dict[str, Any], part: object, references: tuple[str, ...], depth: int) -> int:
    """Count the values of a schema with its references replaced; what is evaluated again counts more.

    Raises:
        SchemaError: a keyword or a reference that is not supported.
    """
    if depth > DEPTH_MAX:
        raise SchemaError(f"is nested in more than {DEPTH_MAX} levels")
    if isinstance(part, list):
        return 1 + _bounded(_parts(root, one, references, depth + 1) for one in part)
    if not isinstance(part, dict):
        return 1
    total = 1
    for keyword, value in part.items():
        if keyword in REFUSED and not (keyword == "id" and not isinstance(value, str)):
            raise SchemaError(f"{keyword} is not supported")
        if keyword in {
            "$defs",
            "definitions",
            "$comment",
            "title",
            "description",
            "examples",
            "default",
        }:
            continue  # counted where it is referred to, or never evaluated
        if keyword == "$ref":
            total += _referred(root, value, references, depth)
        elif keyword in _VALUES:
            total += len(value) if isinstance(value, list) else 1
        elif keyword in _NAMED and isinstance(value, dict):
            weight = LAYER_WEIGHT if keyword in LAYERS else 1
            total += weight * _bounded(
                _parts(root, one, references, depth + 1) for one in value.values()
            )
        else:
            weight = LAYER_WEIGHT if keyword in LAYERS else 1
            total += weight * _parts(root, value, references, depth + 1)
        if total > PARTS_MAX:
            break
    return total


def _bounded(counts: Any) -> int:  # noqa: ANN401 -- an iterator of counts, read no further than needed
    total = 0
    for count in counts:
        total += count
        if total > PARTS_MAX:
            break
    return total


def _referred(
    root: dict[str, Any], reference: object, references: tuple[str, ...], depth: int
) -> int:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise SchemaError(
            f"$ref {_shortened(str(reference))}: must begin with #/, since other documents are not read"
        )
    if reference in references:
        raise SchemaError(f"$ref {_shortened(reference)}: refers to itself")
    found: Any = root
    for name in reference[2:].split("/"):
        key = name.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            raise SchemaError(f"$ref {_shortened(reference)}: there is no such part")
        found = found[key]
    return LAYER_WEIGHT + _parts(root, found, (*references, reference), depth + 1)


def _mismatch(error: "ValidationError") -> Mismatch:
    path = "data"
    for name in error.instance_path:
        path += f"[{name}]" if isinstance(name, int) else f".{name}"
    return Mismatch(path, _shortened(error.message))


def _shortened(text: str) -> str:
    return text if len(text) <= DETAIL_CHARACTERS_MAX else text[: DETAIL_CHARACTERS_MAX - 1] + "…"


class SchemaField(NamedTuple):
    """One row of the documentation of a schema."""

    path: str
    kind: str
    is_required: bool
    description: str
    rules: str


FIELDS_MAX: Final = 300
_RULES: Final = (
    "enum", "const", "format", "pattern", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
)  # fmt: skip


def fields_of(document: dict[str, Any]) -> list[SchemaField]:
    """Return the fields that a schema describes, in its order; an accepted schema has no cycle."""
    rows: list[SchemaField] = []
    _add_fields(document, document, "", rows)
    return rows[:FIELDS_MAX]


def _add_fields(root: dict[str, Any], part: object, prefix: str, rows: list[SchemaField]) -> None:
    part = _resolved(root, part)
    for layer in part.get("allOf", ()):
        _add_fields(root, layer, prefix, rows)
    required = part.get("required", ())
    properties = part.get("properties", {})
    for name, given in properties.items():
        if len(rows) >= FIELDS_MAX:
            return
        field = _resolved(root, given)
        path = f"{prefix}.{name}" if prefix else name
        rules = [f"{rule}: {_shortened(_written(field[rule]))}" for rule in _RULES if rule in field]
        rows.append(
            SchemaField(
                path,
                _kind(root, field),
                name in required,
                str(field.get("description", "")),
                ", ".join(rules),
            )
        )
        items = field.get("items")
        if isinstance(items, dict):
            _add_fields(root, items, f"{path}[]", rows)
        _add_fields(root, field, path, rows)


def _resolved(root: dict[str, Any], part: object) -> dict[str, Any]:
    """Return a part of a schema with what it refers to."""
    if not isinstance(part, dict):
        return {}
    reference = part.get("$ref")
    if not isinstance(reference, str):
        return part
    found: Any = root
    for name in reference[2:].split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return {
        **_resolved(root, found),
        **{key: value for key, value in part.items() if key != "$ref"},
    }


def _kind(root: dict[str, Any], part: dict[str, Any]) -> str:
    kind = part.get("type")
    if isinstance(kind, list):
        return " | ".join(map(str, kind))
    if kind == "array" and isinstance(part.get("items"), dict):
        return f"array of {_kind(root, _resolved(root, part['items']))}"
    if kind is not None:
        return str(kind)
    several = part.get("anyOf") or part.get("oneOf")
    if isinstance(several, list):
        return " | ".join(dict.fromkeys(_kind(root, _resolved(root, one)) for one in several))
    return "any"


def _written(value: object) -> str:
    return orjson.dumps(value).decode()
