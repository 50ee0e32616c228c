"""Which modules of a transformers model each item is made of, as a profile of it tells."""

from __future__ import annotations

from engine.profile.profile import Profile


def modules_of(profile: Profile) -> tuple[tuple[str, ...], ...]:
    """Paths of the outermost hooked modules of every item, in the order in which they run."""
    item_of = {layer.path: layer.item for layer in profile.layers}
    modules: list[list[str]] = [[] for _ in profile.items]
    for layer in profile.layers:
        if layer.item is not None and (layer.parent is None or item_of.get(layer.parent) != layer.item):
            modules[layer.item].append(layer.path)
    return tuple(map(tuple, modules))
