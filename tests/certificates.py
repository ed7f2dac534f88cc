"""
A certificate for tests of TLS, made when it is wanted and trusted by nobody who is not told to.

Needs pyOpenSSL, with which ``cryptography`` comes: mark tests that call this with ``@pytest.mark.tls``.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from twisted_net.address import isIP


@dataclass(frozen=True, slots=True)
class SelfSigned:
    """A certificate that signed itself, and its key, both in PEM."""

    certificate: bytes
    key: bytes
    name: str

    def forServer(self) -> Any:
        """Options for a server that shows this certificate."""
        from twisted.internet.ssl import PrivateCertificate

        with _withoutDeprecations():
            options = PrivateCertificate.loadPEM(self.certificate + self.key).options()
            options.getContext()
        return options

    def forClient(self) -> Any:
        """Options for a client that trusts this certificate alone, and expects its name."""
        from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

        with _withoutDeprecations():
            root = trustRootFromCertificates([Certificate.loadPEM(self.certificate)])
            return optionsForClientTLS(self.name, trustRoot=root)


@contextmanager
def _withoutDeprecations() -> Iterator[None]:
    """Twisted hands pyOpenSSL certificates of a kind that it would like to be rid of; that is between those two."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@functools.cache
def selfSigned(name: str = "localhost", *, number: int = 1, evenly: bool = False) -> SelfSigned:
    """Return a certificate for ``name``, a host name or an IP address: one and the same for each ``number``.

    Handshakes with it differ by a byte or two in length, as the signatures of ECDSA do; ``evenly`` takes Ed25519.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key = ed25519.Ed25519PrivateKey.generate() if evenly else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    bears = x509.IPAddress(ipaddress.ip_address(name)) if isIP(name) else x509.DNSName(name)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([bears]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None if evenly else hashes.SHA256())
    )
    return SelfSigned(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        name,
    )
