"""How a worker comes to its coordinator: by an invitation, whose line becomes a certificate of its own, or by looking for one nearby.

Either ends in the options with which it would have been started by hand.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from engine.data.errors import NotSupported, Refused
from engine.service.addresses import is_loopback
from engine.service.trust.invitation import accept, read_invitation
from engine.service.worker.options import WorkerOptions, default_id

AUTO_JOIN = "auto"
LOOPBACK, ANYWHERE = "127.0.0.1:0", "0.0.0.0:0"
log = logging.getLogger(__name__)


async def admitted(options: WorkerOptions) -> WorkerOptions:
    """Raises what `read_invitation` and `accept` do."""
    invitation = read_invitation(options.join)
    folder = Path(os.environ.get("NOODLE_CERTS", "certs"))
    found = await accept(invitation, options.worker_id or default_id(), folder)
    again = f"--join {invitation.join} --tls-cert {found.certificate} --tls-key {found.key} --tls-ca {found.authority}"
    listen = options.server.listen
    if listen == LOOPBACK and not is_loopback(invitation.join):
        listen, again = ANYWHERE, f"{again} --listen {ANYWHERE}"
    log.info("invited as %s; the next time: noodle-engine worker %s", found.name, again)
    security = replace(options.server.security, tls_cert=found.certificate, tls_key=found.key, tls_ca=found.authority)
    return replace(options, join=invitation.join, worker_id=found.name, server=replace(options.server, listen=listen, security=security))


async def found_nearby(options: WorkerOptions) -> WorkerOptions:
    """Raises Refused without what shows whom it found, NotSupported without the package for it, and what `find` raises."""
    security = options.server.security
    if security.tls_ca is None and security.token_file is None:
        raise Refused(
            "--join auto believes nobody: give --tls-cert, --tls-key and --tls-ca, or --token-file; `noodle-engine invite` brings a "
            "machine in that has neither"
        )
    try:
        from engine.service.trust.discovery import find
    except ModuleNotFoundError as e:
        raise NotSupported(f"--join auto needs {e.name}, which is not installed: pip install 'noodlecore[discovery]'") from e
    join = await find()
    log.info("found the coordinator at %s", join)
    return replace(options, join=join)
