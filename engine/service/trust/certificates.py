"""A private authority in a folder, and a certificate for each node: `ca.pem`, `ca.key`, `revoked.pem`, `NAME.pem`, `NAME.key`.

A certificate's common name is the name of the node, and stands among its alternative names too, so that a caller can check whom it
reached wherever that node listens. Its organisational unit is its role. Keys are ECDSA on P-256; RFC 5280 says what the fields mean.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from engine.data.errors import InvalidInput, NotFound, Refused, check_name
from engine.files import read_document, replace_whole
from engine.service.options import Role

AUTHORITY = "ca"
CA_DAYS = 3650
NODE_DAYS = 397  # as long as public authorities may
CLOCK_SLACK = datetime.timedelta(minutes=5)  # machines of one cluster differ by so much
CRL_DAYS = 3650


@dataclass(frozen=True, slots=True)
class NodeCertificate:
    """What a certificate says; `serial` is its number in the authority's books."""

    name: str
    role: str
    hosts: tuple[str, ...]
    serial: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    revoked: bool = False


# --- making -----------------------------------------------------------------------------------------------------------
def make_authority(folder: Path, name: str, days: int = CA_DAYS) -> None:
    """A new authority in `folder`. Raises Refused if there is one already."""
    if (folder / f"{AUTHORITY}.pem").exists():
        raise Refused(f"{folder} holds an authority already: choose another --dir, or keep it")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "NoodleCore")])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_key(folder / f"{AUTHORITY}.key", key)
    replace_whole(folder / f"{AUTHORITY}.pem", certificate.public_bytes(serialization.Encoding.PEM))
    _write_revoked(folder, [])


def issue(folder: Path, name: str, role: Role, hosts: Sequence[str], days: int = NODE_DAYS) -> tuple[Path, Path]:
    """A certificate and its key for a node; returns their paths. Raises NotFound without an authority, Refused for a name in use."""
    check_name("node name", name)
    _authority(folder)
    _check_free(folder, name)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = signed(folder, request_for(key, name), name, role, hosts, days)
    key_path, path = folder / f"{name}.key", folder / f"{name}.pem"
    write_key(key_path, key)
    replace_whole(path, certificate)
    return path, key_path


def admit(folder: Path, request: bytes, name: str, role: Role) -> bytes:
    """A certificate for the key of another machine, which asks for it with a signing request; it is kept in the books, without a key.

    Raises InvalidInput for bytes that are no request of whoever has the key, Refused for a name in use.
    """
    check_name("node name", name)
    _check_free(folder, name)
    try:
        asked = x509.load_pem_x509_csr(request)
        is_right = asked.is_signature_valid
    except (ValueError, TypeError) as e:
        raise InvalidInput("this is no request for a certificate: use the same version everywhere") from e
    if not is_right:
        raise InvalidInput("the request for a certificate is not signed by its own key")
    certificate = signed(folder, asked, name, role, [], NODE_DAYS)
    replace_whole(folder / f"{name}.pem", certificate)
    return certificate


def _check_free(folder: Path, name: str) -> None:
    if name == AUTHORITY:
        raise InvalidInput(f"{AUTHORITY!r} is the name of the authority's own files: give the node another name")
    known = {c.name: c for c in issued(folder)}
    if name in known and not known[name].revoked:
        raise Refused(f"{name} has a certificate already: revoke it first (noodle-engine certs revoke {name}), or give another name")


def request_for(key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateSigningRequest:
    """Shows an authority whose key it is."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


def signed(folder: Path, request: x509.CertificateSigningRequest, name: str, role: Role, hosts: Sequence[str], days: int) -> bytes:
    """A node's certificate (PEM) for the key of `request`; what else stands there is of no account."""
    authority, ca_key = _authority(folder)
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.name.lower())]
    )
    usage = x509.KeyUsage(True, False, False, False, True, False, False, False, False)
    certificate = (
        _builder(subject, authority.subject, request.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys((name, *hosts))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def revoke(folder: Path, name: str) -> None:
    """Put a node's certificate on the list of those that count no more. Raises NotFound for a name without one."""
    found = next((c for c in issued(folder) if c.name == name), None)
    if found is None:
        raise NotFound(f"{folder} holds no certificate of {name[:80]!r}: `noodle-engine certs list` names those there are")
    _write_revoked(folder, sorted({*revoked_serials(folder / "revoked.pem"), found.serial}))


def _builder(subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not host.isascii() or not host or any(c.isspace() for c in host):
        raise InvalidInput(f"--host {host[:80]!r} is not allowed: give a host name or an IP address without a port")
    return x509.DNSName(host)


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """For its owner alone."""
    replace_whole(path, key_pem(key), mode=0o600)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """As files hold it, in clear text."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write_revoked(folder: Path, serials: Sequence[int]) -> None:
    authority, key = _authority(folder)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.subject).last_update(now - CLOCK_SLACK)
    builder = builder.next_update(now + datetime.timedelta(days=CRL_DAYS))
    for serial in serials:
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build())
    replace_whole(folder / "revoked.pem", builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


# --- reading ----------------------------------------------------------------------------------------------------------
def authority(folder: Path) -> x509.Certificate:
    """Of a folder that can sign; raises NotFound for one that cannot."""
    return _authority(folder)[0]


def authority_in(path: Path) -> x509.Certificate:
    """Raises InvalidInput for a file that holds no certificate."""
    with _readable(path):
        return x509.load_pem_x509_certificate(read_document(path, "a certificate").encode())


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    remedy = f"{folder} holds no authority: make one with `noodle-engine certs init --dir {folder}`"
    path, key_path = folder / f"{AUTHORITY}.pem", folder / f"{AUTHORITY}.key"
    if not path.exists() or not key_path.exists():
        raise NotFound(remedy)
    with _readable(path):
        certificate = x509.load_pem_x509_certificate(read_document(path, "a certificate").encode())
    with _readable(key_path):
        key = serialization.load_pem_private_key(read_document(key_path, "a key").encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"{key_path} is no key of an authority of this program: it must be ECDSA")
    return certificate, key


def issued(folder: Path) -> tuple[NodeCertificate, ...]:
    """The certificates of nodes in `folder`, by name."""
    revoked = revoked_serials(folder / "revoked.pem")
    paths = [p for p in sorted(folder.glob("*.pem")) if p.stem not in (AUTHORITY, "revoked")]
    return tuple(read_certificate(path, revoked) for path in paths)


def read_certificate(path: Path, revoked: frozenset[int] = frozenset()) -> NodeCertificate:
    """Raises InvalidInput for a file that holds none."""
    with _readable(path):
        return described(x509.load_pem_x509_certificate(read_document(path, "a certificate").encode()), revoked)


def described(certificate: x509.Certificate, revoked: frozenset[int] = frozenset()) -> NodeCertificate:
    """What it says about its node."""
    hosts: tuple[str, ...] = ()
    with contextlib.suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))
    return NodeCertificate(
        name=_text(certificate.subject, NameOID.COMMON_NAME),
        role=_text(certificate.subject, NameOID.ORGANIZATIONAL_UNIT_NAME),
        hosts=hosts,
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        revoked=certificate.serial_number in revoked,
    )


def _text(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    found = name.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def revoked_serials(path: Path) -> frozenset[int]:
    """The numbers on a list of revoked certificates; none without a file. Raises InvalidInput for a file that is no list."""
    if not path.exists():
        return frozenset()
    with _readable(path):
        found = x509.load_pem_x509_crl(read_document(path, "a list of revoked certificates").encode())
        return frozenset(entry.serial_number for entry in found)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as e:
        raise InvalidInput(f"{path} cannot be read as what it should be ({str(e)[:120]}): is it whole, and the right file?") from e
