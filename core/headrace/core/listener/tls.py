"""TLS: with a certificate that is given, or with one made at the first start.

Owns `TlsConfig` and the folder `tls/` of a server's data, where the certificate made here is:
`certificate.pem` is for clients to trust (AWS_CA_BUNDLE, NODE_EXTRA_CA_CERTS), `key.pem` is the
server's alone. The one made here is used for as long as it names the host and has not expired.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.core.errors import ConfigError
from headrace.core.listener.protocol import ALPN_PROTOCOLS

if TYPE_CHECKING:
    from cryptography import x509

YEARS = 10
RENEW_BEFORE = timedelta(days=30)
# What HTTP/2 does not forbid (RFC 9113, appendix A); TLS 1.3 brings its own.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """A certificate (PEM, the chain below it) and its key; without them one is made."""

    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a server listens with. `is_new`: the certificate was made for this start."""

    context: ssl.SSLContext
    certificate: Path
    is_new: bool


def certificate_path(config: TlsConfig, data: Path) -> Path:
    """Where the certificate is, or will be once a server has started on the folder `data`."""
    return config.certificate or data / "tls" / "certificate.pem"


def server_tls(config: TlsConfig, *, data: Path, host: str) -> ServerTls:
    """Make ready what to listen with on `host`. Raises ConfigError saying what is wrong."""
    certificate = certificate_path(config, data)
    if (config.certificate is None) != (config.key is None):
        raise ConfigError("a certificate and its key go together", hint="give both, or neither")
    if config.key is not None:
        return ServerTls(_context(certificate, config.key), certificate, is_new=False)
    key = certificate.with_name("key.pem")
    try:
        is_new = not _still_serves(certificate, key, host)
        if is_new:
            _make(certificate, key, host)
    except OSError as error:
        raise ConfigError(f"{certificate.parent} cannot be written: {error.strerror}") from error
    return ServerTls(_context(certificate, key), certificate, is_new)


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None

    def no_password() -> str:
        raise ConfigError(f"{key} is encrypted", hint="give a key without a password")

    try:
        context.load_cert_chain(certificate, key, password=no_password)
    except ssl.SSLError as error:
        why = error.reason or str(error)
        raise ConfigError(
            f"{certificate} and {key} are no certificate and its key: {why}",
            hint="both as PEM; the certificate first in its file, the chain below it",
        ) from None
    return context


def _still_serves(certificate: Path, key: Path, host: str) -> bool:
    from cryptography import x509

    try:
        _context(certificate, key)
        made = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ConfigError, ValueError, x509.ExtensionNotFound):
        return False
    is_current = datetime.now(UTC) + RENEW_BEFORE < made.not_valid_after_utc
    return is_current and set(_names(host, is_own_name_needed=False)) <= set(names)


def _names(host: str, *, is_own_name_needed: bool = True) -> list[x509.GeneralName]:
    """What the certificate is for: this machine from itself, and as `host`."""
    from cryptography import x509

    texts = ["localhost", "127.0.0.1", "::1", host]
    if is_own_name_needed:
        texts.append(socket.gethostname())
    names: list[x509.GeneralName] = []
    for text in texts:
        name: x509.GeneralName | None = None
        try:
            address = ipaddress.ip_address(text)
            if not address.is_unspecified:
                name = x509.IPAddress(address)
        except ValueError:
            with contextlib.suppress(ValueError):  # a name no certificate can carry
                name = x509.DNSName(text)
        if name is not None and name not in names:
            names.append(name)
    return names


def _make(certificate: Path, key: Path, host: str) -> None:
    """A P-256 key and a certificate it signs itself; the key is there before the certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    secret = ec.generate_private_key(ec.SECP256R1())
    public = secret.public_key()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Headrace, self-signed")])
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clients whose clocks are behind
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(identifier, critical=False)
        .add_extension(issuer, critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_pem = secret.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(key, key_pem, mode=0o600)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace a file as a whole; nobody sees it with another mode."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
