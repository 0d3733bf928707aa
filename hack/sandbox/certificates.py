"""A certificate authority for one sandbox: server, client and token-signing keys in files.

It must never replace a key that is there: running processes and written kubeconfigs rely on it.
"""

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALIDITY = datetime.timedelta(days=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """The files of a private key and of its certificate (for a signing key: of its public key)."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a certificate is for: Kubernetes reads the common name as user and the organization as group."""

    common_name: str
    organization: str | None = None
    hosts: tuple[str, ...] = ()


def ensure_authority(directory: Path) -> KeyPair:
    """Make the authority of this directory unless it is there."""
    pair = _pair(directory, "ca")
    if pair.certificate.exists():
        return pair
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(Identity(common_name="guestlet-sandbox-ca"))
    builder = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
    )
    _write_pair(pair, key, builder.sign(key, hashes.SHA256()))
    return pair


def ensure_certificate(directory: Path, stem: str, identity: Identity) -> KeyPair:
    """Make a certificate for servers and clients, signed by the directory's authority, unless it is there."""
    pair = _pair(directory, stem)
    if pair.certificate.exists():
        return pair
    authority = ensure_authority(directory)
    issuer_key = serialization.load_pem_private_key(authority.key.read_bytes(), password=None)
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{authority.key} is not an elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(identity), issuer.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        # Python 3.13 verifies strictly: without this a chain is refused.
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if identity.hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_host(host) for host in identity.hosts]), critical=False
        )
    _write_pair(pair, key, builder.sign(issuer_key, hashes.SHA256()))
    return pair


def ensure_signing_key(directory: Path, stem: str) -> KeyPair:
    """Make a key that signs service-account tokens, and its public half, unless it is there."""
    pair = KeyPair(certificate=directory / f"{stem}.pub", key=directory / f"{stem}.key")
    if not pair.certificate.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_private(pair.key, _private_pem(key))
        write_private(pair.certificate, public)
    return pair


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
    new.rename(path)


def _pair(directory: Path, stem: str) -> KeyPair:
    return KeyPair(certificate=directory / f"{stem}.crt", key=directory / f"{stem}.key")


def _write_pair(pair: KeyPair, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    # The certificate comes last: its presence is what says that the pair is whole.
    write_private(pair.key, _private_pem(key))
    write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The traditional form: the API server's reader of token-signing keys knows "EC PRIVATE KEY".
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(identity: Identity) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name)]
    if identity.organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.organization))
    return x509.Name(attributes)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
