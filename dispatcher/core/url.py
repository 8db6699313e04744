"""Brings an endpoint's URL into its one canonical form, or reports everything that is wrong with it.

A URL is read once, here, when it is saved and again before it is sent to; what is stored, shown,
checked, resolved and written on the request line is this form, so no two readers can differ on it.
What other readers are known to read differently is rejected, not repaired: user information,
backslashes, fragments, control characters and white space, `%00`, numeric hosts that are not four
decimal numbers, hosts that become numeric by IDNA (full-width digits, `。`), other schemes. The
canonical form of a canonical form is itself.

Sources: RFC 3986, RFC 5890 and UTS 46 for hosts; attack row A6.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

import idna

from dispatcher.core import limits
from dispatcher.core.addresses import DEFAULT_PORTS, PortPolicy
from dispatcher.core.errors import InvalidRequestError
from dispatcher.core.problems import Problem, problem

_HOST_CHARACTERS_MAX: Final = 253
_PORT_MAX: Final = 65_535
_PORT_DIGITS_MAX: Final = 5
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_SHAPE: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/?]*)([^?]*)(\?.*)?", re.DOTALL)
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ufeff]")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# What the kernel, a browser or a C library may read as a number in the last label of a host.
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_PERCENT: Final = re.compile(r"%(?:[0-9a-fA-F]{2})?")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9\-._~!$&'()*+,;=:@/?%]")


# A part of a path that a person would name a route by: `hooks`, `order-events`, `v2`. Identifiers, keys
# and tokens have capitals, more digits, or are longer.
_PLAIN_SEGMENT: Final = re.compile(r"[a-z][a-z._-]{0,23}[0-9]{0,2}|")
URL_MASK: Final = "********"


class CanonicalUrl(NamedTuple):
    """One endpoint's URL, taken apart; every part is ASCII."""

    url: str
    """The canonical form: what is stored and shown."""
    scheme: str
    """`http` or `https`."""
    host: str
    """A name in A-label form, or a numeric address; IPv6 without brackets."""
    port: int
    target: str
    """Path and query, as they stand on the request line."""
    host_header: str
    """The host, bracketed if IPv6, with the port unless it is the scheme's own."""
    is_literal: bool
    """The host is a numeric address, so the address policy can decide at once."""


@lru_cache(maxsize=1024)
def canonical_url(
    text: str, *, https_only: bool, allow_ports: PortPolicy = DEFAULT_PORTS
) -> CanonicalUrl:
    """Return the canonical form of a URL that a person typed or that a row holds.

    Raises:
        InvalidRequestError: it breaks rules; `problems` has one entry for each, field `url`.
    """
    problems: list[Problem] = []
    if len(text) > limits.URL_CHARACTERS_MAX:
        raise _refusal([_too_long()])
    if _FORBIDDEN.search(text):
        problems.append(_wrong("url_characters"))
    if "#" in text:
        problems.append(_wrong("url_fragment"))
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        problems.append(_wrong("url_relative"))
        raise _refusal(problems)
    scheme = shape[1].lower()
    if scheme not in _DEFAULT_PORTS:
        problems.append(_wrong("url_scheme"))
    elif https_only and scheme != "https":
        problems.append(_wrong("url_profile_https"))
    authority = shape[2]
    if "@" in authority:
        problems.append(_wrong("url_credentials"))
    if problems:
        raise _refusal(problems)
    host, port = _split_authority(authority, problems)
    port = _DEFAULT_PORTS[scheme] if port is None else port
    canonical_host, is_literal, code = _canonical_host(host)
    if code:
        problems.append(_wrong(code))
    if not problems and not allow_ports.allows(port):
        problems.append(problem("url", "url_port_denied", port=port))
    target = _canonical_target(shape[3] or "/", shape[4] or "", problems)
    if problems:
        raise _refusal(problems)
    bracketed = f"[{canonical_host}]" if ":" in canonical_host else canonical_host
    host_header = bracketed if port == _DEFAULT_PORTS[scheme] else f"{bracketed}:{port}"
    url = f"{scheme}://{host_header}{target}"
    if len(url) > limits.URL_CHARACTERS_MAX:
        raise _refusal([_too_long()])
    return CanonicalUrl(url, scheme, canonical_host, port, target, host_header, is_literal)


def _refusal(problems: list[Problem]) -> InvalidRequestError:
    return InvalidRequestError(problems)


def _wrong(code: str) -> Problem:
    return problem("url", code)


def _too_long() -> Problem:
    return problem("url", "too_long", maximum=limits.URL_CHARACTERS_MAX)


def _split_authority(authority: str, problems: list[Problem]) -> tuple[str, int | None]:
    host, colon, digits = authority.rpartition(":")
    if not colon or digits.endswith("]"):
        return authority, None
    if digits.isascii() and digits.isdigit() and len(digits) <= _PORT_DIGITS_MAX:
        port = int(digits)
        if 0 < port <= _PORT_MAX:
            return host, port
    problems.append(_wrong("url_port"))
    return host, None


@lru_cache(maxsize=1024)
def _canonical_host(host: str) -> tuple[str, bool, str]:
    """Return the host's canonical form, whether it is numeric, and the code of its problem, if it has one."""
    if host.startswith("[") or ":" in host:
        address = _canonical_ipv6(host)
        return address, True, "" if address else "url_ipv6"
    if not host:
        return "", False, "url_no_host"
    try:
        name = host.lower() if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError:
        return "", False, "url_international_host"
    name = name.removesuffix(".")
    if len(name) > _HOST_CHARACTERS_MAX or not all(map(_LABEL.fullmatch, name.split("."))):
        return "", False, "url_host"
    if _NUMERIC_LABEL.fullmatch(name.rpartition(".")[2]):
        if name != host or not _is_canonical_ipv4(name):
            return "", False, "url_ipv4"
        return name, True, ""
    if not _are_a_labels_valid(name):
        return "", False, "url_international_host"
    return name, False, ""


def _canonical_ipv6(host: str) -> str:
    if host.startswith("[") and host.endswith("]") and "%" not in host:
        try:
            return str(IPv6Address(host[1:-1]))
        except ValueError:
            pass
    return ""


def _is_canonical_ipv4(name: str) -> bool:
    try:
        return str(IPv4Address(name)) == name
    except ValueError:
        return False


def _are_a_labels_valid(name: str) -> bool:
    try:
        return all(
            idna.alabel(idna.ulabel(label)).decode("ascii") == label
            for label in name.split(".")
            if label.startswith("xn--")
        )
    except UnicodeError:
        return False


def _canonical_target(path: str, query: str, problems: list[Problem]) -> str:
    """Return path and query with percent-escapes in capitals and the rest escaped where needed.

    Dot segments are kept: a receiver's path is its own affair, and no decision of ours reads it.
    """
    target = path + query
    if any(len(escape) == 1 for escape in _PERCENT.findall(target)):
        problems.append(_wrong("url_percent"))
    if "%00" in target:
        problems.append(_wrong("url_nul"))
    try:
        return _UNSAFE.sub(_escape, _PERCENT.sub(lambda escape: escape[0].upper(), target))
    except UnicodeEncodeError:
        problems.append(_wrong("invalid_text"))
        return ""


def _escape(character: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in character[0].encode())


def masked_url(url: str) -> str:
    """Return a URL without what may be a credential: query values, and parts of the path that are no words.

    A shared access signature (`?sig=`) and the URL of a chat webhook are credentials. The
    origin, plain parts of the path and the names of parameters stay, so that people know the endpoint.
    """
    address, question, query = url.partition("?")
    origin, *segments = address.split("/")
    if len(segments) > 1:  # "https:", "", "host", path...
        origin, segments = "/".join([origin, *segments[:2]]), segments[2:]
    shown = [one if _PLAIN_SEGMENT.fullmatch(one) else URL_MASK for one in segments]
    masked = "/".join([origin, *shown])
    if not question:
        return masked
    names = (one.partition("=") for one in query.split("&"))
    parts = (
        f"{name}={URL_MASK}" if equals and _PLAIN_SEGMENT.fullmatch(name) else URL_MASK
        for name, equals, _ in names
    )
    return f"{masked}?{'&'.join(parts)}"
