"""How a command reaches a cluster that runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.options.declared import option

if TYPE_CHECKING:
    from engine.service.client import Client

ADDRESS_VARIABLE, TOKEN_VARIABLE = "NOODLE_CONNECT", "NOODLE_TOKEN"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A coordinator's address and what it asks of its callers."""

    connect: str = option(
        default_from=lambda: os.environ.get(ADDRESS_VARIABLE, "127.0.0.1:7070"),
        metavar="HOST:PORT",
        help=f"the coordinator (default: ${ADDRESS_VARIABLE} or 127.0.0.1:7070)",
    )
    token: str | None = option(default_from=lambda: os.environ.get(TOKEN_VARIABLE), help=f"default: ${TOKEN_VARIABLE}")
    tls_ca: Path | None = option(kind=Path, help="the authority that signed the coordinator's certificate (PEM)")

    def client(self) -> Client:
        """Not connected yet: `async with` connects it."""
        from engine.service.client import Client  # loads gRPC, which no command line needs

        return Client(self.connect, self.token, self.tls_ca)
