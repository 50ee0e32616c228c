"""What a server shows and whom it lets in: tokens, its certificate, the authority it trusts, and who was revoked.

Beyond loopback a server starts only with TLS and with a way to know its callers, tokens or certificates, unless told `--insecure`.
A server with `--tls-ca` asks every caller for a certificate of that authority.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import grpc

from engine.data.errors import InvalidInput, NoodleError, Refused
from engine.service.addresses import is_loopback
from engine.service.options import Role, SecurityOptions
from engine.service.trust.access import Access
from engine.service.trust.certificates import revoked_serials
from engine.service.trust.credentials import Trusted, read_authority, read_pair, read_tokens

log = logging.getLogger(__name__)

REVOKED_NAME = "revoked.pem"  # beside the authority's certificate


@dataclass(frozen=True, slots=True)
class Known:
    """One reading of the files."""

    tokens: Mapping[str, Role] = field(default_factory=dict, repr=False)
    revoked: frozenset[int] = frozenset()
    key: bytes = field(default=b"", repr=False)
    certificate: bytes = b""
    authority: bytes = b""


class Guard:
    """Holds what was read last; `reload` reads again, and a file that is wrong then changes nothing."""

    def __init__(self, options: SecurityOptions) -> None:
        """Raises InvalidInput naming the option and the file that is wrong."""
        self.options = options
        self.known = _read(options)
        self.access = Access(*_shown(options, self.known), by_name=self.asks_for_certificates)
        self._listeners: list[Callable[[], None]] = []

    @property
    def asks_for_certificates(self) -> bool:
        return self.options.tls_cert is not None and self.options.tls_ca is not None

    def on_reload(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def reload(self) -> None:
        """For SIGHUP: new tokens and certificates count from now on, and what counts no more is cut."""
        try:
            self.known = _read(self.options)
            self.access.renew(*_shown(self.options, self.known))
        except NoodleError as e:
            log.error("nothing was read again: %s", e)
            return
        log.info("read again: %d tokens, %d revoked certificates", len(self.known.tokens), len(self.known.revoked))
        for listener in self._listeners:
            listener()

    def check_listen_address(self, address: str) -> None:
        """Raise Refused if listening on `address` would expose the cluster without protection, or send tokens in clear text."""
        has_tls = self.options.tls_cert is not None
        if is_loopback(address):
            return
        if self.known.tokens and not has_tls:
            raise Refused(
                f"{address} is not a loopback address, and without TLS tokens would travel in clear text: give --tls-cert and --tls-key "
                "(`noodle-engine certs` makes them), or on a trusted network leave --token-file out and give --insecure"
            )
        if not self.options.insecure and not (has_tls and (self.known.tokens or self.asks_for_certificates)):
            raise Refused(
                f"{address} is not a loopback address: give --tls-cert, --tls-key and --tls-ca or --token-file (`noodle-engine certs` "
                "makes the first three), or accept the risk on a trusted network with --insecure"
            )

    def exposure(self, address: str) -> str:
        """What is open to strangers at `address`, in one sentence; empty if nothing is."""
        if is_loopback(address) or self.options.tls_cert is not None:
            return ""
        return f"--insecure: whoever reaches {address} may do everything here, and reads what travels"

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """For a port; each new connection is shown what was read last. None is clear text."""
        if not self.known.certificate:
            return None
        shown = self.known

        def newest() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            if shown is self.known:
                return None
            shown = self.known
            return _configuration(shown)

        return grpc.dynamic_ssl_server_credentials(_configuration(shown), newest, self.asks_for_certificates)


def _configuration(known: Known) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(known.key, known.certificate)], known.authority or None)


def _read(options: SecurityOptions) -> Known:
    if (options.tls_cert is None) != (options.tls_key is None):
        raise InvalidInput("--tls-cert and --tls-key go together: give both")
    key, certificate = (b"", b"") if options.tls_cert is None or options.tls_key is None else read_pair(options.tls_key, options.tls_cert)
    return Known(
        tokens={} if options.token_file is None else read_tokens(options.token_file),
        revoked=frozenset() if options.tls_ca is None else revoked_serials(options.tls_ca.with_name(REVOKED_NAME)),
        key=key,
        certificate=certificate,
        authority=b"" if options.tls_ca is None else read_authority(options.tls_ca),
    )


def _shown(options: SecurityOptions, known: Known) -> tuple[str | None, Trusted | None]:
    """What this server shows others when it calls them: its worker's token, its certificate."""
    token = next((t for t, role in known.tokens.items() if role is Role.WORKER), None)
    if not options.tls and not known.authority and not known.certificate:
        return token, None
    roots = known.authority or (None if options.tls else known.certificate)
    return token, Trusted(roots, known.key, known.certificate, options.tls_key, options.tls_cert)
