"""Code that receivers can copy to verify the signatures of a profile, in six languages.

The code is written from the profile's own rules, so that a vendor's file gets it too. What always holds: the body is
verified as received, signatures are compared in constant time, a signed timestamp is bounded, and an empty secret
verifies nothing, because anyone can sign with it. The tests run the code of every shipped profile on docs/vectors.json
wherever the language is installed.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

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
    return {} if rule is None else {name: write(rule) for name, write in _LANGUAGES.items()}


def public_key_code(profile: Profile) -> Mapping[str, str]:
    """Return the code that verifies ed25519 signatures, by language; empty where the profile has none.

    Each language uses its own library or, in Python, the one that most programs have.
    """
    rule, keys = _rule(profile), profile.ed25519
    if rule is None or keys is None or rule.separator is None or rule.lead:
        return {}
    texts = (keys.public_key_prefix, keys.signature_prefix)
    if not all(_PLAIN.fullmatch(text) for text in texts):
        return {}
    names = [name for name, _ in rule.leading]
    values = {
        "signatures": rule.header,
        "separator": rule.separator,
        "key_prefix": keys.public_key_prefix,
        "prefix": keys.signature_prefix,
        "prefix_size": str(len(keys.signature_prefix)),
        "tolerance": str(TOLERANCE_SECONDS),
    }
    written: dict[str, str] = {}
    for language, (template, read, join) in _PUBLIC_KEY_CODE.items():
        leading = "".join(
            read.replace("NAME", name).replace("HEADER", header) for name, header in rule.leading
        )
        content = "".join(join.replace("NAME", name) for name in names)
        text = template.replace("LEADING\n", leading).replace("CONTENT", content)
        for name, value in values.items():
            text = text.replace(f"<{name}>", value)
        written[language] = text if rule.has_timestamp else ""
    return {language: text for language, text in written.items() if text}


_PUBLIC_KEY_CODE: Final[Mapping[str, tuple[str, str, str]]] = {
    "Python": (
        """\
import base64
import re
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


# headers: names in lower case. body: the bytes as received, before any parser.
def verify(headers, body, public_key, now=None):
LEADING
    if not re.fullmatch("[0-9]{1,12}", timestamp):
        return False
    if abs((now or time.time()) - int(timestamp)) > <tolerance>:
        return False  # too old, or in the future
    content = f"CONTENT".encode() + body
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("<key_prefix>")))
    for one in headers.get("<signatures>", "").split("<separator>"):
        if one.startswith("<prefix>"):
            try:
                key.verify(base64.b64decode(one[<prefix_size>:]), content)
                return True
            except (InvalidSignature, ValueError):
                continue
    return False
""",
        '    NAME = headers.get("HEADER", "")\n',
        "{NAME}.",
    ),
    "JavaScript": (
        """\
const crypto = require('node:crypto');

// headers: req.headers. body: a Buffer with the bytes as received, as express.raw() gives it.
function verify(headers, body, publicKey, now = Date.now() / 1000) {
LEADING
  if (!/^[0-9]{1,12}$/.test(timestamp)) return false;
  if (Math.abs(now - Number(timestamp)) > <tolerance>) return false; // too old, or in the future
  const x = Buffer.from(publicKey.replace(/^<key_prefix>/, ''), 'base64').toString('base64url');
  const key = crypto.createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
  const content = Buffer.concat([Buffer.from(`CONTENT`), body]);
  const received = String(headers['<signatures>'] ?? '').split('<separator>');
  const signatures = received.filter((one) => one.startsWith('<prefix>')).map((one) => one.slice(<prefix_size>));
  return signatures.some((one) => crypto.verify(null, content, key, Buffer.from(one, 'base64')));
}
""",
        "  const NAME = String(headers['HEADER'] ?? '');\n",
        "${NAME}.",
    ),
    "PHP": (
        """\
<?php
// $headers: array_change_key_case(getallheaders()). $body: file_get_contents('php://input').
// Needs ext-sodium, which PHP has by default.
function verify(array $headers, string $body, string $publicKey, ?int $now = null): bool
{
LEADING
    if (!preg_match('/^[0-9]{1,12}\\z/', $timestamp)) {
        return false;
    }
    if (abs(($now ?? time()) - (int) $timestamp) > <tolerance>) {
        return false; // too old, or in the future
    }
    $key = base64_decode(preg_replace('/^<key_prefix>/', '', $publicKey));
    $content = CONTENT$body;
    foreach (explode('<separator>', $headers['<signatures>'] ?? '') as $one) {
        $signature = str_starts_with($one, '<prefix>') ? base64_decode(substr($one, <prefix_size>)) : '';
        if (strlen($signature) === 64 && sodium_crypto_sign_verify_detached($signature, $content, $key)) {
            return true;
        }
    }
    return false;
}
""",
        "    $NAME = $headers['HEADER'] ?? '';\n",
        "$NAME . '.' . ",
    ),
    "Go": (
        """\
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// Verify reports whether a request is genuine. header: r.Header.Get. body: what io.ReadAll(r.Body) returns.
func Verify(header func(string) string, body []byte, publicKey string, now time.Time) bool {
LEADING
	seconds, err := strconv.ParseUint(timestamp, 10, 40)
	if err != nil {
		return false
	}
	if age := now.Unix() - int64(seconds); age > <tolerance> || age < -<tolerance> {
		return false // too old, or in the future
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(publicKey, "<key_prefix>"))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return false
	}
	content := append([]byte(CONTENT""), body...)
	for _, one := range strings.Split(header("<signatures>"), "<separator>") {
		encoded, found := strings.CutPrefix(one, "<prefix>")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if found && err == nil && ed25519.Verify(key, content, signature) {
			return true
		}
	}
	return false
}
""",
        '\tNAME := header("HEADER")\n',
        'NAME + "." + ',
    ),
}


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


def _lines(*lines: str | None) -> str:
    return "\n".join(line for line in lines if line is not None) + "\n"


def _python(rule: _Rule) -> str:
    signatures = f'received.split("{rule.separator}")' if rule.separator else "[received]"
    body = [f'received = headers.get("{rule.header}", "")', f"signatures = {signatures}"]
    for name, header in rule.leading:
        found = f'headers.get("{header}", "")'
        if not header:
            size = len(rule.lead)
            found = (
                f'next((one[{size}:] for one in signatures if one.startswith("{rule.lead}")), "")'
            )
        body.append(f"{name} = {found}")
    if rule.has_timestamp:
        body += [
            'if not re.fullmatch("[0-9]{1,12}", timestamp):',
            "    return False",
            f"if abs((now or time.time()) - int(timestamp)) > {TOLERANCE_SECONDS}:",
            "    return False  # too old, or in the future",
        ]
    lead = "".join(f"{{{name}}}." for name, _ in rule.leading)
    body.append(f'content = f"{lead}".encode() + body' if lead else "content = body")
    if rule.key_prefix is None:
        body.append("key = secret.encode()")
    else:
        body.append(f'key = base64.b64decode(secret.removeprefix("{rule.key_prefix}"))')
    body.append("digest = hmac.new(key, content, hashlib.sha256)")
    written = "digest.hexdigest()" if rule.is_hex else "base64.b64encode(digest.digest()).decode()"
    body.append(f'expected = "{rule.prefix}" + {written}')
    body.append(
        "return any(hmac.compare_digest(expected.encode(), one.encode()) for one in signatures)"
    )
    return _lines(
        None if rule.is_hex and rule.key_prefix is None else "import base64",
        "import hashlib",
        "import hmac",
        "import re" if rule.has_timestamp else None,
        "import time" if rule.has_timestamp else None,
        "",
        "",
        "# headers: names in lower case. body: the bytes as received, before any parser.",
        "def verify(headers, body, secret, now=None):",
        "    if not secret:",
        "        return False",
        *(f"    {line}" for line in body),
    )


def _javascript(rule: _Rule) -> str:
    signatures = f"received.split('{rule.separator}')" if rule.separator else "[received]"
    body = [f"const received = String(headers['{rule.header}'] ?? '');"]
    body.append(f"const signatures = {signatures};")
    for name, header in rule.leading:
        found = f"String(headers['{header}'] ?? '')"
        if not header:
            found = (
                f"(signatures.find((one) => one.startsWith('{rule.lead}')) ?? '')"
                f".slice({len(rule.lead)})"
            )
        body.append(f"const {name} = {found};")
    if rule.has_timestamp:
        body += [
            "if (!/^[0-9]{1,12}$/.test(timestamp)) return false;",
            f"if (Math.abs(now - Number(timestamp)) > {TOLERANCE_SECONDS}) return false; // too old, or in the future",
        ]
    lead = "".join(f"${{{name}}}." for name, _ in rule.leading)
    content = f"Buffer.concat([Buffer.from(`{lead}`), body])" if lead else "body"
    key = "secret"
    if rule.key_prefix is not None:
        start = f"secret.startsWith('{rule.key_prefix}') ? secret.slice({len(rule.key_prefix)}) : secret"
        key = f"Buffer.from({start}, 'base64')"
    encoding = "hex" if rule.is_hex else "base64"
    body += [
        f"const content = {content};",
        f"const key = {key};",
        f"const digest = crypto.createHmac('sha256', key).update(content).digest('{encoding}');",
        f"const expected = Buffer.from('{rule.prefix}' + digest);",
        "return signatures.some((one) => {",
        "  const signature = Buffer.from(one);",
        "  return signature.length === expected.length && crypto.timingSafeEqual(signature, expected);",
        "});",
    ]
    return _lines(
        "const crypto = require('node:crypto');",
        "",
        "// headers: req.headers. body: a Buffer with the bytes as received, as express.raw() gives it.",
        "function verify(headers, body, secret, now = Date.now() / 1000) {",
        "  if (!secret) return false;",
        *(f"  {line}" for line in body),
        "}",
    )


def _php(rule: _Rule) -> str:
    signatures = f"explode('{rule.separator}', $received)" if rule.separator else "[$received]"
    body = [f"$received = $headers['{rule.header}'] ?? '';", f"$signatures = {signatures};"]
    for name, header in rule.leading:
        if header:
            body.append(f"${name} = $headers['{header}'] ?? '';")
            continue
        body += [
            f"${name} = '';",
            "foreach (array_reverse($signatures) as $one) {",
            f"    if (str_starts_with($one, '{rule.lead}')) {{",
            f"        ${name} = substr($one, {len(rule.lead)});",
            "    }",
            "}",
        ]
    if rule.has_timestamp:
        body += [
            "if (!preg_match('/^[0-9]{1,12}\\z/', $timestamp)) {",
            "    return false;",
            "}",
            f"if (abs(($now ?? time()) - (int) $timestamp) > {TOLERANCE_SECONDS}) {{",
            "    return false; // too old, or in the future",
            "}",
        ]
    lead = "".join(f"${name} . '.' . " for name, _ in rule.leading)
    key = "$secret"
    if rule.key_prefix is not None:
        key = f"base64_decode(preg_replace('/^{re.escape(rule.key_prefix)}/', '', $secret))"
    digest = "hash_hmac('sha256', $content, $key)"
    if not rule.is_hex:
        digest = "base64_encode(hash_hmac('sha256', $content, $key, true))"
    body += [
        f"$content = {lead}$body;",
        f"$key = {key};",
        f"$expected = '{rule.prefix}' . {digest};",
        "$valid = false;",
        "foreach ($signatures as $one) {",
        "    $valid = hash_equals($expected, $one) || $valid;",
        "}",
        "return $valid;",
    ]
    return _lines(
        "<?php",
        "// $headers: array_change_key_case(getallheaders()). $body: file_get_contents('php://input').",
        "function verify(array $headers, string $body, string $secret, ?int $now = null): bool",
        "{",
        "    if ($secret === '') {",
        "        return false;",
        "    }",
        *(f"    {line}" for line in body),
        "}",
    )


def _java(rule: _Rule) -> str:
    signatures = (
        f'received.split(Pattern.quote("{rule.separator}"))'
        if rule.separator
        else "new String[] {received}"
    )
    body = [
        f'String received = headers.getOrDefault("{rule.header}", "");',
        f"String[] signatures = {signatures};",
    ]
    for name, header in rule.leading:
        if header:
            body.append(f'String {name} = headers.getOrDefault("{header}", "");')
            continue
        body.append(
            f'String {name} = Arrays.stream(signatures).filter(one -> one.startsWith("{rule.lead}")).findFirst()'
        )
        body.append(f'        .orElse("{rule.lead}").substring({len(rule.lead)});')
    if rule.has_timestamp:
        body += [
            'if (!timestamp.matches("[0-9]{1,12}")) {',
            "    return false;",
            "}",
            f"if (Math.abs(now - Long.parseLong(timestamp)) > {TOLERANCE_SECONDS}) {{",
            "    return false; // too old, or in the future",
            "}",
        ]
    key = "secret.getBytes(StandardCharsets.UTF_8)"
    if rule.key_prefix is not None:
        start = f'secret.startsWith("{rule.key_prefix}") ? secret.substring({len(rule.key_prefix)}) : secret'
        key = f"Base64.getDecoder().decode({start})"
    body += [
        f"byte[] key = {key};",
        'Mac mac = Mac.getInstance("HmacSHA256");',
        'mac.init(new SecretKeySpec(key, "HmacSHA256"));',
    ]
    if rule.leading:
        lead = ' + "." + '.join(name for name, _ in rule.leading)
        body.append(f'mac.update(({lead} + ".").getBytes(StandardCharsets.UTF_8));')
    written = (
        "HexFormat.of().formatHex(mac.doFinal(body))"
        if rule.is_hex
        else "Base64.getEncoder().encodeToString(mac.doFinal(body))"
    )
    body += [
        f"String digest = {written};",
        f'byte[] expected = ("{rule.prefix}" + digest).getBytes(StandardCharsets.UTF_8);',
        "boolean valid = false;",
        "for (String one : signatures) {",
        "    valid |= MessageDigest.isEqual(expected, one.getBytes(StandardCharsets.UTF_8));",
        "}",
        "return valid;",
    ]
    text = "\n".join(body)
    return _lines(
        "import java.nio.charset.StandardCharsets;",
        "import java.security.GeneralSecurityException;",
        "import java.security.MessageDigest;",
        "import java.util.Arrays;" if "Arrays." in text else None,
        "import java.util.Base64;" if "Base64." in text else None,
        "import java.util.HexFormat;" if "HexFormat." in text else None,
        "import java.util.Map;",
        "import java.util.regex.Pattern;" if "Pattern." in text else None,
        "import javax.crypto.Mac;",
        "import javax.crypto.spec.SecretKeySpec;",
        "",
        "// Java 17. headers: names in lower case. body: the bytes as received, before any parser.",
        "final class Webhook {",
        "    static boolean verify(Map<String, String> headers, byte[] body, String secret, long now)",
        "            throws GeneralSecurityException {",
        "        if (secret.isEmpty()) {",
        "            return false;",
        "        }",
        *(f"        {line}" for line in body),
        "    }",
        "}",
    )


def _go(rule: _Rule) -> str:
    signatures = (
        f'strings.Split(received, "{rule.separator}")' if rule.separator else "[]string{received}"
    )
    body = [f'received := header("{rule.header}")', f"signatures := {signatures}"]
    for name, header in rule.leading:
        if header:
            body.append(f'{name} := header("{header}")')
            continue
        body += [
            f'{name} := ""',
            "for _, one := range signatures {",
            f'\tif value, found := strings.CutPrefix(one, "{rule.lead}"); found && {name} == "" {{',
            f"\t\t{name} = value",
            "\t}",
            "}",
        ]
    if rule.has_timestamp:
        body += [
            "seconds, err := strconv.ParseUint(timestamp, 10, 40)",
            "if err != nil {",
            "\treturn false",
            "}",
            f"if age := now.Unix() - int64(seconds); age > {TOLERANCE_SECONDS} || age < -{TOLERANCE_SECONDS} {{",
            "\treturn false // too old, or in the future",
            "}",
        ]
    if rule.key_prefix is None:
        body.append("key := []byte(secret)")
    else:
        body += [
            f'key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "{rule.key_prefix}"))',
            "if err != nil {",
            "\treturn false",
            "}",
        ]
    body.append("mac := hmac.New(sha256.New, key)")
    if rule.leading:
        lead = ' + "." + '.join(name for name, _ in rule.leading)
        body.append(f'mac.Write([]byte({lead} + "."))')
    encode = "hex.EncodeToString" if rule.is_hex else "base64.StdEncoding.EncodeToString"
    body += [
        "mac.Write(body)",
        f'expected := []byte("{rule.prefix}" + {encode}(mac.Sum(nil)))',
        "for _, one := range signatures {",
        "\tif hmac.Equal(expected, []byte(one)) {",
        "\t\treturn true",
        "\t}",
        "}",
        "return false",
    ]
    text = "\n".join(body)
    return _lines(
        "package main",
        "",
        "import (",
        '\t"crypto/hmac"',
        '\t"crypto/sha256"',
        '\t"encoding/base64"' if "base64." in text else None,
        '\t"encoding/hex"' if "hex." in text else None,
        '\t"strconv"' if "strconv." in text else None,
        '\t"strings"' if "strings." in text else None,
        '\t"time"',
        ")",
        "",
        "// Verify reports whether a request is genuine. header: r.Header.Get. body: what io.ReadAll(r.Body) returns.",
        "func Verify(header func(string) string, body []byte, secret string, now time.Time) bool {",
        '\tif secret == "" {',
        "\t\treturn false",
        "\t}",
        *(f"\t{line}" for line in body),
        "}",
    )


def _csharp(rule: _Rule) -> str:
    signatures = f'received.Split("{rule.separator}")' if rule.separator else "new[] { received }"
    body = [
        f'string received = headers.GetValueOrDefault("{rule.header}", "");',
        f"string[] signatures = {signatures};",
    ]
    for name, header in rule.leading:
        if header:
            body.append(f'string {name} = headers.GetValueOrDefault("{header}", "");')
            continue
        body += [
            f'string {name} = (signatures.FirstOrDefault(one => one.StartsWith("{rule.lead}"))',
            f'    ?? "{rule.lead}")[{len(rule.lead)}..];',
        ]
    if rule.has_timestamp:
        body += [
            "if (timestamp.Length is 0 or > 12 || !timestamp.All(char.IsAsciiDigit)) return false;",
            f"if (Math.Abs(now - long.Parse(timestamp)) > {TOLERANCE_SECONDS})",
            "    return false; // too old, or in the future",
        ]
    lead = "".join(f"{{{name}}}." for name, _ in rule.leading)
    content = f'Encoding.UTF8.GetBytes($"{lead}").Concat(body).ToArray()' if lead else "body"
    key = "Encoding.UTF8.GetBytes(secret)"
    if rule.key_prefix is not None:
        start = (
            f'secret.StartsWith("{rule.key_prefix}") ? secret[{len(rule.key_prefix)}..] : secret'
        )
        key = f"Convert.FromBase64String({start})"
    hash_ = "HMACSHA256.HashData(key, content)"
    written = (
        f"Convert.ToHexString({hash_}).ToLowerInvariant()"
        if rule.is_hex
        else f"Convert.ToBase64String({hash_})"
    )
    body += [
        f"byte[] content = {content};",
        f"byte[] key = {key};",
        f"string digest = {written};",
        f'byte[] expected = Encoding.UTF8.GetBytes("{rule.prefix}" + digest);',
        "bool valid = false;",
        "foreach (string one in signatures)",
        "    valid |= CryptographicOperations.FixedTimeEquals(expected, Encoding.UTF8.GetBytes(one));",
        "return valid;",
    ]
    return _lines(
        "using System;",
        "using System.Collections.Generic;",
        "using System.Linq;",
        "using System.Security.Cryptography;",
        "using System.Text;",
        "",
        "// .NET 8. headers: names in lower case. body: the bytes as received, before any parser.",
        "static class Webhook",
        "{",
        "    public static bool Verify(",
        "        IReadOnlyDictionary<string, string> headers, byte[] body, string secret, long now)",
        "    {",
        "        if (secret.Length == 0) return false;",
        *(f"        {line}" for line in body),
        "    }",
        "}",
    )


_LANGUAGES: Final[Mapping[str, Callable[[_Rule], str]]] = {
    "Python": _python,
    "JavaScript": _javascript,
    "PHP": _php,
    "Java": _java,
    "Go": _go,
    "C#": _csharp,
}
