"""Canonical URLs: what is refused, what becomes of the rest, and that it stays so; row A6."""

# ruff: noqa: RUF001 -- the odd characters and addresses are what is tested

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.addresses import PortPolicy
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.url import CanonicalUrl, canonical_url

REFUSED = [
    "",
    "example.com",
    "/path",
    "//127.0.0.1/",
    "https:/example.com",
    "https:example.com",
    "https://",
    "https:///path",
    "https:////127.0.0.1/",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "file:///etc/passwd",
    "ftp://example.com/",
    "gopher://example.com/",
    "javascript:alert(1)",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://@example.com/",
    "https://example.com#@evil.test/",
    "https://example.com/#fragment",
    "https://example.com/#",
    "https://example.com\\@evil.test/",
    "https://example.com/\\evil",
    "https://exam\tple.com/",
    "https://exam\nple.com/",
    "https://exam\rple.com/",
    "https://example.com/a b",
    " https://example.com/",
    "https://example.com/ ",
    "https://example.com/\x00",
    "https://example.com/\x7f",
    "https://example.com/%00",
    "https://example.com/?a=%00",
    "https://example.com/%",
    "https://example.com/%zz",
    "https://example%2ecom/",
    "https://example.com:/",
    "https://example.com:0/",
    "https://example.com:22/",
    "https://example.com:25/",
    "https://example.com:6379/",
    "https://example.com:5432/",
    "https://example.com:65536/",
    "https://example.com:999999999999/",
    "https://example.com:-1/",
    "https://example.com:+443/",
    "https://example.com:８０/",
    "https://example.com:80:80/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://2130706433/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://127.0.0.01/",
    "https://256.0.0.1/",
    "https://1.2.3.4.5/",
    "https://１２７.0.0.1/",
    "https://①②⑦.0.0.1/",
    "https://127。0。0。1/",
    "https://127．0．0．1/",
    "https://example.0x1/",
    "https://example.123/",
    "https://[::1/",
    "https://::1/",
    "https://[::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[127.0.0.1]/",
    "https://[]/",
    "https://[::1]x/",
    "https://a..b/",
    "https://.example.com/",
    "https://example.com../",
    "https://-example.com/",
    "https://example-.com/",
    "https://exa$mple.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 130 + "com/",
    "https://xn--a/",
    "https://xn--/",
    "https://exa\u00admple\u2044.com/",
    "https://example.com/\ud800",
    "https://example.com/" + "a" * 2048,
    "https://example.com/" + "é" * 1000,
]
ACCEPTED = {
    "https://example.com": "https://example.com/",
    "HTTPS://Example.COM/Path": "https://example.com/Path",
    "https://example.com:443/": "https://example.com/",
    "http://example.com:80": "http://example.com/",
    "https://example.com:80/": "https://example.com:80/",
    "https://example.com:08443/": "https://example.com:8443/",
    "https://example.com./a": "https://example.com/a",
    "https://example.com?a=b": "https://example.com/?a=b",
    "https://example.com/?": "https://example.com/?",
    "https://example.com/?a=http://b:c@d/": "https://example.com/?a=http://b:c@d/",
    "https://example.com/a/../b/./c//d": "https://example.com/a/../b/./c//d",
    "https://example.com/%e0%b9%84": "https://example.com/%E0%B9%84",
    "https://example.com/ไทย?q=ไทย": "https://example.com/%E0%B9%84%E0%B8%97%E0%B8%A2"
    "?q=%E0%B9%84%E0%B8%97%E0%B8%A2",
    'https://example.com/{a}|"<>`^': "https://example.com/%7Ba%7D%7C%22%3C%3E%60%5E",
    "https://ไทย.example/": "https://xn--o3cw4h.example/",
    "https://BÜCHER.example/": "https://xn--bcher-kva.example/",
    "https://аррӏе.example/": "https://xn--80ak6aa92e.example/",
    "https://erp_server.internal/": "https://erp_server.internal/",
    "https://localhost:8443/": "https://localhost:8443/",
    "https://192.0.2.1/": "https://192.0.2.1/",
    "https://[2001:DB8:0:0::1]:8443/x": "https://[2001:db8::1]:8443/x",
    "https://123.example/": "https://123.example/",
    "https://0x7f.example/": "https://0x7f.example/",
}
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
unicode_names = st.text(st.sampled_from("aüไทяλ中é１。.-"), min_size=1, max_size=12)
literals = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda one: f"[{one}]")
hosts = names | unicode_names | literals
ports = st.just("") | st.integers(0, 70_000).map(lambda port: f":{port}")
tails = st.text(st.sampled_from("abc/?.%2fF0A ไ{}#@\\&=+~;:"), max_size=20)
urls = st.builds(
    lambda scheme, host, port, tail: f"{scheme}://{host}{port}{tail}",
    st.sampled_from(["http", "https", "HTTPS", "ftp"]),
    hosts,
    ports,
    st.just("") | tails.map(lambda tail: "/" + tail),
)


def canonical(text: str) -> CanonicalUrl:
    return canonical_url(text, https_only=False)


@pytest.mark.parametrize("text", REFUSED)
def test_a6_what_readers_differ_on_is_refused(text: str):
    with pytest.raises(InvalidRequestError) as caught:
        canonical(text)
    assert {field for field, *_ in caught.value.problems} == {"url"}


@pytest.mark.parametrize(("text", "expected"), ACCEPTED.items())
def test_the_rest_has_one_form(text: str, expected: str):
    assert canonical(text).url == expected
    assert canonical(expected).url == expected


def test_the_parts_are_what_a_request_needs():
    assert canonical("https://[2001:db8::1]:8443/a?b=c") == CanonicalUrl(
        url="https://[2001:db8::1]:8443/a?b=c",
        scheme="https",
        host="2001:db8::1",
        port=8443,
        target="/a?b=c",
        host_header="[2001:db8::1]:8443",
        is_literal=True,
    )
    plain = canonical("http://example.com?x")
    assert (plain.host, plain.port, plain.target) == ("example.com", 80, "/?x")
    assert (plain.host_header, plain.is_literal) == ("example.com", False)


def test_http_is_refused_where_https_is_asked_for():
    with pytest.raises(InvalidRequestError, match="https only"):
        canonical_url("http://example.com/", https_only=True)
    assert canonical_url("https://example.com/", https_only=True).scheme == "https"


def test_ports_are_the_settings_to_say():
    only = PortPolicy.parse([5432])
    assert canonical_url("https://a.test:5432/", https_only=True, allow_ports=only).port == 5432
    with pytest.raises(InvalidRequestError, match="do not allow port 443"):
        canonical_url("https://a.test/", https_only=True, allow_ports=only)


def test_faults_are_told_together():
    with pytest.raises(InvalidRequestError) as caught:
        canonical("ftp://user@example.com/ #x")
    assert len(caught.value.problems) == 4


@given(text=urls)
def test_the_canonical_form_of_a_canonical_form_is_itself(text: str):
    try:
        first = canonical(text)
    except InvalidRequestError:
        return
    assert canonical(first.url) == first
    assert first.url.isascii()


@given(text=urls)
def test_a_numeric_host_is_a_canonical_address(text: str):
    try:
        url = canonical(text)
    except InvalidRequestError:
        return
    if url.is_literal:
        assert str(ipaddress.ip_address(url.host)) == url.host
    else:
        with pytest.raises(ValueError, match="does not appear to be"):
            ipaddress.ip_address(url.host)


@given(text=st.text(max_size=60) | st.text(max_size=60).map(lambda tail: f"https://{tail}"))
def test_any_text_is_refused_or_brought_into_form(text: str):
    try:
        url = canonical(text)
    except InvalidRequestError:
        return
    assert not set(url.url) & set("\\#\r\n\t \x00")
    assert url.url.startswith(f"{url.scheme}://{url.host_header}/")
    assert url.target.startswith("/")
