"""A worker that was invited: the line becomes a certificate of its own, and the options with which it would have been started by hand."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from engine.service.addresses import is_loopback
from engine.service.trust.invitation import accept, read_invitation
from engine.service.worker.options import WorkerOptions, default_id

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
