"""Tokens, certificates and keys as their files hold them, each mistake with the option and the file that is wrong. No connection here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from engine.data.errors import InvalidInput, NoodleError, Refused
from engine.files import read_document
from engine.service.addresses import is_loopback
from engine.service.options import Role
from engine.service.trust.options import AccessOptions

MIN_TOKEN_CHARACTERS = 16
TOKEN_ROLES = ("VIEWER", "OPERATOR", "WORKER")


@dataclass(frozen=True, slots=True)
class Trusted:
    """Whom a side believes, and what it shows; `roots` None are those of the system. `*_path` are where the rest came from."""

    roots: bytes | None = None
    key: bytes = field(default=b"", repr=False)
    certificate: bytes = b""
    key_path: Path | None = None
    certificate_path: Path | None = None


def read_shown(options: AccessOptions) -> tuple[str | None, Trusted | None]:
    """The token and the certificates of a program that asks and operates; None where none are given, and for clear text.

    Raises InvalidInput naming the option and the file that is wrong."""
    if options.token and options.token_file is not None:
        raise InvalidInput("--token and --token-file (or NOODLE_TOKEN and NOODLE_TOKEN_FILE) name two tokens: give one")
    token = options.token or None if options.token_file is None else _client_token(options.token_file)
    if token is not None:
        check_token(token, "the token")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise InvalidInput("--tls-cert and --tls-key go together: give both")
    if not options.tls and options.tls_ca is None and options.tls_cert is None:
        return token, None
    roots = None if options.tls_ca is None else read_authority(options.tls_ca)
    if options.tls_cert is None or options.tls_key is None:
        return token, Trusted(roots)
    key, certificate = read_pair(options.tls_key, options.tls_cert)
    return token, Trusted(roots, key, certificate, options.tls_key, options.tls_cert)


def check_travels(token: str | None, trusted: Trusted | None, address: str) -> None:
    """Raise Refused where the token would travel in clear text to another machine."""
    if token is not None and trusted is None and not is_loopback(address):
        raise Refused(
            f"{address} is on another machine and the connection has no TLS: the token would travel in clear text; give --tls-ca FILE "
            "or --tls, or reach it through a tunnel on a loopback address"
        )


def read_tokens(path: Path) -> dict[str, Role]:
    """Lines `viewer|operator|worker TOKEN`; empty lines and those that begin with # are skipped. Raises InvalidInput naming the line."""
    tokens: dict[str, Role] = {}
    for number, line in enumerate(_token_lines(path), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2 or words[0].upper() not in TOKEN_ROLES or len(words[1]) < MIN_TOKEN_CHARACTERS:
            raise InvalidInput(
                f"{path}:{number}: expected 'viewer|operator|worker TOKEN', the token of {MIN_TOKEN_CHARACTERS} or more characters"
            )
        tokens[check_token(words[1], f"the token at {path}:{number}")] = Role[words[0].upper()]
    if not tokens:
        raise InvalidInput(f"{path} holds no token: write one line 'worker TOKEN' at least")
    return tokens


def _client_token(path: Path) -> str:
    """The one token of a file, or the operator's among several, or the first."""
    words = [line.split() for line in _token_lines(path) if line.split() and not line.startswith("#")]
    if len(words) == 1 and len(words[0]) == 1:
        return check_token(words[0][0], f"the token in {path}")
    tokens = read_tokens(path)
    return next((t for t, role in tokens.items() if role is Role.OPERATOR), next(iter(tokens)))


def _token_lines(path: Path) -> list[str]:
    try:
        return read_document(path, "tokens").splitlines()
    except NoodleError as e:
        raise InvalidInput(f"--token-file: {e}") from e


def check_token(token: str, name: str) -> str:
    """Return `token` if a header of a call can carry it; else raise InvalidInput, which does not repeat it."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidInput(f"{name} has other characters than the visible ones of ASCII: give one without, from --token or NOODLE_TOKEN")
    return token


def read_pem(path: Path, option: str) -> bytes:
    """A certificate or key. Raises InvalidInput naming the option and the file."""
    try:
        content = read_document(path, "a certificate or key in PEM format").encode()
    except NoodleError as e:
        raise InvalidInput(f"{option}: {e}") from e
    if b"-----BEGIN " not in content:
        raise InvalidInput(f"{option}: {path} holds no certificate or key in PEM format (a line -----BEGIN ...): is it the right file?")
    return content


def read_authority(path: Path) -> bytes:
    """The certificates of --tls-ca. Raises InvalidInput naming the file if there is none in it that can be read."""
    import ssl

    content = read_pem(path, "--tls-ca")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError as e:
        raise InvalidInput(f"--tls-ca: {path} holds no certificate that can be read ({e.reason or e}): is it the right file?") from e
    return content


def read_pair(key_path: Path, certificate_path: Path) -> tuple[bytes, bytes]:
    """A key and its certificate. Raises InvalidInput if one of them cannot be read or they do not belong together."""
    import ssl

    key, certificate = read_pem(key_path, "--tls-key"), read_pem(certificate_path, "--tls-cert")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate_path, key_path, password="")
    except ssl.SSLError as e:
        if e.reason == "KEY_VALUES_MISMATCH":
            raise InvalidInput(
                f"--tls-key: {key_path} is not the key of the certificate {certificate_path}: give the two that go together"
            ) from e
        raise InvalidInput(
            f"--tls-cert {certificate_path} with --tls-key {key_path} cannot be used ({e.reason or e}): are they swapped?"
        ) from e
    return key, certificate
