"""The run's authority: whom it certifies, with what, and until when."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from controller.authority import AUTHORITY_FILE, LIFETIME, MARGIN, Authority, Subject
from controller.errors import SkyrackError

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
BEIJING = Subject("beijing", "gateway", "10.64.0.67", "CN")
SECOND = datetime.timedelta(seconds=1)


def request(name: str = "beijing", key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    """What a node asks for a certificate with."""
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def test_a_certificate_names_node_role_address_and_jurisdiction(tmp_path: Path) -> None:
    """All that others go by is in it, it is of the key that asked, and it signs no other."""
    authority = Authority.of("q1w2e3r4", tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    issued = authority.issue(request(key=key), BEIJING, NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem))
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names = extension.value
    assert extension.critical
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "skyrack://q1w2e3r4/gateway/beijing?jurisdiction=CN"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["beijing"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.IPv4Address("10.64.0.67")]
    assert certificate.public_key() == key.public_key()
    assert certificate.serial_number == issued.serial
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_a_node_of_no_jurisdiction_has_none_in_its_name(tmp_path: Path) -> None:
    """No empty word stands in a certificate."""
    issued = Authority.of("q1w2e3r4", tmp_path).issue(request("a"), Subject("a", "satellite", "10.64.0.1"), NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["skyrack://q1w2e3r4/satellite/a"]


def test_a_certificate_holds_a_day_and_is_renewed_after_two_thirds(tmp_path: Path) -> None:
    """It holds from five minutes before it was issued, is due after 16 hours, and when the clock is set far back."""
    issued = Authority.of("q1w2e3r4", tmp_path).issue(request(), BEIJING, NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    assert certificate.not_valid_before_utc == NOW - MARGIN
    assert certificate.not_valid_after_utc == NOW + LIFETIME
    due = NOW + datetime.timedelta(hours=16)
    assert not issued.is_due(NOW)
    assert not issued.is_due(due - SECOND)
    assert issued.is_due(due)
    assert not issued.is_due(NOW - MARGIN)
    assert issued.is_due(NOW - MARGIN - SECOND)


def test_a_run_that_goes_on_has_its_authority_still(tmp_path: Path) -> None:
    """Another controller finds it in the run's folder, where nobody else reads it."""
    first = Authority.of("q1w2e3r4", tmp_path / "authority")
    again = Authority.of("q1w2e3r4", tmp_path / "authority")
    assert again.pem == first.pem
    issued = again.issue(request(), BEIJING, NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(first.pem))
    assert stat.S_IMODE((tmp_path / "authority").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "authority" / AUTHORITY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "authority").iterdir()] == [AUTHORITY_FILE]


def test_two_runs_have_two_authorities(tmp_path: Path) -> None:
    """What one has signed, the other has not."""
    ours, theirs = (Authority.of("q1w2e3r4", tmp_path / name) for name in ("ours", "theirs"))
    certificate = x509.load_pem_x509_certificate(theirs.issue(request(), BEIJING, NOW).certificate_pem)
    with pytest.raises(Exception, match=r"^$|ignature") as refused:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ours.pem))
    assert type(refused.value).__name__ == "InvalidSignature"


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        (request("nairobi"), "beijing asks for a certificate of nairobi"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n", "is no request"),
        (request(key=rsa.generate_private_key(65537, 2048)), "another kind of key than P-256"),
    ],
    ids=["another's name", "no request", "another kind of key"],
)
def test_who_asks_for_what_is_not_his_gets_nothing(tmp_path: Path, asked: bytes, refusal: str) -> None:
    """An agent that has gone astray cannot become another node."""
    with pytest.raises(SkyrackError, match=refusal):
        Authority.of("q1w2e3r4", tmp_path).issue(asked, BEIJING, NOW)


def test_a_request_that_is_not_signed_by_its_key_gets_nothing(tmp_path: Path) -> None:
    """Who asks must have the key."""
    der = bytearray(x509.load_pem_x509_csr(request()).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(SkyrackError, match="beijing"):
        Authority.of("q1w2e3r4", tmp_path).issue(pem, BEIJING, NOW)


def test_a_damaged_authority_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    """No new one takes its place: the nodes of the run would not know it."""
    (tmp_path / AUTHORITY_FILE).write_text("-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(SkyrackError, match=str(tmp_path / AUTHORITY_FILE)):
        Authority.of("q1w2e3r4", tmp_path)
