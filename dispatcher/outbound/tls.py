"""TLS contexts of connections: built on first use, in a thread, and limited in number.

What it is. An endpoint without its own certificates trusts the system's roots and
`egress.ca_file`; all such endpoints share one context. An endpoint with `ca_pem` trusts these
certificates and nothing else, so its context holds no system roots: with them it took 0.86 MB and
17 ms, without them 7 KB and 0.1 ms (measured). An endpoint with a client certificate has a context of its own, and
so connections of its own.

Invariants.

* The verify flags are set here, because Python 3.13 changed its defaults: every supported Python
  verifies alike. `egress.strict_certificates` decides about `VERIFY_X509_STRICT`, which requires the
  extensions that RFC 5280 does.
* Verification cannot be switched off, and no environment variable logs keys.
* The event loop builds no context. At most `CONTEXTS_KEPT_MAX` contexts of private authorities are
  kept, least recently used first to go; open connections keep the context that they began with.
"""

import asyncio
import base64
import binascii
import os
import re
import ssl
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from dispatcher.core.credentials import ClientCertificate

# About 2 MB; a deployment with more private authorities than this builds some of them again.
CONTEXTS_KEPT_MAX: Final = 256
_CERTIFICATE: Final = re.compile(
    r"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END "
)
_DER_SEQUENCE: Final = b"\x30"
# The X509_V_ERR_* codes that VERIFY_X509_STRICT alone can raise (OpenSSL's x509_vfy.h).
_STRICT_CODES: Final = range(80, 94)


def make_tls_context(
    *,
    ca_file: str | None = None,
    ca_pem: str | None = None,
    is_strict: bool = True,
    client: ClientCertificate | None = None,
) -> ssl.SSLContext:
    """Build a verifying client context.

    It trusts the certificates of `ca_pem` alone, or else the system's roots and those of `ca_file`.
    A certificate need not be self-signed to be trusted. Reads files, so callers keep the result.

    Raises:
        ssl.SSLError: `ca_pem` holds no certificate.
        OSError: `ca_file` cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    flags = ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST | ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if is_strict:
        flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.verify_flags = flags
    if ca_pem:
        context.load_verify_locations(cadata=ca_pem)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
    if client is not None:
        _present(context, client)
    return context


def _present(context: ssl.SSLContext, client: ClientCertificate) -> None:
    """Load a client certificate and its key, which OpenSSL reads from a file: one in memory, or a private one."""
    pem = f"{client.certificate.strip()}\n{client.key.reveal().strip()}\n".encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "client.pem"
        path.touch(mode=0o600)
        path.write_bytes(pem)
        context.load_cert_chain(path)


def require_certificates(ca_pem: str) -> None:
    """Check that the text has the form of certificates; cheap enough for every endpoint at start.

    Raises:
        ValueError: it has another form.
    """
    bodies = _CERTIFICATE.findall(ca_pem)
    if not bodies:
        raise ValueError("ca_pem: no certificate in PEM form. Give BEGIN CERTIFICATE blocks.")
    for number, body in enumerate(bodies, start=1):
        try:
            der = base64.b64decode("".join(body.split()), validate=True)
        except binascii.Error:
            der = b""
        if not der.startswith(_DER_SEQUENCE):
            raise ValueError(f"ca_pem: certificate {number} is not base64 of a certificate.")


def distrust_reason(fault: ssl.SSLCertVerificationError) -> str:
    """Return why a certificate is not trusted, and the fix if an extension is missing."""
    reason = fault.verify_message or str(fault)
    if fault.verify_code in _STRICT_CODES:
        return (
            f"{reason}. Issue the certificate again as RFC 5280 requires, or set"
            " egress.strict_certificates = false"
        )
    return reason


_Key = tuple[str | None, ClientCertificate | None]
_SHARED: Final[_Key] = (None, None)
"""Of endpoints that trust the system's roots and present no certificate."""


class TlsTrust:
    """The trusted certificates of one endpoint; their context is built when a connection needs it."""

    __slots__ = ("_contexts", "_key")

    def __init__(self, contexts: "TlsContexts", key: "_Key") -> None:
        self._contexts = contexts
        self._key = key

    async def context(self) -> ssl.SSLContext:
        """Return the context.

        Raises:
            OSError: the certificates cannot be used; `ssl.SSLError` is one.
        """
        return await self._contexts.context(*self._key)


class TlsContexts:
    """The contexts of one process; used from one event loop."""

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        is_strict: bool = True,
        kept_max: int = CONTEXTS_KEPT_MAX,
    ) -> None:
        """Add `ca_file` to the system's roots, for endpoints without a `ca_pem`."""
        self._ca_file = ca_file
        self._is_strict = is_strict
        self._kept_max = kept_max
        # In the order of their use. The context of the system's roots is not counted.
        self._kept: dict[_Key, ssl.SSLContext] = {}
        self._shared: ssl.SSLContext | None = None
        self._building: dict[_Key, asyncio.Future[ssl.SSLContext]] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="dispatcher-tls")
        self.built_count = 0

    def trust(self, ca_pem: str | None, client: ClientCertificate | None = None) -> TlsTrust:
        """Return the trust of an endpoint, without building a context yet.

        Raises:
            ValueError: `ca_pem` does not have the form of certificates.
        """
        if ca_pem is not None:
            require_certificates(ca_pem)
        return TlsTrust(self, (ca_pem, client))

    async def context(
        self, ca_pem: str | None, client: ClientCertificate | None = None
    ) -> ssl.SSLContext:
        """Return the context for these certificates, building it once for all waiters.

        Raises:
            OSError: the certificates cannot be used; `ssl.SSLError` is one.
        """
        key = (ca_pem, client)
        if key == _SHARED:
            if self._shared is not None:
                return self._shared
        elif (context := self._kept.pop(key, None)) is not None:
            self._kept[key] = context
            return context
        building = self._building.get(key)
        if building is None:
            building = asyncio.get_running_loop().run_in_executor(self._executor, self._build, key)
            self._building[key] = building
            building.add_done_callback(lambda built: self._built(key, built))
        return await asyncio.shield(building)

    def close(self) -> None:
        """Shut the thread down."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _build(self, key: _Key) -> ssl.SSLContext:
        return make_tls_context(
            ca_file=self._ca_file, ca_pem=key[0], is_strict=self._is_strict, client=key[1]
        )

    def _built(self, key: _Key, built: "asyncio.Future[ssl.SSLContext]") -> None:
        self._building.pop(key, None)
        # Reading the exception here marks it as seen: a cancelled attempt does not wait for it.
        if built.cancelled() or built.exception() is not None:
            return
        self.built_count += 1
        if key == _SHARED:
            self._shared = built.result()
            return
        self._kept[key] = built.result()
        while len(self._kept) > self._kept_max:
            del self._kept[next(iter(self._kept))]
