"""Ray, for the commands that need it; nobody else imports it."""

from __future__ import annotations

from types import ModuleType

from engine.data.errors import NotSupported


def ray_cluster() -> ModuleType:
    """The module that starts and ends clusters on Ray. Raises NotSupported without Ray's package."""
    try:
        from engine.service.on_ray import ray_cluster as found
    except ModuleNotFoundError as e:
        raise _missing(e) from e
    return found


def ray_door() -> ModuleType:
    """The module that starts and ends the HTTP API of a cluster on Ray. Raises NotSupported without Ray Serve's packages."""
    try:
        from engine.api import ray_door as found
    except ImportError as e:  # Serve itself raises one without a name
        raise _missing(e) from e
    return found


def _missing(error: ImportError) -> NotSupported:
    return NotSupported(f"--on ray needs {error.name or 'Ray Serve'}, which is not installed: pip install 'noodlecore[ray]'")
