"""Options of the HTTP server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.data.errors import InvalidInput
from engine.options.declared import option
from engine.options.kinds import whole

DEFAULT_HTTP = "127.0.0.1:8000"
DEFAULT_MAX_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class ApiOptions:
    """Where the API listens, and whom it lets in."""

    http: str | None = option(metavar="[HOST:]PORT", help=f"where the API listens (default {DEFAULT_HTTP}; port 0 picks a free one)")
    keys: Path | None = option(
        kind=Path,
        metavar="FILE",
        help="lines 'viewer|operator KEY': this server knows its callers itself (default: keys are the cluster's own tokens)",
    )
    model_name: str = option(default="", metavar="NAME", help="what callers call the model (default: its hub id or folder name)")
    cors: tuple[str, ...] = option(
        "--cors", repeated=True, metavar="ORIGIN", help="let web pages of this origin call, such as https://chat.example"
    )
    http_cert: Path | None = option(kind=Path, metavar="FILE", help="certificate of this server (PEM)")
    http_key: Path | None = option(kind=Path, metavar="FILE", help="its key (PEM)")
    insecure_http: bool = option(
        default=False, help="allow an address other than loopback without a certificate: keys travel in clear text"
    )
    max_tokens: int = option(
        default=DEFAULT_MAX_TOKENS,
        kind=whole(1),
        metavar="N",
        help="tokens of a chat answer whose request names no limit (default %(default)s)",
    )

    def __post_init__(self) -> None:
        if (self.http_cert is None) != (self.http_key is None):
            raise InvalidInput("--http-cert and --http-key go together: give both")
