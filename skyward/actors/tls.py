"""Who may talk to a node: a certificate authority made for one pool, and the identities that it signs.

Whoever reaches the port of a node can run code there, so both ends show a certificate of this authority and accept no
other (mutual TLS, on loopback too: a machine has other users). Its private key lives in the memory of the driver only;
when the pool ends nobody can sign for it any more. A node's certificate is good for serving and the driver's for
calling: a key taken from one node does not open another one.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:  # cryptography takes a while to load: only who makes a pool pays for it
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

__all__ = ["Authority", "Identity", "IdentityFiles", "held"]

BACKDATED = timedelta(days=1)
"""Certificates are valid from a day ago. Machines' clocks differ, and a certificate that is not valid yet gives no
reason at all: it looks like a machine that does not answer."""
VALIDITY = timedelta(days=400)
"""And until long after the pool: one that expired would cut a running pool, and no authority outlives its pool."""
NAME_LENGTH = 64
"""The most that X.509 allows in a common name. Nothing is decided by the name; it is there for who reads a log."""


class IdentityFiles(NamedTuple):
    """Where an identity was written."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Identity:
    """What one end needs: its certificate and private key, and the authority to check the other end by. All PEM."""

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes

    def write(self, folder: Path) -> IdentityFiles:
        """Write `cert.pem`, `key.pem` and `ca.pem` so that only this user can read them, and return their paths.

        The folder is made if need be; files of an earlier identity in it are replaced.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # it may have been there, and the umask has a say in mkdir
        files = IdentityFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")
        for path, content in zip(files, (self.cert, self.key, self.ca), strict=True):
            _write_private(path, content)
        return files


@contextlib.contextmanager
def held(identity: Identity) -> Iterator[IdentityFiles]:
    """Give an identity as paths for as long as the context is open, and leave no file behind.

    On Linux the files are in memory, so that nothing is left when this process is killed; elsewhere they are in a
    folder that is removed.
    """
    with contextlib.ExitStack() as stack:
        if sys.platform != "linux":
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="skyward-driver-"))
            yield identity.write(Path(folder))
            return
        paths = []
        for name, content in (("cert", identity.cert), ("key", identity.key), ("ca", identity.ca)):
            file = stack.enter_context(open(os.memfd_create(f"skyward-{name}"), "wb"))
            file.write(content)
            file.flush()
            paths.append(Path(f"/proc/{os.getpid()}/fd/{file.fileno()}"))
        yield IdentityFiles(*paths)


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs the certificates of one pool. It cannot be pickled, and nothing writes its key."""

    pool: str
    certificate: bytes
    _issuer: "x509.Certificate" = field(repr=False)
    _key: "EllipticCurvePrivateKey" = field(repr=False)

    @classmethod
    def create(cls, pool: str) -> Self:
        """Make a new authority; two of the same name do not trust each other's certificates."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        key = _new_key()
        name = _name(f"skyward pool {pool}")
        usage = _usage(signs_certificates=True)
        builder = _certificate(name, name, key.public_key(), key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        issuer = _signed(builder, key)
        return cls(pool, issuer.public_bytes(serialization.Encoding.PEM), issuer, key)

    def issue(self, name: str, *, server: bool) -> Identity:
        """Make a key and a certificate for `name`: a node (`server=True`) or the driver, which calls nodes."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = _new_key()
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        here = [x509.IPAddress(IPv4Address("127.0.0.1")), x509.DNSName("localhost")]
        builder = _certificate(_name(name), self._issuer.subject, key.public_key(), self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(here), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(_signed(builder, self._key).public_bytes(serialization.Encoding.PEM), private, self.certificate)


def _new_key() -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name(text: str) -> "x509.Name":
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:NAME_LENGTH] or "skyward")])


def _usage(*, signs_certificates: bool) -> "x509.KeyUsage":
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(
    subject: "x509.Name", issuer: "x509.Name", key: "EllipticCurvePublicKey", signer: "EllipticCurvePublicKey"
) -> "x509.CertificateBuilder":
    """What all of them have in common: names, times, and the key identifiers by which a chain is found."""
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _signed(builder: "x509.CertificateBuilder", key: "EllipticCurvePrivateKey") -> "x509.Certificate":
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _write_private(path: Path, content: bytes) -> None:
    """A new file, closed to others from its first moment; never through a link that somebody else left there."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # an unusual umask may have taken our own access away
        file.write(content)
