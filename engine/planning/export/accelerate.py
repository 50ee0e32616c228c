"""accelerate: a `device_map`, from the path of every module to the device that holds it.

`accelerate.dispatch_model(model, device_map)` (1.15: accelerate/big_modeling.py) wants every tensor of the model under some path, and
knows one process on one machine: devices are GPU numbers, "cpu", "mps" or "disk". Unless told otherwise, stage k is GPU k.
"""

from __future__ import annotations

import re

from engine.data.errors import InvalidInput
from engine.data.json_text import json_text
from engine.planning.export.exported import Exported, Wish, in_the_plan

_NUMBERED = re.compile(r"(?:cuda:)?([0-9]{1,3})")


def for_accelerate(wish: Wish) -> Exported:
    """Raises InvalidInput where the modules are not known, or are those of another model."""
    if len(wish.modules) != len(wish.plan.items):
        what = (
            f"those of {len(wish.modules)} items are known, the plan has {len(wish.plan.items)}"
            if wish.modules
            else "nobody knows them here"
        )
        raise InvalidInput(
            f"a device_map names the model's modules, and {what}: give the model with --model, or plan from a --profile of it"
        )
    map_: dict[str, int | str] = {}
    for number, stage in enumerate(wish.plan.stages):
        device = _device(wish.devices.get(stage.node_id, str(number)))
        map_ |= {path: device for item in range(stage.start, stage.stop) for path in wish.modules[item]}
    said = ["accelerate runs the stages in one process on one machine: hops over a network, and nodes on other machines, it does not have"]
    assumed = [stage.node_id for stage in wish.plan.stages if stage.node_id not in wish.devices]
    if assumed:
        said.append(
            f"{', '.join(assumed[:8])}: taken as this machine's GPUs in the order of the stages; say otherwise with --device NODE=DEVICE"
        )
    if len(wish.plan.stages) > 1:
        said.append(f"one forward pass runs at a time: expect {wish.plan.tokens_per_s(1):.4g} tokens/s, not {in_the_plan(wish.plan)}")
    said.append("memory for keys and values is not set aside: it grows where the blocks are")
    return Exported("accelerate", {"device_map": map_}, json_text(map_, indent=1), wish.shares, (), tuple(said))


def _device(name: str) -> int | str:
    """`cuda:1` and `1` are accelerate's 1; every other name stays."""
    number = _NUMBERED.fullmatch(name)
    return int(number[1]) if number else name
