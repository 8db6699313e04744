"""The mistakes that a diagnosis can name: a stable code, the problem and the fix of each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_NOTHING: Mapping[str, object] = MappingProxyType({})


class Finding(NamedTuple):
    """One thing that is wrong with the request, the secret or the receiver's code."""

    code: str
    """Stable and machine-readable; `valid` where nothing is wrong."""
    message: str
    fix: str
    values: Mapping[str, object] = _NOTHING
    """The values that the sentences hold, for translations."""


class Failed(Exception):  # noqa: N818 -- carries a finding, which is the result
    """Ends a search: the mistake is found."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.code)
        self.finding = finding


def finding_for(code: str, **values: object) -> Finding:
    """Return the finding of a code, with the values that its texts name."""
    message, fix = MESSAGES[code]
    return Finding(code, message.format(**values), fix.format(**values), values)


def failure(code: str, **values: object) -> Failed:
    """Return the exception that ends the search with this code."""
    return Failed(finding_for(code, **values))


MESSAGES: Mapping[str, tuple[str, str]] = {
    "valid": (
        "The signature is valid for this secret and body.",
        "If your receiver still rejects the request, pass the signature that its code computed, too.",
    ),
    # The request
    "signature_header_missing": (
        "The request has no {header} header.",
        "Check that the endpoint has a secret and that no proxy in front of the receiver removes the header.",
    ),
    "wrong_profile_header": (
        "The request has no {header} header, but it has {found}, which the profile {profile} uses.",
        "Verify with the profile {profile}, or read {found} in the receiver.",
    ),
    "signature_header_repeated": (
        "The request has more than one {header} header.",
        "Find the proxy or the test tool that adds the second one; a request must have exactly one.",
    ),
    "signed_header_missing": (
        "The request has no {header} header, and its value is part of the signed content.",
        "Forward {header} unchanged through every proxy in front of the receiver.",
    ),
    "signed_header_repeated": (
        "The request has more than one {header} header, so the signed value is ambiguous.",
        "Find the proxy or the test tool that adds the second {header} header.",
    ),
    "signed_timestamp_missing": (
        "The {header} header has no timestamp.",
        "Pass the whole value of {header}, from t= to the last signature.",
    ),
    "timestamp_malformed": (
        "The timestamp of the request is not a whole number of seconds since 1970.",
        "Use the header as it was received; do not format it as a date.",
    ),
    "timestamp_in_milliseconds": (
        "The timestamp of the request has milliseconds; the dispatcher sends whole seconds.",
        "Use the header as it was received instead of a value made by the receiver's clock.",
    ),
    "timestamp_too_old": (
        "The signature is right, but the request is {seconds} s old; {tolerance} s are allowed.",
        "Set the receiver's clock by NTP. For a captured request, turn the check of its age off.",
    ),
    "timestamp_in_future": (
        "The signature is right, but the timestamp is {seconds} s ahead; {tolerance} s are allowed.",
        "Set the receiver's clock by NTP: it is slow.",
    ),
    "signature_prefix_missing": (
        "The value of {header} does not start with {prefix}.",
        "Pass the header's whole value, including {prefix}.",
    ),
    "signature_prefix_doubled": (
        "The value of {header} has the prefix {prefix} twice.",
        "The header already contains {prefix}; do not add it again before verifying.",
    ),
    "signature_in_base64": (
        "The signature in {header} is base64, but this profile uses lower-case hexadecimal digits.",
        "Check that the header was not converted on the way and that the profile is the endpoint's.",
    ),
    "signature_in_hex": (
        "The signature in {header} is hexadecimal, but this profile uses base64.",
        "Check that the header was not converted on the way and that the profile is the endpoint's.",
    ),
    # The secret
    "secret_missing": (
        "The secret is empty.",
        "Set the receiver's secret; an unset environment variable often becomes an empty string.",
    ),
    "secret_malformed": (
        "The secret does not have the form of the profile {profile}.",
        "Copy the whole secret again from the endpoint's page.",
    ),
    "secret_surrounded_by_whitespace": (
        "The secret has whitespace or a line break around it; without it the signature is valid.",
        "Trim the secret. Files often end with a line break.",
    ),
    "secret_in_quotes": (
        "The secret is in quotation marks; without them the signature is valid.",
        "Remove the quotation marks; some .env readers keep them.",
    ),
    "secret_prefix_missing": (
        "The secret lacks its prefix {prefix}; with it the signature is valid.",
        "Use the secret exactly as it was shown, with {prefix}.",
    ),
    "secret_prefix_doubled": (
        "The secret has its prefix {prefix} twice; with one the signature is valid.",
        "Store the secret exactly as it was shown and do not add {prefix} in code.",
    ),
    "secret_prefix_added": (
        "The secret starts with {prefix}, but the endpoint's secret does not; without it the signature is valid.",
        "Remove {prefix}: this endpoint's secret was chosen by a person and has no prefix.",
    ),
    "secret_encoded_in_base64": (
        "The secret is the base64 form of the endpoint's secret.",
        "Use the secret as it was shown. Kubernetes secrets, for example, need decoding once.",
    ),
    "secret_decoded_from_base64": (
        "The secret is the decoded form of the endpoint's secret.",
        "Store the secret as it was shown; the receiver's library decodes it if the profile needs that.",
    ),
    "previous_secret": (
        "The receiver uses the endpoint's previous secret, which a rotation replaced.",
        "Copy the current secret to the receiver.",
    ),
    "staged_secret": (
        "The receiver uses the staged secret, which does not sign yet.",
        "Activate the staged secret, or use the current one until then.",
    ),
    "other_endpoints_secret": (
        "The receiver uses the secret of another endpoint: {endpoint}.",
        "Copy this endpoint's own secret to the receiver.",
    ),
    "public_key_needed": (
        "The request is signed with ed25519, and the receiver has a shared secret.",
        "Verify with the endpoint's public key, which starts with {prefix}.",
    ),
    "shared_secret_needed": (
        "The request is signed with HMAC-SHA256, and the receiver has a public key.",
        "Verify with the endpoint's secret, which starts with {prefix}.",
    ),
    "wrong_secret": (
        "No signature of the request was made with this secret over this body.",
        "Copy the current secret from the endpoint's page. If it is the same, the body was changed on its way.",
    ),
    "wrong_profile": (
        "The signature is valid under the profile {profile}, not under the one given.",
        "Verify with the profile {profile}.",
    ),
    # The body
    "body_empty": (
        "The body is empty.",
        "Read the raw body before a framework's parser consumes it.",
    ),
    "body_trailing_newline": (
        "The body has a line break at its end that was not sent; without it the signature is valid.",
        "Verify the bytes as received. Editors and `echo` add a line break to files.",
    ),
    "body_byte_order_mark": (
        "The body starts with a byte order mark that was not sent; without it the signature is valid.",
        "Save the captured body without a byte order mark, or verify the bytes as received.",
    ),
    "body_line_endings_changed": (
        "The line breaks of the body were changed to CR LF; with LF the signature is valid.",
        "Verify the bytes as received and turn off text conversion when you save them.",
    ),
    "body_characters_changed": (
        "The body was decoded with the wrong character set and encoded again.",
        "Verify the bytes as received; decode them as UTF-8 only afterwards.",
    ),
    "body_reserialised": (
        "The body was parsed and serialised again: it means the same, but its bytes differ.",
        "Verify the raw bytes before parsing. In Express: express.raw() or the verify option of express.json().",
    ),
    "body_wrapped_in_string": (
        "The body was serialised twice: it is a JSON string that contains the JSON that was sent.",
        "Do not call the JSON serialiser on a body that is text already.",
    ),
    "body_changed": (
        "The body differs from the one that was sent.",
        "Compare both bodies in the delivery's page; a proxy or a parser changed the content.",
    ),
    # What the receiver computed
    "computed_not_a_digest": (
        "The computed value is not a digest in hexadecimal or base64.",
        "Print the value that your code compares with the header, as text.",
    ),
    "computed_prefix_missing": (
        "The computed digest is right, but it lacks the prefix {prefix} that the header has.",
        "Compare {prefix} followed by the digest, or remove {prefix} from the header first.",
    ),
    "computed_prefix_doubled": (
        "The computed value has the prefix {prefix} twice.",
        "Add {prefix} once.",
    ),
    "computed_in_upper_case": (
        "The computed digest is right, but its digits are upper case.",
        "Use lower-case hexadecimal digits.",
    ),
    "computed_in_base64": (
        "The computed digest is right, but it is base64 and the header is hexadecimal.",
        "Write the digest as lower-case hexadecimal digits, for example digest('hex').",
    ),
    "computed_in_hex": (
        "The computed digest is right, but it is hexadecimal and the header is base64.",
        "Write the digest as base64, for example digest('base64').",
    ),
    "computed_with_trailing_newline_in_secret": (
        "The receiver's key ends with a line break.",
        "Trim the secret after reading it from a file or a variable.",
    ),
    "computed_without_secret_prefix": (
        "The receiver removed {prefix} from the secret before using it as the key.",
        "Use the whole secret, {prefix} included, as the key.",
    ),
    "computed_with_doubled_secret_prefix": (
        "The receiver added {prefix} to a secret that already has it.",
        "Use the secret as it was shown, as the key.",
    ),
    "computed_with_decoded_secret": (
        "The receiver decoded the secret from base64 before using it as the key.",
        "Use the UTF-8 bytes of the secret's text as the key.",
    ),
    "computed_without_decoding_secret": (
        "The receiver used the secret's text as the key.",
        "Remove the prefix, decode the rest from base64 and use those bytes as the key.",
    ),
    "computed_over_body_alone": (
        "The receiver signed the body alone.",
        "Sign {content}.",
    ),
    "computed_without_timestamp": (
        "The receiver left the timestamp out of the signed content.",
        "Sign {content}, with the timestamp from the header.",
    ),
    "computed_without_id": (
        "The receiver left the id out of the signed content.",
        "Sign {content}, with the id from the header.",
    ),
    "computed_without_separators": (
        "The receiver joined the parts of the signed content without full stops.",
        "Sign {content}.",
    ),
    "computed_in_wrong_order": (
        "The receiver joined the parts of the signed content in the wrong order.",
        "Sign them in this order: {content}.",
    ),
    "computed_with_milliseconds": (
        "The receiver signed the timestamp in milliseconds.",
        "Use the timestamp's text from the header: it is in seconds.",
    ),
    "computed_over_empty_body": (
        "The receiver signed an empty body.",
        "Read the raw body before a framework's parser consumes it.",
    ),
    "computed_over_trailing_newline": (
        "The receiver added a line break to the body before signing it.",
        "Sign the bytes as received.",
    ),
    "computed_over_reserialised_body": (
        "The receiver signed the body after parsing and serialising it.",
        "Sign the raw bytes before parsing. In Express: express.raw() or the verify option of express.json().",
    ),
    "computed_over_string_of_body": (
        "The receiver serialised the body's text once more and signed a JSON string.",
        "Sign the raw bytes, without JSON.stringify.",
    ),
    "computed_with_other_hash": (
        "The receiver used another hash, or a plain hash of secret and body instead of HMAC.",
        "Use HMAC with SHA-256.",
    ),
    "computed_unexplained": (
        "The request is authentic, but none of the known mistakes gives the computed value.",
        "Check which key and which bytes your code uses; it must sign {content} with HMAC-SHA256.",
    ),
}
"""By code: the problem in one sentence and the fix in one."""
