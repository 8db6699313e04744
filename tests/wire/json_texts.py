"""Hypothesis strategies for JSON as text, with odd numbers, escapes, spaces and duplicate keys."""

from hypothesis import strategies as st

_SPACES = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n"])

_DIGITS = st.text("0123456789", min_size=1, max_size=24)
numbers = st.one_of(
    st.sampled_from(
        [
            *["0", "-0", "-0.0", "0.0", "12.0", "1e21"],
            *["1e20", "123456789012345680000", "1e400", "-1e400", "1e-7", "0.000001"],
            *[
                "0.0001",
                "0.00001",
                "5e-324",
                "2e-324",
                "1.7976931348623157e308",
                "9007199254740993",
            ],
            *["12345678901234567890", "0.1", "1E5", "1e+5", "100000000000000000000000", "4.35"],
            *["0.30000000000000004", "1e-400", "0e99999", "1e0000000000001"],
        ]
    ),
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.builds(
        lambda sign, whole, fraction, exponent: (
            f"{sign}{whole.lstrip('0') or '0'}{'.' + fraction if fraction else ''}{exponent}"
        ),
        st.sampled_from(["", "-"]),
        _DIGITS,
        st.one_of(st.just(""), _DIGITS),
        st.one_of(
            st.just(""),
            st.builds(
                "{}{}{}".format,
                st.sampled_from("eE"),
                st.sampled_from(["", "+", "-"]),
                st.integers(0, 340),
            ),
        ),
    ),
)

_PIECES = st.one_of(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'),
    st.sampled_from("สมชาย 0123 \u2028\u2029\x7f\ufeff😀/"),
    st.sampled_from([r"\n", r"\"", r"\\", r"\/", r"\b", r"\f", r"\r", r"\t"]),
    st.integers(0, 0xFFFF).map(r"\u{:04x}".format),
    st.integers(0xD7F0, 0xE010).map(r"\u{:04X}".format),
    st.integers(0x30, 0x39).map(r"\u{:04x}".format),
)
strings = st.lists(_PIECES, max_size=8).map(lambda pieces: '"' + "".join(pieces) + '"')
keys = st.one_of(
    strings,
    st.integers(0, 12).map('"{}"'.format),
    st.sampled_from(
        [
            *['"__proto__"', '"4294967294"', '"4294967295"', '"01"', '"-1"', '""', '"a"', '"b"'],
            *['"constructor"', '"\\u0031"', '"1.5"', '"toJSON"'],
        ]
    ),
)


def _array(items: list[str], space: str) -> str:
    return "[" + space + f"{space},".join(items) + space + "]"


def _object(members: list[tuple[str, str]], space: str) -> str:
    written = [f"{space}{key}{space}:{space}{value}{space}" for key, value in members]
    return "{" + ",".join(written) + "}" if members else "{" + space + "}"


documents = st.recursive(
    st.one_of(numbers, strings, st.sampled_from(["true", "false", "null"])),
    lambda inner: st.one_of(
        st.builds(_array, st.lists(inner, max_size=5), _SPACES),
        st.builds(_object, st.lists(st.tuples(keys, inner), max_size=6), _SPACES),
    ),
    max_leaves=12,
)
objects = st.builds(_object, st.lists(st.tuples(keys, documents), max_size=6), _SPACES)
