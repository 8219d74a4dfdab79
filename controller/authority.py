"""The certificate authority of one run: by its certificates, nodes know each other on the data plane.

Its key is in a folder of the run's that only the run's owner can enter, for a run that goes on after its controller was
killed. Nodes' keys are not known here: a node makes its own, and asks for a certificate of it (PKCS #10).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.errors import SkyrackError
from controller.runtime.contract import NodeSpec

LIFETIME = datetime.timedelta(hours=24)
MARGIN = datetime.timedelta(minutes=5)
"""Before now: clocks of one machine are one, but may be set back a little."""

AUTHORITY_FILE = "authority.pem"
_PEM = serialization.Encoding.PEM
# RFC 5280, 4.1.2.5: of no well-defined end. What ends are the certificates that it signs, and the run.
_EARLIEST = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LATEST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Subject:
    """The node that a certificate is for."""

    name: str
    role: str  # satellite, gateway, terminal
    address: str  # IPv4, in the emulated network
    jurisdiction: str = ""  # ISO 3166-1 alpha-2; empty: none

    @classmethod
    def of(cls, node: NodeSpec) -> Subject:
        """As the run has it."""
        return cls(node.name, node.role, node.address, node.jurisdiction)


@dataclass(frozen=True)
class Issued:
    """A certificate, PEM, and when it holds: from MARGIN before it was issued."""

    certificate_pem: bytes
    serial: int
    issued_utc: datetime.datetime
    not_after_utc: datetime.datetime

    def is_due(self, now_utc: datetime.datetime) -> bool:
        """Whether it is to be renewed: two thirds of its time are over, or the clock was set to before it."""
        due_utc = self.issued_utc + (self.not_after_utc - self.issued_utc) * 2 / 3
        return not self.issued_utc - MARGIN <= now_utc < due_utc


class Authority:
    """The authority of one run."""

    def __init__(self, run_id: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._run_id, self._key, self._certificate = run_id, key, certificate
        self.pem = certificate.public_bytes(_PEM)  # its own certificate, which is no secret
        self.lifetime = LIFETIME

    @classmethod
    def of(cls, run_id: str, folder: Path) -> Authority:
        """The run's authority as its folder has it; a new one if it has none. Raises SkyrackError."""
        path = folder / AUTHORITY_FILE
        try:
            pem = path.read_bytes()
        except FileNotFoundError:
            return cls._new(run_id, path)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
            certificate = x509.load_pem_x509_certificate(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SkyrackError(f"{path} holds no authority: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise SkyrackError(f"{path} holds no authority: its key is of another kind")
        return cls(run_id, key, certificate)

    @classmethod
    def _new(cls, run_id: str, path: Path) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"skyrack run {run_id}")])
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), _EARLIEST, _LATEST)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        authority = cls(run_id, key, builder.sign(key, hashes.SHA256()))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        key_pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key_pem + authority.pem)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        return authority

    def issue(self, request_pem: bytes, subject: Subject, now_utc: datetime.datetime) -> Issued:
        """Certify the key of a signing request as a node's. Raises SkyrackError if the request is not that node's."""
        try:
            request = x509.load_pem_x509_csr(request_pem)
            names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            asked_for = names.get_values_for_type(x509.DNSName)
            is_signed, key = request.is_signature_valid, request.public_key()
        except (ValueError, x509.ExtensionNotFound, UnsupportedAlgorithm, InvalidSignature) as error:
            raise SkyrackError(f"{subject.name} asks for a certificate with what is no request: {error}") from error
        if not is_signed or asked_for != [subject.name]:
            raise SkyrackError(f"{subject.name} asks for a certificate of {', '.join(asked_for) or 'nobody'}")
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SkyrackError(f"{subject.name} asks for a certificate of another kind of key than P-256")
        where = f"?jurisdiction={subject.jurisdiction}" if subject.jurisdiction else ""
        alternatives = x509.SubjectAlternativeName(
            [
                x509.UniformResourceIdentifier(f"skyrack://{self._run_id}/{subject.role}/{subject.name}{where}"),
                x509.DNSName(subject.name),
                x509.IPAddress(ipaddress.IPv4Address(subject.address)),
            ]
        )
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # a node is both
        issued_utc = now_utc.replace(microsecond=0)  # a certificate has whole seconds
        not_after_utc = issued_utc + self.lifetime
        serial = x509.random_serial_number()
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            x509.CertificateBuilder(
                self._certificate.subject, x509.Name([]), key, serial, issued_utc - MARGIN, not_after_utc
            )
            .add_extension(alternatives, critical=True)  # RFC 5280, 4.2.1.6: where there is no other name
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(issuer_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(certificate.public_bytes(_PEM), serial, issued_utc, not_after_utc)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
