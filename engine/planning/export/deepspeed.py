"""DeepSpeed: the bounds of a `PipelineModule`'s stages in its list of layers.

`PipelineModule._partition_layers` (0.19: deepspeed/runtime/pipe/module.py) fills `self.parts`, the first layer of every stage and at
last the number of layers, and tells its own stage with `_set_bounds`. Its `partition_method` knows equal counts, equal parameters and
counts of a class, and none of them takes bounds; so a class of its own sets them. Embedding and head
are layers of that list like any block.
"""

from __future__ import annotations

from engine.planning.export.exported import Exported, Wish

_CLASS = """\
from deepspeed.pipe import PipelineModule


class PlannedModule(PipelineModule):
    \"\"\"{what}\"\"\"

    def _partition_layers(self, method="uniform"):
        self.parts = {parts}
        stage = self._topo.get_coord(self.global_rank).pipe
        self._set_bounds(start=self.parts[stage], stop=self.parts[stage + 1])


# model = PlannedModule(layers=[...], num_stages={num_stages})  # {num_layers} layers: {layers}
# rank order: {nodes}
"""


def for_deepspeed(wish: Wish) -> Exported:
    """A class for a program that builds the model as a list of layers, one for each item."""
    plan, shares = wish.plan, wish.shares
    parts = [0, *(stage.stop for stage in plan.stages)]
    blocks = shares[-1].stop
    layers = [
        *(["the embedding"] if shares[0].has_embedding else []),
        f"{blocks} blocks",
        *(["the norm and head"] if shares[-1].has_head else []),
    ]
    text = _CLASS.format(
        what=f"Stages of {', '.join(str(stage.stop - stage.start) for stage in plan.stages)} layers, as planned.",
        parts=parts,
        num_stages=len(plan.stages),
        num_layers=len(plan.items),
        layers=", ".join(layers),
        nodes=", ".join(ascii(stage.node_id)[1:-1] for stage in plan.stages),
    )
    said = [
        f"the list must have {len(plan.items)} layers ({', '.join(layers)}): where yours has others, move the bounds",
        "ranks are places in DeepSpeed's hostfile: write the nodes there in the order of the stages",
        "PipelineModule trains and evaluates batches; it keeps no keys and values, so it does not generate text",
    ]
    if any(item.tied_to is not None for item in plan.items):
        said.append("the embedding and the head share a table: write them as TiedLayerSpec of one key")
    return Exported("deepspeed", {"parts": parts, "num_stages": len(plan.stages)}, text, shares, (), tuple(said))
