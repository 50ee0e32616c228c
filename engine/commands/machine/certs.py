"""`noodle-engine certs`: a private authority, and a certificate for each node of a cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from engine.commands.machine.options import Certs
from engine.commands.output import note, print_json, say, table
from engine.data.errors import InvalidInput
from engine.service.options import Role
from engine.service.trust import certificates
from engine.service.trust.certificates import NodeCertificate


def certs(options: Certs) -> int:
    """Make, list or revoke; a private key never leaves the folder by itself."""
    if (options.action in ("node", "revoke")) != (options.name is not None):
        raise InvalidInput(f"certs {options.action} takes {'the name of a node' if options.name is None else 'no name'}: see --help")
    folder = options.folder
    if options.action == "init":
        certificates.make_authority(folder, f"NoodleCore authority in {folder.resolve().name}")
        _say(options, {"authority": str(folder / "ca.pem")}, f"{folder / 'ca.pem'} is the authority: copy it to every machine")
        note(f"{folder / 'ca.key'} signs certificates: whoever has it can join the cluster; it is needed on no other machine")
    elif options.action == "node" and options.name is not None:
        path, key = certificates.issue(folder, options.name, Role[options.role.upper()], options.host, options.days)
        _say(options, {"certificate": str(path), "key": str(key)}, f"{path} and {key}: copy both, with ca.pem, to {options.name} alone")
    elif options.action == "revoke" and options.name is not None:
        certificates.revoke(folder, options.name)
        _say(options, {"revoked": options.name}, f"{options.name} is revoked: copy {folder}/revoked.pem beside each ca.pem, then SIGHUP")
    else:
        _show(options, certificates.issued(folder))
    return 0


def _say(options: Certs, document: dict[str, Any], text: str) -> None:
    print_json(document) if options.json else say(text)


def _show(options: Certs, found: tuple[NodeCertificate, ...]) -> None:
    if options.json:
        dates = ("not_before", "not_after")
        print_json([asdict(c) | {d: getattr(c, d).isoformat() for d in dates} | {"serial": f"{c.serial:x}"} for c in found])
        return
    rows = [(c.name, c.role, "revoked" if c.revoked else f"until {c.not_after:%Y-%m-%d}", ", ".join(c.hosts)) for c in found]
    say(table(("NODE", "ROLE", "COUNTS", "HOSTS"), rows) if rows else f"{options.folder} holds no certificate of a node yet")
