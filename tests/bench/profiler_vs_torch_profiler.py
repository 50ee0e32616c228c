"""The profiler against torch.profiler on the same decode steps: item times, and what each costs.

    python tests/bench/profiler_vs_torch_profiler.py [--model gpt2] [--steps 40] [--threads N]

Item times are compared on the same steps, under both at once: our marks beside `record_function` ranges that begin where
our items do. Costs are compared on alternating steps: what a step under one profiler takes beyond a plain one, with reading
the result. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from engine.data.model import ModelRef
from engine.model.hardware.clocks import CpuClock
from engine.model.profiling.collector import MetricsCollector
from engine.model.profiling.roles import select_layers
from engine.model.profiling.workload import CausalWorkload, load_workload
from engine.profile.point import DECODE, Point
from engine.profile.profile import Role

_WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="gpt2")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--context", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    workload = load_workload(ModelRef(options.model, 0))
    assert isinstance(workload, CausalWorkload)
    point = Point(DECODE, 1, options.context, 1)
    workload.reserve([point])
    report(workload, measure(workload, point, options.steps))


def measure(workload: CausalWorkload, point: Point, num_steps: int) -> dict[str, list[Any]]:
    """Seconds of every step by sort, and the item times that the two profilers found."""
    layers = select_layers(workload.model, workload.blocks, "item")
    collector = MetricsCollector(layers, CpuClock())
    ranges = ItemRanges([layer.module for layer in layers if layer.role is Role.BLOCK])
    sorts: dict[str, Callable[[Any], Any]] = {
        "plain": lambda step: step(),
        "ours": collector.items_s,
        "torch": lambda step: ranges.profiled(step, lambda run: run()),
        "both": lambda step: ranges.profiled(step, collector.items_s),
    }
    taken: dict[str, list[Any]] = {f"{name}{what}": [] for name in sorts for what in ("", "_s")}
    names = list(sorts)
    for number in range(-_WARM_UP, num_steps):
        for name in (*names[number % 4 :], *names[: number % 4]):
            step = workload.step_at(point)
            began_s = perf_counter()
            found = sorts[name](step)
            spent_s = perf_counter() - began_s
            if number >= 0:
                taken[name].append(found)
                taken[f"{name}_s"].append(spent_s)
    return taken


class ItemRanges:
    """Marks items for torch.profiler by `record_function`, from each block's entry to the next one's, as ours are."""

    def __init__(self, blocks: list[torch.nn.Module]) -> None:
        self._blocks = blocks
        self._open: list[Any] = []

    def profiled(self, step: Callable[[], Any], run: Callable[[Callable[[], Any]], Any]) -> tuple[Any, tuple[float, ...]]:
        """Take `run(step)` under torch.profiler: what it returned, and the item times in seconds."""
        last = len(self._blocks) + 1
        handles = [block.register_forward_pre_hook(partial(self._begin, index + 1)) for index, block in enumerate(self._blocks)]
        handles.append(self._blocks[-1].register_forward_hook(partial(self._begin, last)))
        try:
            with profile(activities=[ProfilerActivity.CPU]) as recorded:
                with record_function("first"):
                    pass  # the first range of a recording costs 0.2 ms more than the others
                returned = run(lambda: self._around(step))
        finally:
            for handle in handles:
                handle.remove()
        spans = {event.name: event.time_range for event in recorded.events() if event.name.startswith("item ")}
        return returned, tuple(1e-6 * spans[f"item {index}"].elapsed_us() for index in range(last + 1))

    def _around(self, step: Callable[[], Any]) -> None:
        self._begin(0)
        step()
        self._end()

    def _begin(self, index: int, *_: Any) -> None:
        self._end()
        self._open.append(record_function(f"item {index}"))
        self._open[-1].__enter__()

    def _end(self) -> None:
        if self._open:
            self._open.pop().__exit__(None, None, None)


def report(workload: CausalWorkload, taken: dict[str, list[Any]]) -> None:
    ours = [statistics.median(times) for times in zip(*(mine for mine, _ in taken["both"]), strict=True)]
    theirs = [statistics.median(times) for times in zip(*(other for _, other in taken["both"]), strict=True)]
    steps = [[mine / other - 1 for mine, other in zip(*pair, strict=True)] for pair in taken["both"]]
    differences = [statistics.median(of_item) for of_item in zip(*steps, strict=True)]  # each step is its own comparison
    print(f"{'ITEM':8} {'OURS ms':>9} {'TORCH ms':>9} {'DIFF %':>7}")
    for item, a_s, b_s, difference in zip(workload.card.items, ours, theirs, differences, strict=True):
        print(f"{item.name:8} {1e3 * a_s:9.3f} {1e3 * b_s:9.3f} {100 * difference:7.1f}")
    plain_s = statistics.median(taken["plain_s"])
    ours_s, theirs_s = (
        statistics.median(b - a for a, b in zip(taken["plain_s"], taken[name], strict=True)) for name in ("ours_s", "torch_s")
    )
    figures = {
        "plain_ms": 1e3 * plain_s,
        "ours_cost_ms": 1e3 * ours_s,
        "torch_cost_ms": 1e3 * theirs_s,
        "worst_item_difference": max(map(abs, differences)),
        "cost_ratio": theirs_s / ours_s if ours_s > 0 else None,
        "median_item_difference": statistics.median(map(abs, differences)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
