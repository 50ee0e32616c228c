"""Options that servers have in common; those of one side stand in its own folder. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from engine.data.model import ModelRef
from engine.data.precision import AUTO, DTYPE_CHOICES
from engine.options.declared import group, option
from engine.options.kinds import whole

DTYPE_HELP = "what the layers compute in; auto: float32 on CPUs if it fits, what is stored on GPUs (default %(default)s)"
KV_DTYPE_HELP = "what keys and values are kept in; auto: as they are computed (default %(default)s)"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Role(IntEnum):
    """What a token allows; each role may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    WORKER = 3
    COORDINATOR = 4


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Where models and fetched weights are kept."""

    cache_dir: Path | None = option(kind=Path, help="where weights are kept (default: $NOODLE_CACHE or the user's cache folder)")

    @property
    def folder(self) -> Path:
        from engine.folders import cache_folder

        return self.cache_dir or cache_folder()


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and how its weights are stored while it runs."""

    model: str | None = option(help="hub id, local folder, or architecture name (default: GPT-2)")
    random_weights: int | None = option(kind=whole(0), metavar="SEED", help="seeded random weights")
    dtype: str = option(default=AUTO, choices=DTYPE_CHOICES, help=DTYPE_HELP)
    kv_dtype: str = option(default=AUTO, choices=DTYPE_CHOICES, help=KV_DTYPE_HELP)
    cache: CacheOptions = group(CacheOptions)

    def ref(self) -> ModelRef:
        """The model; without a name GPT-2 from the local hub cache, or with random weights if it is not there."""
        from engine.model.sources.source import default_ref

        if self.model is None and self.random_weights is None:
            default = default_ref()
            return ModelRef(default.model, default.random_weights, self.dtype, self.kv_dtype)
        return ModelRef(self.model or "gpt2", self.random_weights, self.dtype, self.kv_dtype)


@dataclass(frozen=True)
class SecurityOptions:
    """Who may call, and what this process shows others."""

    token_file: Path | None = option(kind=Path, of_process=True, help="lines 'viewer|operator|worker TOKEN'")
    tls_cert: Path | None = option(kind=Path, of_process=True, help="this server's certificate (PEM)")
    tls_key: Path | None = option(kind=Path, of_process=True, help="its key (PEM)")
    tls: bool = option(default=False, of_process=True, help="trust the authorities that this system trusts, for calls to others")
    tls_ca: Path | None = option(kind=Path, of_process=True, help="the authority of all nodes (PEM); callers must show a certificate of it")
    insecure: bool = option(default=False, of_process=True, help="allow an address other than loopback without TLS and token")


@dataclass(frozen=True)
class MetricsOptions:
    """Where to answer scrapes; without a port nothing listens."""

    metrics_port: int | None = option(kind=whole(0), metavar="PORT", help="Prometheus text at /metrics; 0 picks a free port")
    metrics_host: str = option(default="127.0.0.1", of_process=True, metavar="ADDR", help="where to listen for it (default %(default)s)")
    insecure: bool = option(default=False, of_process=True, help="allow an address other than loopback without TLS and token")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where a process listens, who may call it, and how it ends."""

    listen: str = option(default="127.0.0.1:0", metavar="HOST:PORT", help="its address (default %(default)s); port 0 picks a free one")
    security: SecurityOptions = group(SecurityOptions)
    metrics: MetricsOptions = group(MetricsOptions)
    exit_with_parent: bool = option(default=False, of_process=True, help="end when stdin is closed")
    log_level: str = option(default="INFO", choices=LOG_LEVELS, of_process=True, help="the least that is logged (default %(default)s)")
