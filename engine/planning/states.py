"""Sets of used nodes as numbers: count vectors over classes in mixed radix (bit masks when all nodes differ).

Taking one more node of class c adds strides[c]. Small spaces are walked in Python, large ones layer by layer (equal
numbers of nodes) in numpy, where all states of a layer are computed at once from the layer before.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from engine.planning.tables import Chain

SMALL = 2500  # transitions; beyond, arrays pay
MAX_STATES = 300_000


class States:
    """All count vectors up to `sizes`."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.strides: list[int] = []
        self.total = 1
        for size in sizes:
            self.strides.append(self.total)
            self.total *= size + 1
        small = self.total * sum(size > 0 for size in sizes) <= SMALL
        self._before = self._lists() if small else None
        self._layers = None if small else self._arrays()

    @staticmethod
    @lru_cache(maxsize=4)
    def of(sizes: tuple[int, ...]) -> States:
        return States(sizes)

    def _lists(self) -> list[list[tuple[int, int]]]:
        """[state] -> (class, state before) of every way to get there; all before it in number."""
        rows: list[list[tuple[int, int]]] = []
        for used in range(self.total):
            digits = ((c, stride) for c, (size, stride) in enumerate(zip(self.sizes, self.strides, strict=True)) if size)
            rows.append([(c, used - stride) for c, stride in digits if used // stride % (self.sizes[c] + 1)])
        return rows

    def _arrays(self) -> list[tuple[Any, Any, Any]]:
        """Per layer: states [m], classes [k, m] and states before [k, m]; unused slots repeat the first one."""
        used = np.arange(self.total, dtype=np.int32)
        live = [c for c, size in enumerate(self.sizes) if size]
        digits = np.stack([used // self.strides[c] % (self.sizes[c] + 1) for c in live]).astype(np.int16)
        count = digits.sum(axis=0)
        order = np.argsort(count, kind="stable")
        bounds = np.searchsorted(count[order], np.arange(sum(self.sizes) + 2))
        step = np.array([self.strides[c] for c in live], dtype=np.int32)
        layers = []
        for k in range(1, sum(self.sizes) + 1):
            states = order[bounds[k] : bounds[k + 1]].astype(np.int32)
            possible = digits[:, states] > 0
            width = int(possible.sum(axis=0).max())
            rank = np.argsort(~possible, axis=0, kind="stable")[:width] if width < len(live) else np.broadcast_to(
                np.arange(len(live))[:, None], (len(live), len(states))
            )
            usable = np.take_along_axis(possible, rank, axis=0)
            first = possible.argmax(axis=0)
            chosen = np.where(usable, rank, first)
            layers.append((states, np.array(live, dtype=np.int32)[chosen], states - step[chosen]))
        return layers

    def walk(self, onward: Any, furthest: Any, begin: int, goal: int) -> Chain | None:
        """Stages of a chain from `begin` to `goal`, where class c goes from position p to onward[c, p]; None if no set reaches it.

        The stage itself ends at furthest[c, p]; `onward` may lie beyond it where a fixed stage follows.
        """
        if begin >= goal:
            return ()
        reach = self._reach_lists if self._before is not None else self._reach_arrays
        position, used = reach(onward, begin, goal)
        return self._trace(position, used, onward, furthest) if position[used] >= goal else None

    def positions(self, onward: Any, begin: int) -> Any:
        """[state] -> furthest position that its nodes reach."""
        reach = self._reach_lists if self._before is not None else self._reach_arrays
        return reach(onward, begin, onward.shape[1])[0]

    def _reach_lists(self, onward: Any, begin: int, goal: int) -> tuple[Any, int]:
        rows, position = onward.tolist(), [begin]
        assert self._before is not None  # noqa: S101  for the type checker
        for before in self._before[1:]:
            best = max([rows[c][position[state]] for c, state in before])
            position.append(best)
            if best >= goal:
                break
        return position, len(position) - 1

    def _reach_arrays(self, onward: Any, begin: int, goal: int) -> tuple[Any, int]:
        position = np.empty(self.total, dtype=np.int32)
        position[0] = begin
        flat, width = onward.astype(np.int32).ravel(), onward.shape[1]
        assert self._layers is not None  # noqa: S101  for the type checker
        for states, classes, before in self._layers:
            best = flat[classes * width + position[before]].max(axis=0)
            position[states] = best
            top = int(best.argmax())
            if best[top] >= goal:
                return position, int(states[top])
        return position, self.total - 1

    def _trace(self, position: Any, used: int, onward: Any, furthest: Any) -> Chain:
        stages = []
        while used:
            here = int(position[used])
            for c, stride in enumerate(self.strides):
                if used // stride % (self.sizes[c] + 1) and int(onward[c, position[used - stride]]) == here:
                    before = int(position[used - stride])
                    if here != before:
                        stages.append((c, before, int(furthest[c, before])))
                    used -= stride
                    break
        return tuple(reversed(stages))
