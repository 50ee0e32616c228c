"""ObservabilityEngine: what the parts of any `torch.nn.Module` take, while a program runs it or in steps taken for it.

    with ObservabilityEngine(model) as watched:
        model(batch)
    print(watched.text())

Hooks are there inside the block and gone after it, whatever was raised. The parts of a module are its children in the order in which they
are called; lists and sequences of modules are opened. What parts add up to a chain can be planned: `profile(step)` writes it down.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any

import torch
from torch import nn

from engine.data.errors import Bug, InvalidInput
from engine.data.model import Item, ModelCard, ModelRef
from engine.model.hardware.clocks import clock_for
from engine.model.hardware.roofline import measure_roofline
from engine.model.profiling.collector import MetricsCollector
from engine.model.profiling.profile_assembly import profile_of
from engine.model.profiling.profiler import Measurements, PointSamples
from engine.model.profiling.roles import HookedLayer
from engine.model.profiling.spans import StepSpans
from engine.model.profiling.traffic import count_step
from engine.profile.point import FORWARD, Point
from engine.profile.points import PointPlan
from engine.profile.profile import Profile, Role

_OPENED = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
_ONE_CALL = Point(FORWARD, 1, 0, 1)


@dataclass(frozen=True, slots=True)
class ObservedLayer:
    """One hooked module over the steps of a block; times are seconds a step, with all its calls and everything inside it."""

    path: str
    class_name: str
    num_steps: int
    p50_s: float
    worst_s: float
    self_s: float  # mean, without the hooked modules inside it
    param_bytes: int


class ObservabilityEngine:
    """Watches one module. `parts` names other parts than its children, in the order of their calls; `inside` hooks what they hold, too."""

    def __init__(self, module: nn.Module, *, parts: Sequence[str] = (), inside: bool = False, name: str = "") -> None:
        """Raises InvalidInput for a part that is not there, NotSupported for a device whose queue cannot be timed."""
        tensor = next((t for t in (*module.parameters(), *module.buffers())), None)
        self.model, self.name = module, name or type(module).__name__
        self.device = "cpu" if tensor is None else str(tensor.device)
        self.dtype = torch.get_default_dtype() if tensor is None or not tensor.is_floating_point() else tensor.dtype
        self.blocks = ""
        self._parts = _parts(module, parts)
        self._collector = MetricsCollector(_layers(module, self._parts, inside), clock_for(self.device))
        self._steps: list[StepSpans] = []
        self._block: ExitStack | None = None

    # ------------------------------------------------------------------------------------- while a program runs it
    def __enter__(self) -> ObservabilityEngine:
        if self._block is not None:
            raise InvalidInput(f"{self.name} is watched already: leave the block first")
        with ExitStack() as block:
            block.enter_context(self._collector.watching(self.model, self._steps.append))
            self._block = block.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.close()

    @property
    def num_steps(self) -> int:
        """Calls that ended while the module was watched."""
        return len(self._steps)

    @property
    def layers(self) -> tuple[ObservedLayer, ...]:
        """The modules that were called, in the order of their first call; () before any call."""
        found = []
        for code in dict.fromkeys(code for spans in self._steps for code in spans.entered):
            layer, steps = self._collector.layers[code], [spans for spans in self._steps if code in spans.layer_s]
            times, own = [spans.layer_s[code] for spans in steps], [spans.self_s[code] for spans in steps]
            size = sum(parameter.nbytes for parameter in layer.module.parameters())
            class_name = type(layer.module).__name__
            found.append(
                ObservedLayer(layer.path, class_name, len(steps), statistics.median(times), max(times), statistics.fmean(own), size)
            )
        return tuple(found)

    def text(self) -> str:
        """One line for each layer, the slowest marked: what it takes, and its share of a step."""
        if not self._steps:
            return f"{self.name}: no call has ended yet"
        step_s = statistics.median(spans.step_s for spans in self._steps)
        slowest = max(self.layers, key=lambda layer: layer.self_s, default=None)
        lines = [f"{self.name}: {self.num_steps} steps, {1e3 * step_s:.4g} ms each"]
        for layer in self.layers:
            share = 100 * layer.self_s / step_s if step_s > 0 else 0.0
            mark = "!!" if layer is slowest or layer == slowest else "  "
            lines.append(f"{mark} {layer.path:<30} {layer.class_name:<16} {1e3 * layer.p50_s:9.4g} ms {share:5.1f} %")
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------- in steps taken for it
    def profile(self, step: Callable[[], Any], *, num_steps: int = 20, warm_up: int = 3) -> Profile:
        """The module's parts as a profile that can be planned with; `step` calls the module once, and nothing else that takes time.

        A step counts as one token, so what a part passes on is sent for every one of them. Raises InvalidInput where the parts are not a
        chain: called once each and in order; what `step` raises comes through, with every hook removed.
        """
        if num_steps < 1 or warm_up < 1:
            raise InvalidInput(f"{num_steps} steps after {warm_up} are not allowed: take 1 or more of each")
        began_s = perf_counter()
        with torch.no_grad():
            for _ in range(warm_up):
                step()
            taken = PointSamples(_ONE_CALL, count_step(step, self._collector.layers))
            for _ in range(num_steps):
                taken.item_s.append(self._parts_s(step))
                taken.spans.append(self._collector.hooked(step))
                taken.plain_s.append(self._collector.plain_s(step))
        self.card = self._card(taken)
        spent_s, taken_steps = perf_counter() - began_s, warm_up + 1 + 3 * num_steps
        roofline = measure_roofline(self.device, self.dtype)
        measured = Measurements(self._collector.layers, PointPlan((_ONE_CALL,), ()), (taken,), roofline, taken_steps, spent_s)
        return profile_of(self, measured, depth="item")

    def _parts_s(self, step: Callable[[], Any]) -> tuple[float, ...]:
        """What runs before the first part belongs to it, what runs after another one to that."""
        try:
            first_s, *parts_s, last_s = self._collector.items_s(step)
        except Bug as error:
            raise InvalidInput(
                f"the parts of {self.name} ({', '.join(self._parts)[:120]}) are not called once each and in this order, so they are "
                f"no chain: name others with parts=[...]"
            ) from error
        parts_s[0], parts_s[-1] = parts_s[0] + first_s, parts_s[-1] + last_s
        return tuple(parts_s)

    def _card(self, taken: PointSamples) -> ModelCard:
        layers = {layer.path: code for code, layer in enumerate(self._collector.layers)}
        items = []
        for path in self._parts:
            module, counts = self.model.get_submodule(path), taken.counts.get(layers[path])
            size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
            items.append(Item(path, size, 0, counts.activation_bytes if counts else 0))
        return ModelCard(
            ref=ModelRef(self.name, None, str(self.dtype).removeprefix("torch.")),
            folder="",
            fingerprint="",
            architecture=type(self.model).__name__,
            items=tuple(items),
            hidden_size=0,
            vocab_size=0,
            context_tokens=0,
            eos_token_ids=(),
            bos_token_id=None,
            num_parameters=sum(parameter.numel() for parameter in self.model.parameters()),
        )


def _parts(module: nn.Module, named: Sequence[str]) -> tuple[str, ...]:
    known = {path for path, _ in module.named_modules() if path}
    if unknown := [path for path in named if path not in known]:
        raise InvalidInput(f"{type(module).__name__} has no part {unknown[0][:80]!r}: it has {', '.join(sorted(known)[:8]) or 'none'}")
    found = tuple(named) or tuple(_opened(module, ""))
    if not found:
        raise InvalidInput(f"{type(module).__name__} has no modules inside it: there is nothing to tell apart")
    return found


def _opened(module: nn.Module, prefix: str) -> list[str]:
    found: list[str] = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        found += _opened(child, f"{path}.") if isinstance(child, _OPENED) else [path]
    return found


def _layers(root: nn.Module, parts: Sequence[str], inside: bool) -> tuple[HookedLayer, ...]:
    """The parts, as the blocks of a chain; with `inside` every module in them."""
    found: list[HookedLayer] = []
    for item, part in enumerate(parts):
        depths: dict[str, int] = {}
        for path, module in root.get_submodule(part).named_modules(prefix=part):
            if path != part and not inside:
                break
            parent = next((p for p in _above(path) if p in depths), None)
            depths[path] = 0 if parent is None else depths[parent] + 1
            role = Role.BLOCK if path == part else Role.OTHER
            found.append(HookedLayer(path, role, module, depths[path], parent, item, item))
    return tuple(found)


def _above(path: str) -> list[str]:
    """The paths around a module, the nearest first."""
    names = path.split(".")
    return [".".join(names[:count]) for count in range(len(names) - 1, 0, -1)]
