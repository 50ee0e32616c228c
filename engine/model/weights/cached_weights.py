"""A model whose tensors lie in the weight cache instead of a folder of its own.

Every tensor is checked against its content hash while it is read, so a damaged entry never becomes a weight.
"""

from __future__ import annotations

from engine.model.weights.manifest import Manifest
from engine.model.weights.stored_tensor import stored_tensor
from engine.model.weights.weight_cache import WeightCache
from engine.model.weights.weight_folder import WeightFolder


class CachedWeights(WeightFolder):
    """Looks like the model's folder; an entry that is not there, or damaged, shows when it is read (DamagedTensor)."""

    def __init__(self, manifest: Manifest, cache: WeightCache) -> None:
        """Raises what `WeightFolder` raises for the configuration, and Exhausted if it cannot be written."""
        tensors = (stored_tensor(entry, cache.path(entry.sha256), 0, entry.sha256) for entry in manifest.tensors)
        self._fill(cache.config_folder(manifest.config_text), manifest.config_text, manifest.fingerprint, tensors)
