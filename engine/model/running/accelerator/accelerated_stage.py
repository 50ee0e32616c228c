"""How a stage runs on an accelerator: pages, one attention call a layer, fused blocks, recorded decode steps.

What a model allows is found by running it: a step over the scratch page says which masks its layers use; whatever cannot be done
that way (a mask that is not a window, a model that is not packed) is left to the session-by-session way, over the same pages.

Shapes: T new tokens of all rows, R rows, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from engine.data.errors import NoodleError
from engine.model.hardware.freed_memory import give_back_beyond
from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import Acceleration, CaptureLimits
from engine.model.running.accelerator.attending import PagedAttention
from engine.model.running.accelerator.graphs import DecodeGraphs
from engine.model.running.accelerator.paged_cache import PagedCache
from engine.model.running.accelerator.paged_step import PagedStep
from engine.model.running.feeding import Feeder, Feeding, Hidden, Rows, arrived
from engine.model.running.paged_kv import SCRATCH_ROW, PagedKV

if TYPE_CHECKING:
    from engine.model.running.chain import Chain
    from engine.model.running.cut import CutModel


_MOST_IDLE_BYTES = 2**30  # of parts that were joined: what they leave is too small for the next joined product


class AcceleratedStage:
    """Runs the steps of a filled slice. `text` says what is used, `why_not` why the model cannot run like that; empty if it can.

    `picks` are the last step's `greedy_picks`, if it was a recorded one.
    """

    def __init__(self, cut: CutModel, chain: Chain, feeder: Feeder, kv: PagedKV, attention: PagedAttention, *, device: str) -> None:
        self._cut, self._chain, self._feeder, self._kv, self._attention, self._device = cut, chain, feeder, kv, attention, device
        self.is_first, self.is_last = cut.start == 0, cut.stop == chain.num_items
        self._dtype = cut.model.dtype
        self._windows: dict[int, int] = {}
        self._graphs: DecodeGraphs | None = None
        self.picks: torch.Tensor | None = None
        self.why_not = ""
        self.texts = [attention.name]

    @property
    def text(self) -> str:
        return self.why_not or "; ".join(self.texts)

    @torch.inference_mode()
    def prepare(self, acceleration: Acceleration, say: Progress | None = None) -> None:
        """Look at the model, fuse its blocks, record its decode steps; raises nothing for a model that allows none of it."""
        if self._feeder.feeding is not Feeding.PACKED:
            self.why_not = f"sessions attend one by one: the model is fed {self._feeder.feeding}"
            return
        try:
            for sizes in ((3,), (1, 1, 1)):
                self._run(*self._probe(sizes))
        except Exception as error:  # a model may object in any way; it then runs as on a CPU
            self.why_not = f"sessions attend one by one: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
            return
        if acceleration.fuse:
            self._fuse(say)
        if acceleration.graphs:
            self._record(acceleration.limits, say)

    def forward(self, rows: Rows, lengths: Sequence[int], hidden: Hidden, num_logits: Sequence[int]) -> torch.Tensor:
        """As `StageModel.forward`, without its checks; writes and commits nothing but the pages. Only steps of single rows are recorded."""
        sizes = [len(token_ids) for _, token_ids in rows]
        table_rows = self._kv.rows(session_id for session_id, _ in rows)
        if self._graphs is not None and self._graphs.holds(len(rows)) and max(sizes) == 1:
            logits = self._graphs.step([[ids[0] for _, ids in rows], lengths, table_rows], hidden)
            self.picks = self._graphs.picks
            return logits
        self.picks = None
        token_ids = [token_id for _, ids in rows for token_id in ids]
        positions = [p for length, size in zip(lengths, sizes, strict=True) for p in range(length, length + size)]
        owners = [row for row, size in zip(table_rows, sizes, strict=True) for _ in range(size)]
        step = PagedStep.of((token_ids, positions, owners), sizes, self._attention.tile_tokens, self._device, num_logits)
        return self._run(step, arrived(hidden, self._device))

    def _run(self, step: PagedStep, hidden: torch.Tensor | None) -> torch.Tensor:
        """One call of the model: hidden states [T, D], or float32 logits [R, V] of the step's `last` tokens."""
        cache = PagedCache(self._kv, step, self._attention, self._windows)
        arguments = self._feeder.packed_arguments(step.token_ids, step.positions, cache, step.last if self.is_last else None)
        output = self._cut.run(hidden, step.num_tokens, cache, arguments)
        if not self.is_last:
            return output
        return (output if step.last is None or len(output) == len(step.last) else output[step.last]).float()

    def _probe(self, sizes: Sequence[int]) -> tuple[PagedStep, torch.Tensor | None]:
        """A step over the scratch page."""
        total = sum(sizes)
        numbers = (range(total), range(total), [SCRATCH_ROW] * total)
        step = PagedStep.of(numbers, sizes, self._attention.tile_tokens, self._device)
        if self.is_first:
            return step, None
        generator = torch.Generator().manual_seed(1)
        return step, torch.randn(total, self._chain.hidden_size, generator=generator).to(self._device, self._dtype)

    def _fuse(self, say: Progress | None) -> None:
        try:
            from engine.model.running.accelerator import row_products
            from engine.model.running.accelerator.fusing import BlockFuser
        except ImportError as error:
            self.texts.append(f"nothing is fused: {error}")
            return
        from engine.model.running.chain import FORMS

        blocks: Any = self._cut.model.get_submodule(self._chain.blocks)
        held = [blocks[item - 1] for item in range(max(self._cut.start, 1), min(self._cut.stop, self._chain.num_items - 1))]
        calls: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}

        def note(block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls[id(block)] = args, dict(kwargs)

        hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in held]
        try:
            self._run(*self._probe((1, 1, 1)))
        finally:
            for hook in hooks:
                hook.remove()
        kept: Counter[str] = Counter()
        for done, block in enumerate(held):
            if say is not None:
                say(done / len(held), f"fusing block {done + 1} of {len(held)}")
            kept += BlockFuser(block, *calls[id(block)], FORMS[self._chain.form]).fuse()
            give_back_beyond(_MOST_IDLE_BYTES, self._device)
        row_products.install(self._cut.model)
        self.texts.append(f"fused in {len(held)} blocks: {', '.join(f'{n} of {kind}' for kind, n in sorted(kept.items())) or 'nothing'}")

    def _record(self, limits: CaptureLimits, say: Progress | None) -> None:
        self._graphs = DecodeGraphs(
            self._run,
            device=self._device,
            dtype=self._dtype,
            hidden_size=None if self.is_first else self._chain.hidden_size,
            has_logits=self.is_last,
            vocab_size=self._cut.model.config.get_text_config(decoder=True).vocab_size,
            page_tokens=self._kv.page_tokens,
        )
        for pools in self._kv.pools.values():
            for pool in pools:
                pool[:1].normal_()  # the scratch page: a replay is compared over numbers that differ
        try:
            self._graphs.record(limits, say)
        except NoodleError as error:
            self._graphs = None
            self.texts.append(f"no step is recorded: {error}")
        else:
            self.texts.append(self._graphs.text)
