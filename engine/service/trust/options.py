"""What a program that asks and operates shows the coordinator, as options. Nothing heavy is imported here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine.options.declared import option


@dataclass(frozen=True, kw_only=True)
class AccessOptions:
    """What a program that asks and operates shows the coordinator."""

    token: str | None = option(
        default_from=lambda: os.environ.get("NOODLE_TOKEN"), help="default: $NOODLE_TOKEN; others may see it in `ps`"
    )
    token_file: Path | None = option(
        default_from=lambda: _path_in("NOODLE_TOKEN_FILE"),
        kind=Path,
        metavar="FILE",
        help="a file with the token, or with lines 'viewer|operator|worker TOKEN' (default: $NOODLE_TOKEN_FILE)",
    )
    tls: bool = option(
        default_from=lambda: bool(os.environ.get("NOODLE_TLS")),
        help="TLS with the authorities that this system trusts (default: $NOODLE_TLS)",
    )
    tls_ca: Path | None = option(
        default_from=lambda: _path_in("NOODLE_TLS_CA"),
        kind=Path,
        metavar="FILE",
        help="TLS with this authority's certificate, PEM (default: $NOODLE_TLS_CA)",
    )
    tls_cert: Path | None = option(
        default_from=lambda: _path_in("NOODLE_TLS_CERT"),
        kind=Path,
        metavar="FILE",
        help="a certificate of this program, where the coordinator asks for one (default: $NOODLE_TLS_CERT)",
    )
    tls_key: Path | None = option(
        default_from=lambda: _path_in("NOODLE_TLS_KEY"), kind=Path, metavar="FILE", help="its key (default: $NOODLE_TLS_KEY)"
    )


def _path_in(variable: str) -> Path | None:
    return Path(text) if (text := os.environ.get(variable)) else None
