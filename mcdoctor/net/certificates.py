"""Certificates from the DER that a prober sent, and whether they name the server. On the asking side only."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import replace

from mcdoctor.models.facts import Certificate, TlsHandshake
from mcdoctor.models.redact import plain


def read_chain(fact: TlsHandshake) -> TlsHandshake:
    """The fact with `chain` from its `der` (which goes), and `verify.name_matched` where a name was sent.

    A certificate that cannot be read ends the chain there; the fact stays as it is when the first cannot.
    """
    chain: list[Certificate] = []
    for text in fact.der or ():
        try:
            chain.append(read(base64.b64decode(text, validate=True)))
        except (ValueError, binascii.Error):
            break
    if not chain:
        return fact
    verify = fact.verify
    if verify is not None and fact.sni:
        verify = replace(verify, name_matched=names_match(fact.sni, chain[0].sans))
    return replace(fact, chain=tuple(chain), verify=verify, der=None)


def read(der: bytes) -> Certificate:
    """Raises ValueError for what is no certificate."""
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        is_ca: bool | None = constraints.value.ca
    except (x509.ExtensionNotFound, ValueError):
        is_ca = None
    return Certificate(
        subject=plain(certificate.subject.rfc4514_string(), 300),
        issuer=plain(certificate.issuer.rfc4514_string(), 300),
        sans=_sans(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        sha256=hashlib.sha256(der).hexdigest(),
        serial=f"{certificate.serial_number:x}",
        is_ca=is_ca,
    )


def _sans(certificate: object) -> tuple[str, ...]:
    """DNS names, URIs (SPIFFE IDs) and addresses of the alternative names, as they stand."""
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.IPAddress)
    return tuple(plain(str(name.value), 300) for name in names if isinstance(name, kinds))


def names_match(name: str, sans: tuple[str, ...]) -> bool:
    """RFC 6125 for DNS names: case is nothing, a wildcard stands for the whole leftmost label and no more."""
    wanted = name.rstrip(".").lower()
    for san in sans:
        text = (san[4:] if san.startswith("DNS:") else san).rstrip(".").lower()
        if text == wanted:
            return True
        if text.startswith("*.") and "." in wanted and wanted.partition(".")[2] == text[2:]:
            return True
    return False
