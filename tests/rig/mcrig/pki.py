"""Certificates and kubeconfigs of one cluster."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=30)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFE)
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority that writes what it signs into `folder`."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    name: x509.Name

    @classmethod
    def create(cls, folder: Path, name: str) -> Authority:
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _builder(subject, subject, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / "ca.key").write_bytes(_pem(key))
        return cls(folder, key, subject)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The authority that an earlier process created in `folder`."""
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(folder, key, x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()).subject)

    def issue(self, file: str, common_name: str, organization: str = "", hosts: tuple[str, ...] = ()) -> None:
        """Writes `file`.crt and `file`.key, good for both ends of TLS. `hosts` are names and addresses."""
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = _builder(x509.Name(names), self.name, key).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False
            )
        certificate = builder.sign(self.key, hashes.SHA256())
        (self.folder / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.folder / f"{file}.key").write_bytes(_pem(key))

    def key_pair(self, file: str) -> None:
        """Writes a bare key pair `file`.key and `file`.pub, as service account tokens are signed with."""
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.folder / f"{file}.key").write_bytes(_pem(key))
        (self.folder / f"{file}.pub").write_bytes(public)


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def kubeconfig(path: Path, contexts: dict[str, tuple[Path, str, str]], namespace: str = "default") -> None:
    """Writes a kubeconfig. `contexts`: name to (folder of certificates, file name of the client's, server URL)."""
    entries = {}
    for name, (folder, file, server) in contexts.items():
        user = {
            "client-certificate-data": _base64(folder / f"{file}.crt"),
            "client-key-data": _base64(folder / f"{file}.key"),
        }
        entries[name] = (folder / "ca.crt", server, user)
    _write(path, entries, namespace)


def token_kubeconfig(path: Path, contexts: dict[str, tuple[Path, str, str]], namespace: str = "default") -> None:
    """Writes a kubeconfig. `contexts`: name to (certificate of the authority, server URL, bearer token)."""
    entries = {name: (ca, server, {"token": token}) for name, (ca, server, token) in contexts.items()}
    _write(path, entries, namespace)


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def _write(path: Path, contexts: dict[str, tuple[Path, str, dict[str, str]]], namespace: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(ca)}}
            for name, (ca, server, _) in contexts.items()
        ],
        "users": [{"name": f"{name}-user", "user": user} for name, (_, _, user) in contexts.items()],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": f"{name}-user", "namespace": namespace}}
            for name in contexts
        ],
        "current-context": next(iter(contexts)),
    }
    path.write_text(json.dumps(config, indent=2))
    path.chmod(0o600)
