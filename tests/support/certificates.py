"""Certificates of a throw-away authority, made in memory: good, expired, foreign, misnamed, incomplete."""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
_FAR = dt.datetime(2126, 1, 1, tzinfo=dt.UTC)
_PAST = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)

AUTHORITY_KEY_IDENTIFIER = "authority key identifier"
SUBJECT_KEY_IDENTIFIER = "subject key identifier"
KEY_USAGE = "key usage"
CRITICAL_BASIC_CONSTRAINTS = "critical basic constraints"


class Authority:
    """Signs server certificates; `pem` is what a client has to trust."""

    def __init__(
        self, folder: Path, *, without: str | None = None, name: str = "Throw-away authority"
    ) -> None:
        """`without` names the extension that the authority's own certificate lacks."""
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key, self._key, _FAR, without)
        if without != KEY_USAGE:
            builder = builder.add_extension(_key_usage(is_authority=True), critical=True)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=None),
            critical=without != CRITICAL_BASIC_CONSTRAINTS,
        )
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def server_context(
        self,
        *names: str,
        is_expired: bool = False,
        is_self_signed: bool = False,
        version: ssl.TLSVersion | None = None,
        without: str | None = None,
    ) -> ssl.SSLContext:
        """Returns a server's context with a certificate for these DNS names and addresses.

        `without` names the extension that the server's certificate lacks.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
        issuer, signer = (subject, key) if is_self_signed else (self._name, self._key)
        until = _PAST if is_expired else _FAR
        builder = (
            _builder(subject, issuer, key, signer, until, without)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        certificate = builder.sign(signer, hashes.SHA256())
        path = self._folder / f"{certificate.serial_number:x}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if version is not None:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
        return context

    def client_pair(self, *, is_expired: bool = False) -> tuple[str, str]:
        """Returns a client's certificate and its private key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dispatcher")])
        until = _PAST if is_expired else _FAR
        builder = (
            _builder(subject, self._name, key, self._key, until, None)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    until: dt.datetime,
    without: str | None,
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EPOCH)
        .not_valid_after(until)
    )
    if without != SUBJECT_KEY_IDENTIFIER:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if without != AUTHORITY_KEY_IDENTIFIER:
        issuer_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(issuer_identifier, critical=False)
    return builder


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
