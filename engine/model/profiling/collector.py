"""MetricsCollector: forward hooks on chosen modules, on for as long as a `with` block, gone after it whatever happens.

A hook only notes the time; it never touches inputs or outputs, so a hooked model answers bit by bit as before. Layers and
items are timed in steps of their own: a hooked module costs torch some 10 us, which an item's time must not contain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from time import perf_counter
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from engine.data.errors import Bug
from engine.model.hardware.clocks import Clock, Mark
from engine.model.profiling.roles import HookedLayer
from engine.model.profiling.spans import BEGIN, END, StepSpans, fold, tile
from engine.profile.profile import Role

HookPair = tuple[nn.Module, Callable[..., None], Callable[..., None] | None]


class MetricsCollector:
    """Times the layers of one model, step by step. Not thread-safe, and one collector at a time per model."""

    def __init__(self, layers: Sequence[HookedLayer], clock: Clock) -> None:
        self.layers = tuple(layers)
        self._clock = clock
        self._blocks = [code for code, layer in enumerate(self.layers) if layer.role is Role.BLOCK]

    def plain_s(self, step: Callable[[], Any]) -> float:
        """Seconds of one step without hooks, until its result is there."""
        self._clock.synchronise()
        began_s = perf_counter()
        step()
        self._clock.synchronise()
        return perf_counter() - began_s

    def hooked(self, step: Callable[[], Any]) -> StepSpans:
        """One step with hooks on all layers. Whatever `step` raises comes through, with every hook removed and no mark kept."""
        clock = self._clock
        return fold(self._marked(step, ((layer.module, clock.hook(code), clock.hook(~code)) for code, layer in enumerate(self.layers))))

    def items_s(self, step: Callable[[], Any]) -> tuple[float, ...]:
        """One step with marks only where one item ends and the next begins: the seconds of every item. Raises as `hooked`."""
        clock, last = self._clock, self._blocks[-1]
        hooked = ((self.layers[code].module, clock.hook(code), clock.hook(~code) if code == last else None) for code in self._blocks)
        return tile(self._marked(step, hooked), self._blocks)

    @contextmanager
    def watching(self, root: nn.Module, keep: Callable[[StepSpans], None]) -> Iterator[None]:
        """Every call of `root` inside the block is a step, handed to `keep` when it has ended; one that raises is left out.

        Layers that are called outside of `root`, or left by an exception that `root` catches, give no step either.
        """
        clock = self._clock

        def begin(*_: Any) -> None:
            clock.forget()
            clock.synchronise()
            clock.mark(BEGIN)

        def end(*_: Any) -> None:
            clock.mark(END)
            with suppress(Bug):
                keep(fold(clock.take()))

        inner = ((layer.module, clock.hook(code), clock.hook(~code)) for code, layer in enumerate(self.layers))
        try:
            with hooks(chain([(root, begin, None)], inner, [(root, _nothing, end)])):
                yield
        finally:
            clock.forget()

    def _marked(self, step: Callable[[], Any], wanted: Iterator[HookPair]) -> list[Mark]:
        clock = self._clock
        try:
            with hooks(wanted):
                clock.synchronise()
                clock.mark(BEGIN)
                step()
                clock.mark(END)
        except BaseException:
            clock.forget()
            raise
        return clock.take()


def _nothing(*_: Any) -> None:
    """A hook for a module of which only the other end matters."""


@contextmanager
def hooks(wanted: Iterator[HookPair], *, with_kwargs: bool = False) -> Iterator[None]:
    """Register (module, pre-hook, post-hook or None) for the duration of the block; removes exactly those.

    `with_kwargs` hands keyword inputs to the pre-hooks; it costs time in every call.
    """
    handles: list[RemovableHandle] = []
    try:
        for module, enter, leave in wanted:
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=with_kwargs))
            if leave is not None:
                handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()
