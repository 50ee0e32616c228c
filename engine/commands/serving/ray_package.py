"""Ray, for the commands that need it; nobody else imports it."""

from __future__ import annotations

from types import ModuleType

from engine.data.errors import NotSupported


def ray_cluster() -> ModuleType:
    """The module that starts and ends clusters on Ray. Raises NotSupported without Ray's package."""
    try:
        from engine.service.on_ray import ray_cluster as found
    except ModuleNotFoundError as e:
        raise NotSupported(f"--on ray needs {e.name}, which is not installed: pip install 'noodlecore[ray]'") from e
    return found
