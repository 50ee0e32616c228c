"""Why the link is down, in an operator's words. gRPC's own are in the Logs. Pure."""

from __future__ import annotations

TRANSPORT = "cannot reach "  # how the client begins what it was not the coordinator that said
_GUESS = "is it running"  # how it ends what gRPC said of it
_CAUSES: tuple[tuple[tuple[str, ...], str], ...] = (  # the first that fits; what gRPC or the system calls it, then what it means
    (
        ("certificate", "ssl", "tls", "wrong version number", "handshake"),
        "no secure connection to {0}: its certificate is not trusted here, or only one side uses TLS",
    ),
    (("connection refused",), "{0} refuses: no coordinator listens there"),
    (
        ("dns resolution", "name resolution", "name or service not known", "domain name not found", "could not contact dns"),
        "the name in {0} is not known to this machine: check how it is spelt, or give the IP address",
    ),
    (
        ("no route to host", "network is unreachable", "host is down"),
        "{0} is not reachable from this machine: check network and VPN",
    ),
    (
        ("ping timeout", "keepalive", "too_many_pings"),
        "{0} no longer answers: its process hangs, or the network between is cut",
    ),
    (("timed out", "deadline exceeded", "timeout"), "{0} did not answer in time: the host is off, or a firewall drops what is sent there"),
    (
        ("socket closed", "reset by peer", "broken pipe", "goaway", "stream removed", "eof", "shutdown", "cancelled", "closed"),
        "{0} closed the connection: its process has ended or starts again",
    ),
)
_OWN = {
    "the coordinator closed the stream": "{0} closed the connection: its process has ended or starts again",
    "this cluster asks for a token": "{0} asks for a token: start the console with --token-file FILE or with NOODLE_TOKEN set",
}


def plainly(error: str, address: str) -> str:
    """The cause in plain words where it is known, else `error` as it came."""
    where = address or "the coordinator"
    own = next((text for beginning, text in _OWN.items() if error.startswith(beginning)), "")
    if own:
        return own.format(where)
    if not error.startswith(TRANSPORT):
        return error
    if _GUESS not in error:  # the client found out what is wrong, and what to do
        return error.removeprefix(TRANSPORT).partition(": ")[2] or error
    told = error.removeprefix(TRANSPORT).replace(address, "").lower()
    meaning = next((text for names, text in _CAUSES if any(name in told for name in names)), "")
    return meaning.format(where) if meaning else error
