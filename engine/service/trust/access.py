"""What one side shows another when it calls: a token, a certificate, and whom it trusts.

Every connection that this project opens is opened here, so that no token can leave in clear text for another machine.
"""

from __future__ import annotations

import grpc
import grpc.aio

from engine.service import wire
from engine.service.addresses import is_loopback
from engine.service.trust.credentials import Trusted, check_token, check_travels, read_authority, read_pair, read_shown
from engine.service.trust.local_tokens import find_papers, find_token
from engine.service.trust.options import AccessOptions

Metadata = tuple[tuple[str, str], ...]


class Access:
    """Opens connections and says what each call on them carries. Without `trusted` connections are in clear text.

    With `by_name` a node must show a certificate of its own name, at whatever address it is found.
    """

    def __init__(self, token: str | None = None, trusted: Trusted | None = None, by_name: bool = False) -> None:
        self.renew(token, trusted)
        self._by_name = by_name

    def renew(self, token: str | None, trusted: Trusted | None) -> None:
        """For calls and connections from now on."""
        self.token = None if token is None else check_token(token, "the token")
        self.trusted = trusted
        self._credentials = None if trusted is None else _credentials(trusted)

    @property
    def metadata(self) -> Metadata:
        """Of every call on a channel from here."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def channel(self, address: str, node_id: str = "", options: wire.Options = wire.CHANNEL_OPTIONS) -> grpc.aio.Channel:
        """A channel with this project's limits and keepalive, to the node of that name if it has one.

        Raises Refused where a token would travel in clear text.
        """
        self._check(address)
        if self._credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        if self._by_name and node_id:
            options = (*options, ("grpc.ssl_target_name_override", node_id))
        return grpc.aio.secure_channel(address, self._credentials, options=options)

    def sync_channel(self, address: str) -> grpc.Channel:
        """The same for a thread of its own."""
        self._check(address)
        if self._credentials is None:
            return grpc.insecure_channel(address, options=wire.CHANNEL_OPTIONS)
        return grpc.secure_channel(address, self._credentials, options=wire.CHANNEL_OPTIONS)

    def _check(self, address: str) -> None:
        check_travels(self.token, self.trusted, address)


def access_of_client(options: AccessOptions, address: str) -> Access:
    """Of a program that asks and operates; what lets it into a cluster that this user started is found by its address.

    Raises InvalidInput naming the option and the file that is wrong."""
    token, trusted = read_shown(options)
    if token is None and trusted is None:
        return own_access(address)
    if token is None and is_loopback(address):
        token = find_token(address)
    return Access(token, trusted)


def own_access(address: str) -> Access:
    """What `up` left for clients of this user, a certificate or a token; nothing where they started no cluster at `address`."""
    if (papers := find_papers(address)) is not None:
        key, certificate = read_pair(papers.key, papers.certificate)
        return Access(None, Trusted(read_authority(papers.authority), key, certificate, papers.key, papers.certificate))
    return Access(find_token(address) if is_loopback(address) else None)


def _credentials(trusted: Trusted) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(trusted.roots, trusted.key or None, trusted.certificate or None)
