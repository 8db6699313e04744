"""The head of one HTTP/1.1 request, from the request line to the blank line.

A template is compiled per endpoint: what is the same on every attempt is put together once, so that
an attempt costs one signature and one join. The order on the wire is fixed: Host, what every one
has, the profile's headers, the signature, traceparent, the endpoint's custom headers.

What always holds: no value can end a line, regardless of the content of the database, so no row can
add a header or a second request; ours win over custom headers of the same name in any case (A12).
The exchange trusts this module and checks nothing again.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from operator import itemgetter

from dispatcher.core.errors import EncodingError, ProfileError, SecretError
from dispatcher.core.limits import CUSTOM_HEADERS_BYTES_MAX, CUSTOM_HEADERS_COUNT_MAX
from dispatcher.core.problems import PROBLEMS_MAX, Problem, problem
from dispatcher.core.profile import (
    HEADER_NAME,
    RESERVED_HEADERS,
    HeaderSource,
    Profile,
    SecretPlace,
)
from dispatcher.core.secret import Secret, check, secret_under
from dispatcher.core.signing import Signer
from dispatcher.core.url import CanonicalUrl

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_TRACEPARENT = re.compile(r"[\x21-\x7e]{1,256}")
_LINE_OVERHEAD_BYTES = len(": \r\n")
_PLACES = {
    HeaderSource.EVENT_ID: 0,
    HeaderSource.DELIVERY_ID: 1,
    HeaderSource.EVENT_TYPE: 2,
    HeaderSource.TIMESTAMP: 3,
}


def validate_headers(
    headers: Mapping[str, str], profile: Profile, also: Sequence[Profile] = ()
) -> list[Problem]:
    """Return every problem of an endpoint's custom headers, next to those of all its profiles.

    The field is `headers` for problems of all of them, `headers.<name>` for those of one.
    """
    problems = _malformed(headers)
    ours = _our_names(profile, *also)
    problems.extend(
        problem(f"headers.{name}", "reserved_header") for name in headers if _folded(name) in ours
    )
    return problems


def validate_also_sign(profile: Profile, also: Sequence[Profile]) -> list[Problem]:
    """Return why profiles cannot also sign the requests of an endpoint under `profile`.

    The field is `also_sign[<index>]`. Receivers cannot distinguish two headers of one name, so no two
    profiles may have one in common.
    """
    if not also:
        return []
    if not profile.signs:
        return [problem("also_sign", "also_sign_not_possible", profile=profile.name)]
    problems: list[Problem] = []
    owners = {_folded(name): profile for name in header_names(profile)}
    for index, other in enumerate(also):
        field = f"also_sign[{index}]"
        if other is profile or other in also[:index]:
            problems.append(problem(field, "duplicate"))
            continue
        if not other.signs:
            problems.append(problem(field, "also_sign_without_signature", profile=other.name))
            continue
        common = [name for name in header_names(other) if _folded(name) in owners]
        if common:
            values = {"header": common[0], "profile": other.name}
            owner = owners[_folded(common[0])].name
            problems.append(problem(field, "also_sign_collision", other=owner, **values))
        owners |= dict.fromkeys(map(_folded, header_names(other)), other)
    return problems


def header_names(profile: Profile) -> list[str]:
    """Return the names of a profile's headers, that of the signature last if there is one."""
    names = [*(field.name for field in profile.headers), profile.signature.header]
    return [name for name in names if name]


def headers_bytes_count(headers: Mapping[str, str]) -> int:
    """Return how many bytes custom headers take on the wire."""
    return sum(len(name) + len(value) + _LINE_OVERHEAD_BYTES for name, value in headers.items())


@lru_cache(maxsize=64)
def _our_names(*profiles: Profile) -> frozenset[str]:
    names = {_folded(name) for profile in profiles for name in header_names(profile)}
    return frozenset(names | RESERVED_HEADERS)


@lru_cache(maxsize=64)
def _profile_fields(
    profile: Profile,
) -> tuple[str, Callable[[tuple[str, str, str, int]], object], str]:
    """Return what a profile's headers have in common: their format, their values, the signature's name."""
    fields = "".join(f"\r\n{field.name}: ".replace("%", "%%") + "%s" for field in profile.headers)
    places = [_PLACES[field.source] for field in profile.headers]
    values = itemgetter(*places) if places else _none
    return fields, values, f"\r\n{profile.signature.header}: "


def _folded(name: str) -> str:
    """Return a header's name as receivers may come to see it: CGI and WSGI make one of `-` and `_`."""
    return name.lower().replace("_", "-")


def _malformed(headers: Mapping[str, str]) -> list[Problem]:
    problems: list[Problem] = []
    if not headers:
        return problems
    if len(headers) > CUSTOM_HEADERS_COUNT_MAX:
        problems.append(
            problem(
                "headers",
                "too_many_headers",
                count=len(headers),
                maximum=CUSTOM_HEADERS_COUNT_MAX,
            )
        )
    seen: set[str] = set()
    size = headers_bytes_count(headers)
    # More headers than that are a problem already, so nothing passes unchecked.
    for name, value in islice(headers.items(), PROBLEMS_MAX):
        if HEADER_NAME.fullmatch(name) is None:
            problems.append(problem(f"headers.{name}", "invalid_header_name"))
        if name.lower() in seen:
            problems.append(problem(f"headers.{name}", "duplicate_header"))
        seen.add(name.lower())
        if _CONTROL.search(value) is not None:
            problems.append(problem(f"headers.{name}", "header_control_character"))
        elif not value.isascii() and not _is_latin_1(value):
            problems.append(problem(f"headers.{name}", "header_not_latin_1"))
        elif value != value.strip():
            problems.append(problem(f"headers.{name}", "header_spaces"))
    if size > CUSTOM_HEADERS_BYTES_MAX:
        problems.append(
            problem("headers", "headers_too_large", count=size, maximum=CUSTOM_HEADERS_BYTES_MAX)
        )
    return problems


def _is_latin_1(value: str) -> bool:
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def _none(_: object) -> tuple[()]:
    return ()


class RequestTemplate:
    """Makes the heads of an endpoint's requests; recompiled when the endpoint changes."""

    __slots__ = ("_after", "_also", "_before", "_fields", "_sign", "_signature_name", "_values")

    def __init__(
        self,
        *,
        profile: Profile,
        target: str,
        host_header: str,
        user_agent: str,
        custom_headers: Mapping[str, str],
        signer: Signer | None,
        also: Sequence[tuple[Profile, Signer]] = (),
    ) -> None:
        """Compiles what is the same on every attempt.

        `target` is path and query as they go on the wire; `host_header` has the port where it is
        not the scheme's own. Custom headers that ours replace are left out. Without a signer there
        is no signature header. `also` are the profiles whose headers and signatures follow.

        Raises:
            ProfileError: a value that was checked when it was saved is not fit to be sent any more.
        """
        problems = [one.text for one in _malformed(custom_headers)]
        problems += [
            f"{value!r} is not visible ASCII"
            for value in (target, host_header)
            if _VISIBLE.fullmatch(value) is None
        ]
        if _CONTROL.search(user_agent) is not None or not user_agent.isascii():
            problems.append("the user agent is not printable ASCII")
        if problems:
            raise ProfileError("; ".join(problems))
        ours = _our_names(profile, *(other for other, _ in also))
        self._before = (
            f"POST {target} HTTP/1.1\r\nHost: {host_header}\r\nContent-Type: application/json\r\n"
            f"User-Agent: {user_agent}\r\nAccept-Encoding: identity\r\nContent-Length: "
        )
        self._fields, self._values, self._signature_name = _profile_fields(profile)
        self._sign = None if signer is None else signer.sign
        self._also = tuple((*_profile_fields(other), one.sign) for other, one in also)
        self._after = "".join(
            f"\r\n{name}: {value}"
            for name, value in custom_headers.items()
            if _folded(name) not in ours
        )

    def head(
        self,
        *,
        event_id: str,
        delivery_id: str,
        event_type: str,
        timestamp: int,
        body: bytes,
        traceparent: str | None,
    ) -> bytes:
        """Return the head of one attempt, the blank line included; `body` follows it as it is.

        `timestamp` is whole seconds since 1970 and goes into headers and signature alike.

        Raises:
            EncodingError: an id, the type or the traceparent is not fit for a header.
        """
        values = f"{event_id}{delivery_id}{event_type}"
        if not (values.isascii() and values.isprintable()):
            raise EncodingError(f"{values!r} is not fit for a header")
        fields = self._fields % self._values((event_id, delivery_id, event_type, timestamp))
        if self._sign is not None:
            signature = self._sign(
                event_id=event_id,
                delivery_id=delivery_id,
                event_type=event_type,
                timestamp=timestamp,
                body=body,
            )
            fields += self._signature_name + signature
        for others, values_of, signature_name, sign in self._also:
            fields += others % values_of((event_id, delivery_id, event_type, timestamp))
            fields += signature_name + sign(
                event_id=event_id,
                delivery_id=delivery_id,
                event_type=event_type,
                timestamp=timestamp,
                body=body,
            )
        if traceparent is not None:
            if _TRACEPARENT.fullmatch(traceparent) is None:
                raise EncodingError(f"the traceparent {traceparent!r} is not fit for a header")
            fields += f"\r\ntraceparent: {traceparent}"
        return f"{self._before}{len(body)}{fields}{self._after}\r\n\r\n".encode("latin-1")


def request_template(
    *,
    profile: Profile,
    url: CanonicalUrl,
    secrets: Sequence[Secret],
    user_agent: str,
    custom_headers: Mapping[str, str],
    also: Sequence[Profile] = (),
) -> RequestTemplate:
    """Compile the requests of an endpoint; its secrets sign them, or are the path of its URL.

    The secrets are those that sign now, newest first. `also` are the other profiles that sign.

    Raises:
        SecretError: a secret has the wrong form, or there is none for `also`. ProfileError: as
            `RequestTemplate` raises it.
    """
    if also and not secrets:
        raise SecretError(problem("also_sign", "also_sign_without_secret"))
    in_url = profile.secret.place is SecretPlace.URL
    target = url.target
    if in_url:
        for secret in secrets:
            check(profile, secret)
            target = target.rstrip("/") + secret.reveal()
    return RequestTemplate(
        profile=profile,
        target=target,
        host_header=url.host_header,
        user_agent=user_agent,
        custom_headers=custom_headers,
        signer=Signer(profile, secrets) if secrets and not in_url else None,
        also=[(other, _also_signer(other, profile, secrets)) for other in also],
    )


def _also_signer(other: Profile, profile: Profile, secrets: Sequence[Secret]) -> Signer:
    signing = secrets if other.several_signatures else secrets[:1]
    return Signer(other, [secret_under(other, profile, one) for one in signing])
