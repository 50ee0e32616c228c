"""How a command reaches a cluster that runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.options.declared import group, option
from engine.service.trust.options import AccessOptions

if TYPE_CHECKING:
    from engine.service.client import Client

ADDRESS_VARIABLE = "NOODLE_CONNECT"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A coordinator's address and what it asks of its callers."""

    connect: str = option(
        default_from=lambda: os.environ.get(ADDRESS_VARIABLE, "127.0.0.1:7070"),
        metavar="HOST:PORT",
        help=f"the coordinator (default: ${ADDRESS_VARIABLE} or 127.0.0.1:7070)",
    )
    access: AccessOptions = group(AccessOptions)

    def client(self) -> Client:
        """Not connected yet: `async with` connects it."""
        from engine.service.client import Client  # loads gRPC, which no command line needs
        from engine.service.trust.access import access_of_client

        return Client(self.connect, access_of_client(self.access, self.connect))
