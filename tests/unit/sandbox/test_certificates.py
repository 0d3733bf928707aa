"""The sandbox's authority: chains verify, files stay, nobody else reads the keys."""

import stat
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from sandbox.certificates import Identity, ensure_authority, ensure_certificate, ensure_signing_key


def test_a_server_certificate_verifies_against_the_authority(tmp_path: Path) -> None:
    authority = ensure_authority(tmp_path / "pki")
    server = ensure_certificate(tmp_path / "pki", "server", Identity(common_name="server", hosts=("localhost",)))
    store = Store(x509.load_pem_x509_certificates(authority.certificate.read_bytes()))
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName("localhost"))
    certificate = x509.load_pem_x509_certificate(server.certificate.read_bytes())
    assert verifier.verify(certificate, [])[0] == certificate


def test_user_and_group_stand_in_the_subject(tmp_path: Path) -> None:
    pair = ensure_certificate(tmp_path, "admin", Identity(common_name="me", organization="system:masters"))
    subject = x509.load_pem_x509_certificate(pair.certificate.read_bytes()).subject
    assert [part.value for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["me"]
    assert [part.value for part in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:masters"]


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    identity = Identity(common_name="x")
    before = [
        ensure_authority(tmp_path).certificate.read_bytes(),
        ensure_certificate(tmp_path, "x", identity).key.read_bytes(),
        ensure_signing_key(tmp_path, "tokens").key.read_bytes(),
    ]
    after = [
        ensure_authority(tmp_path).certificate.read_bytes(),
        ensure_certificate(tmp_path, "x", identity).key.read_bytes(),
        ensure_signing_key(tmp_path, "tokens").key.read_bytes(),
    ]
    assert before == after


def test_only_the_owner_reads_them(tmp_path: Path) -> None:
    directory = tmp_path / "pki"
    ensure_certificate(directory, "x", Identity(common_name="x"))
    ensure_signing_key(directory, "tokens")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
