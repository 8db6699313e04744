"""Response headers are shown without a character that steers a terminal or a reader's eye."""

from hypothesis import given
from hypothesis import strategies as st

from dispatcher.admin.operations.objects import response_headers
from dispatcher.core.printable import STEERING

HOSTILE = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode(errors="replace")),
    st.sampled_from([b"\x1b[2J", "\u202egpj.exe".encode(), b"a\0b", b"\xff\xfe", b"\r: x", b":"]),
)


@given(st.lists(HOSTILE, max_size=5))
def test_response_headers_of_any_bytes_are_printable_text(lines: list[bytes]):
    for header in response_headers(b"\n".join(lines)):
        text = header.name + header.value
        assert STEERING.search(text) is None
        text.encode()


def test_response_headers_are_split_folded_and_escaped():
    found = response_headers(b"Server: nginx\nX:\ta\n b\x1b\nN: \xe9\0\nT: \xe0\xb8\x81\nodd")
    assert [(one.name, one.value) for one in found] == [
        ("Server", "nginx"),
        ("X", "a b\\x1b"),
        ("N", "é\\x00"),
        ("T", "ก"),
        ("odd", ""),
    ]
    assert response_headers(None) == []
