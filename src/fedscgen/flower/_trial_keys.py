"""Certificates and keys for a trial of the network, in the formats that Flower's programs read."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedscgen._files import create_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_THIS_COMPUTER = ("localhost", "127.0.0.1", "::1")
_CLOCK_SKEW = timedelta(hours=1)
_HOST = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.IGNORECASE)
_SITE = re.compile(r"\w[\w.-]*")


def write_trial_keys(folder: Path, hosts: Sequence[str], sites: Sequence[str], *, days: int = 30) -> None:
    """Make all certificates and keys of a trial in one place.

    Whoever runs this holds every site's key, and the key that signs is thrown away: enough to try the network, but
    not for work with patients' data.

    Parameters
    ----------
    folder
        Folder to make. It gets ``ca.crt``, for everybody; ``superlink/server.pem`` and ``superlink/server.key``, for
        the coordinator; ``sites/NAME/auth.key``, for that site alone, and ``auth.pub``, to register it by.
    hosts
        Names or IP addresses by which the sites reach the coordinator. Its own computer reaches it in any case.
    sites
        Names of the sites.
    days
        How long the certificates hold.

    Raises
    ------
    FileExistsError
        There is such a folder.
    ValueError
        A host is no name or address, or a site's name can't name a folder or comes twice; the message names it.
    """
    names = _alternative_names(hosts)
    _check_sites(sites)
    with create_whole(folder, overwrite=False, remedy="choose another place, or remove it") as target:
        _make_private(target)
        _write_certificates(target, names, days)
        _make_private(target / "sites")
        for site in sites:
            _write_site_keys(target / "sites" / site)


class _Authority(NamedTuple):
    key: EllipticCurvePrivateKey
    certificate: x509.Certificate


def _write_certificates(folder: Path, names: x509.SubjectAlternativeName, days: int) -> None:
    authority = _new_authority(days)
    key = generate_private_key(SECP384R1())
    certificate = _server_certificate(authority, key, names, days)
    _make_private(folder / "superlink")
    (folder / "ca.crt").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (folder / "superlink" / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    _write_key(folder / "superlink" / "server.key", key, PrivateFormat.PKCS8)


def _write_site_keys(folder: Path) -> None:
    key = generate_private_key(SECP384R1())
    _make_private(folder)
    _write_key(folder / "auth.key", key, PrivateFormat.OpenSSH)
    (folder / "auth.pub").write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n")


def _new_authority(days: int) -> _Authority:
    key = generate_private_key(SECP384R1())
    subject = _name("fedscgen trial CA")
    unsigned = (
        _begin_certificate(subject, subject, key, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return _Authority(key, unsigned.sign(key, SHA384()))


def _server_certificate(
    authority: _Authority, key: EllipticCurvePrivateKey, names: x509.SubjectAlternativeName, days: int
) -> x509.Certificate:
    issuer = authority.certificate.subject
    unsigned = (
        _begin_certificate(_name("fedscgen trial SuperLink"), issuer, key, authority.key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
    )
    return unsigned.sign(authority.key, SHA384())


def _begin_certificate(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, signer: EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(signed_by, critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*purposes: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{purpose: purpose in purposes for purpose in every})


def _alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    if not hosts:
        raise ValueError("no host: add the name or address by which the sites reach the coordinator")
    return x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys((*hosts, *_THIS_COMPUTER))])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            message = f"host {host!r} is neither a name nor an IP address: write it without port, brackets or https://"
            raise ValueError(message) from None
        return x509.DNSName(host)


def _check_sites(sites: Sequence[str]) -> None:
    if not sites:
        raise ValueError("no site: add the name of each")
    taken: set[str] = set()
    for site in sites:
        if not _SITE.fullmatch(site):
            raise ValueError(f"site {site!r} can't name a folder: use letters, digits, '_', '-' and '.'")
        if site.casefold() in taken:
            raise ValueError(f"site {site!r} comes twice: give every site a name of its own")
        taken.add(site.casefold())


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700)


def _write_key(path: Path, key: EllipticCurvePrivateKey, form: PrivateFormat) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
