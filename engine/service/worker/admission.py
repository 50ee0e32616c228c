"""How a worker comes to its coordinator: by an invitation, whose line becomes a certificate of its own, or by looking for one nearby.

Either ends in the options with which it would have been started by hand. Looking needs a package that is imported only then.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from engine.data.errors import Refused
from engine.service.addresses import is_loopback
from engine.service.trust.invitation import accept, read_invitation
from engine.service.worker.options import WorkerOptions, default_id

AUTO_JOIN = "auto"
LOOPBACK, ANYWHERE = "127.0.0.1:0", "0.0.0.0:0"
log = logging.getLogger(__name__)


async def admitted(options: WorkerOptions) -> WorkerOptions:
    """Raises what `read_invitation`, `find_invitation` and `accept` do."""
    invitation = read_invitation(options.join)
    if not invitation.at:
        from engine.service.trust.discovery import find_invitation

        invitation = replace(invitation, at=await find_invitation(invitation.public_name))
    folder = Path(os.environ.get("NOODLE_CERTS", "certs"))
    found = await accept(invitation, options.worker_id or default_id(), folder)
    again = f"--join {found.join} --tls-cert {found.certificate} --tls-key {found.key} --tls-ca {found.authority}"
    listen = options.server.listen
    if listen == LOOPBACK and not is_loopback(found.join):
        listen, again = ANYWHERE, f"{again} --listen {ANYWHERE}"
    log.info("invited as %s; the next time: noodle-engine worker %s", found.name, again)
    security = replace(options.server.security, tls_cert=found.certificate, tls_key=found.key, tls_ca=found.authority)
    return replace(options, join=found.join, worker_id=found.name, server=replace(options.server, listen=listen, security=security))


async def found_nearby(options: WorkerOptions) -> WorkerOptions:
    """Raises Refused without what shows whom it found, and what `find_coordinator` raises."""
    security = options.server.security
    if security.tls_ca is None and security.token_file is None:
        raise Refused(
            "--join auto believes nobody: give --tls-cert, --tls-key and --tls-ca, or --token-file; `noodle-engine invite` brings a "
            "machine in that has neither"
        )
    from engine.service.trust.discovery import find_coordinator

    join = await find_coordinator()
    log.info("found the coordinator at %s", join)
    return replace(options, join=join)
