"""Which origins may embed the portal."""

import pytest

from dispatcher.core.origins import allows, is_origin_pattern


@pytest.mark.parametrize(
    "text",
    [
        "https://app.example.com",
        "https://app.example.com:8443",
        "https://*.example.com",
        "http://localhost:3000",
        "http://127.0.0.1",
    ],
)
def test_origin_pattern_of_https_or_loopback_is_accepted(text):
    assert is_origin_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "'self'",
        "https://*",
        "https://a.*.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://App.example.com",
        "https://app.example.com; script-src *",
        "https://app.example.com https://evil.example",
        "https://app.example.com\n",
        "https://user@app.example.com",
        "https://-a.example",
        "http://app.example.com",
        "http://localhost.evil.example",
        "javascript://x",
        "https://" + "a" * 300,
    ],
)
def test_origin_pattern_of_another_form_is_refused(text):
    assert not is_origin_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "origin", "expected"),
    [
        ("https://app.example.com", "https://app.example.com", True),
        ("https://app.example.com", "https://app.example.com:8443", False),
        ("https://app.example.com", "http://app.example.com", False),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://*.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("https://*.example.com", "https://a.example.com.evil.example", False),
    ],
)
def test_origin_is_allowed_by_equality_or_a_parent_domain(pattern, origin, expected):
    assert allows([pattern], origin) is expected
