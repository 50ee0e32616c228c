"""A model whose tensors lie in the weight cache instead of a folder of its own, and which of them a slice needs.

Every tensor is checked against its content hash while it is read, so a damaged entry never becomes a weight.
"""

from __future__ import annotations

from engine.model.loading import SliceLoader
from engine.model.manifest import Manifest
from engine.model.slicing import build_chain, check_supported, torch_dtype
from engine.model.weight_cache import WeightCache
from engine.model.weights import WeightFolder, stored_tensor


class CachedWeights(WeightFolder):
    """Looks like the model's folder; an entry that is not there, or damaged, shows when it is read (DamagedTensor)."""

    def __init__(self, manifest: Manifest, cache: WeightCache) -> None:
        """Raises what `WeightFolder` raises for the configuration, and Exhausted if it cannot be written."""
        tensors = (stored_tensor(entry, cache.path(entry.sha256), 0, entry.sha256) for entry in manifest.tensors)
        self._fill(cache.config_folder(manifest.config_text), manifest.config_text, manifest.fingerprint, tensors)


def names_needed(weights: WeightFolder, start: int, stop: int, dtype: str, held: range = range(0)) -> frozenset[str]:
    """The stored tensors that loading items [start, stop) reads when those in `held` are in memory already.

    Reads none. Raises NotSupported for the model.
    """
    check_supported(weights.config)
    model, chain = build_chain(weights.config, torch_dtype(dtype))
    loader = SliceLoader(model, chain, weights, torch_dtype(dtype))
    items = range(start, stop)
    return frozenset(name for index in items if index not in held for name in loader.stored_names(index, items))
