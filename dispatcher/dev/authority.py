"""A development certificate authority for https on one machine; created once and kept.

Its certificates have every extension that RFC 5280 requires, because `egress.strict_certificates` and
the clients of Python 3.13 and later require them.
"""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dispatcher.dev.home import Home

NAMES: Final = ("localhost", "127.0.0.1", "::1")
_VALID_DAYS: Final = 825
_RENEW_DAYS: Final = 30


def authority_and_context(home: Home, now: dt.datetime) -> tuple[Path, ssl.SSLContext]:
    """Return the authority's certificate to trust, and a server context for localhost under it.

    Both are created if they are missing or expire soon. The authority's private key is discarded after signing, so a
    trusted authority cannot sign anything else.
    """
    authority, server = home.path("ca.pem"), home.path("server.pem")
    if not _is_usable(authority, now) or not _is_usable(server, now):
        _make(home, now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(server)
    return authority, context


def _is_usable(path: Path, now: dt.datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    try:
        certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return False  # made by an earlier version
    return certificate.not_valid_after_utc > now + dt.timedelta(days=_RENEW_DAYS)


def _make(home: Home, now: dt.datetime) -> None:
    authority_key, server_key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    authority_name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "dispatcher dev authority")]
    )
    authority = (
        _builder(authority_name, authority_name, authority_key, authority_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    server = (
        _builder(server_name, authority_name, server_key, authority_key, now)
        .add_extension(
            x509.SubjectAlternativeName([_general_name(name) for name in NAMES]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    key = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    home.write("ca.pem", authority.public_bytes(serialization.Encoding.PEM).decode())
    home.write("server.pem", (server.public_bytes(serialization.Encoding.PEM) + key).decode())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
