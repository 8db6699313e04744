"""Code that receivers can copy to verify the signatures of a profile, in six languages.

There is one template for each language. It is filled from the profile's own rules, so that a vendor's file gets the
code too. What always holds: the body is verified as received, signatures are compared in constant time, a signed
timestamp is bounded, and an empty secret verifies nothing, because anyone can sign with it. The tests run the code of
every shipped profile on docs/vectors.json wherever the language is installed.
"""

import functools
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import jinja2

from dispatcher.core.profile import (
    HeaderSource,
    KeyForm,
    Profile,
    SecretPlace,
    SignatureEncoding,
    SignedPart,
)

TOLERANCE_SECONDS: Final = 300
"""Of a signed timestamp, as the sources and Standard Webhooks have it."""
_LANGUAGES: Final[Mapping[str, str]] = {
    "Python": "python",
    "JavaScript": "javascript",
    "PHP": "php",
    "Java": "java",
    "Go": "go",
    "C#": "csharp",
}
"""The name of each template."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _=:,;./+-]*")
"""Texts that need no escape in any of the languages."""
_SOURCES: Final = {
    SignedPart.EVENT_ID: HeaderSource.EVENT_ID,
    SignedPart.DELIVERY_ID: HeaderSource.DELIVERY_ID,
    SignedPart.TIMESTAMP: HeaderSource.TIMESTAMP,
}


class _Rule(NamedTuple):
    """What the code of a profile does."""

    header: str
    """Of the signature, in lower case, as all header names here."""
    separator: str | None
    """Between signatures; None: there is one."""
    prefix: str
    is_hex: bool
    key_prefix: str | None
    """The key is the decoded base64 after it; None: the secret's own bytes."""
    leading: tuple[tuple[str, str], ...]
    """What precedes the body: a name for it and its header; none for a timestamp in the signature's own header."""
    lead: str
    """Before the timestamp in the signature's header."""

    @property
    def has_timestamp(self) -> bool:
        return any(name == "timestamp" for name, _ in self.leading)


def verification_code(profile: Profile) -> Mapping[str, str]:
    """Return the code in each language by its name; empty where the profile signs nothing or in another way."""
    rule = _rule(profile)
    if rule is None:
        return {}
    return {language: _write(name, rule=rule) for language, name in _LANGUAGES.items()}


def public_key_code(profile: Profile) -> Mapping[str, str]:
    """Return the code that verifies ed25519 signatures, by language; empty where the profile has none."""
    rule, keys = _rule(profile), profile.ed25519
    if rule is None or keys is None or rule.separator is None or rule.lead:
        return {}
    if not rule.has_timestamp or not all(
        _PLAIN.fullmatch(text) for text in (keys.public_key_prefix, keys.signature_prefix)
    ):
        return {}
    return {
        language: _write(f"{_LANGUAGES[language]}_public_key", rule=rule, keys=keys)
        for language in _LANGUAGES
    }


def _write(template: str, **values: object) -> str:
    return _templates().get_template(f"{template}.jinja").render(**values)


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(  # noqa: S701 -- code, not HTML: `_PLAIN` is its escape
        loader=jinja2.PackageLoader("dispatcher.admin.console", "verification_code"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["tolerance"] = TOLERANCE_SECONDS
    environment.filters["escaped"] = re.escape
    return environment


def _rule(profile: Profile) -> _Rule | None:
    signature = profile.signature
    if (
        not signature.header
        or signature.encoding is SignatureEncoding.SECRET
        or profile.secret.place is not SecretPlace.KEY
        or not signature.content
        or signature.content[-1] is not SignedPart.BODY
        or SignedPart.BODY in signature.content[:-1]
    ):
        return None
    by_source = {field.source: field.name.lower() for field in profile.headers}
    lead = ""
    if signature.lead:
        kinds = [one.source for one in signature.lead]
        if kinds != [None, HeaderSource.TIMESTAMP, None] or signature.separator is None:
            return None
        lead = signature.lead[0].text
        by_source[HeaderSource.TIMESTAMP] = ""
    leading = []
    for part in signature.content[:-1]:
        if _SOURCES[part] not in by_source:
            return None
        name = "timestamp" if part is SignedPart.TIMESTAMP else "id"
        leading.append((name, by_source[_SOURCES[part]]))
    if len({name for name, _ in leading}) != len(leading):
        return None
    is_base64 = profile.secret.key is KeyForm.BASE64
    rule = _Rule(
        header=signature.header.lower(),
        separator=signature.separator,
        prefix=signature.prefix,
        is_hex=signature.encoding is SignatureEncoding.HEX,
        key_prefix=profile.secret.prefix if is_base64 else None,
        leading=tuple(leading),
        lead=lead,
    )
    texts = [rule.header, rule.separator or "", rule.prefix, rule.key_prefix or "", rule.lead]
    texts += [header for _, header in leading]
    return rule if all(_PLAIN.fullmatch(text) for text in texts) else None
