"""A contiguous slice of a causal LM that runs packed ragged batches.

It joins a cut model (`cut`), the tensors of its items (`loading`) and the sessions' KV (`kv`). Nothing here knows a
model family, the network, or how a token is chosen.

Shapes: T new tokens of all rows together, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.data.errors import InvalidInput, NotSupported
from engine.data.generation import Taken
from engine.data.precision import AUTO, INT8, kept_dtype
from engine.model.configuration import check_supported, context_tokens
from engine.model.hardware.freed_memory import return_freed_buffers
from engine.model.kv_formats import kept_torch_dtype
from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import Acceleration
from engine.model.running.accelerator.attending import PagedAttention, probed
from engine.model.running.contiguous_kv import ContiguousKV
from engine.model.running.eight_bit import BLOCK_TOKENS
from engine.model.running.eight_bit.elementwise import fix_positions
from engine.model.running.eight_bit.layers import bytes_of, place_of
from engine.model.running.feeding import Feeder, Hidden, Rows, arrived, last_positions
from engine.model.running.kv import KVStore
from engine.model.running.loading import SliceLoader, fill_synthetic, take_over
from engine.model.running.paged_kv import PagedKV
from engine.model.running.rows import shorten_forwards, turn_in_one_call
from engine.model.running.slicing import build_in, item_state, torch_dtype
from engine.model.weights.weight_folder import WeightFolder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from engine.model.running.accelerator.accelerated_stage import AcceleratedStage
    from engine.model.running.chain import Chain


class StageModel:
    """Items [start, stop) of one model, with the KV of their sessions. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        chain: Chain,
        start: int,
        stop: int,
        *,
        dtype: str,
        device: str,
        kv_budget_bytes: int,
        kv_dtype: str = AUTO,
        acceleration: Acceleration | None = None,
    ) -> None:
        """Use `load` or `synthetic`; this cuts a meta model to the slice and leaves its tensors to them."""
        from engine.model.running.cut import CutModel  # transformers, so only once a model is loaded

        is_cpu, kept = torch.device(device).type == "cpu", kept_torch_dtype(kept_dtype(kv_dtype, dtype))
        if dtype == INT8 and not is_cpu:
            raise NotSupported(f"device {device!r} has no 8-bit products yet: use --dtype bfloat16 there, or a CPU")
        if kept != model.dtype and not is_cpu:
            raise NotSupported(f"device {device!r} keeps KV as it computes: leave --kv-dtype {kv_dtype} out there, or use a CPU")
        text_config = model.config.get_text_config(decoder=True)
        self.start, self.stop, self.num_items = start, stop, chain.num_items
        self.is_first, self.is_last = start == 0, stop == chain.num_items
        self.hidden_size, self.vocab_size = chain.hidden_size, text_config.vocab_size
        self.context_tokens = context_tokens(model.config)
        self.dtype, self.device = model.dtype, device
        self.dtype_name = dtype  # int8 where `dtype` is that of all but the products
        self.fingerprint = ""
        self.weight_bytes = 0
        self._cut = CutModel(model, chain, start, stop, self.dtype, device)
        self._chain = chain
        self._feeder = Feeder(model, chain.blocks, chain.feeding)
        held = [chain.kv[item - 1] for item in range(max(start, 1), min(stop, chain.num_blocks + 1))]
        self._acceleration = acceleration or Acceleration()
        found = self._acceleration.attention or probed(device, self.dtype)
        self.running_text = found.name if isinstance(found, PagedAttention) else found.text
        attention = found if isinstance(found, PagedAttention) else found.attention
        self._accelerated: AcceleratedStage | None = None
        self.kv: KVStore[Any]
        if attention is None:
            block_tokens = BLOCK_TOKENS if dtype == INT8 else 1
            self.kv = ContiguousKV(dict(held), kv_budget_bytes, dtype=self.dtype, device=device, kept_dtype=kept, block_tokens=block_tokens)
        else:
            pages = PagedKV(dict(held), kv_budget_bytes, dtype=self.dtype, device=device, longest_tokens=self.context_tokens)
            self.kv = pages
            from engine.model.running.accelerator.accelerated_stage import AcceleratedStage

            self._accelerated = AcceleratedStage(self._cut, chain, self._feeder, pages, attention, device=device)

    @classmethod
    def load(
        cls,
        folder: Path | WeightFolder,
        start: int,
        stop: int,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        kv_budget_bytes: int,
        kv_dtype: str = AUTO,
        reuse: StageModel | None = None,
        on_progress: Progress | None = None,
        acceleration: Acceleration | None = None,
    ) -> StageModel:
        """Read the tensors of items [start, stop) and nothing else. Items that `reuse` holds are taken over, not read.

        `on_progress` gets the done fraction and a sentence. Raises NotFound, InvalidInput, NotSupported or Corrupt.
        """

        weights = folder if isinstance(folder, WeightFolder) else WeightFolder(folder)
        model, chain = _build(weights.config, start, stop, dtype)
        loader = SliceLoader(model, chain, weights, torch_dtype(dtype))
        options: Any = {"dtype": dtype, "device": device, "kv_budget_bytes": kv_budget_bytes, "acceleration": acceleration}
        stage = cls(model, chain, start, stop, kv_dtype=kv_dtype, **options)
        stage.fingerprint = weights.fingerprint
        for done, index in enumerate(range(start, stop)):
            if on_progress:
                on_progress(done / (stop - start), f"loading item {index} of [{start}, {stop})")
            if reuse is not None and index in reuse.items_for(stage.fingerprint, dtype, device):
                take_over(model, chain, index, reuse._cut.model)
            else:
                loader.load(index, device)
        return_freed_buffers()
        stage._finish(on_progress)
        return stage

    @classmethod
    def synthetic(
        cls,
        config: PreTrainedConfig,
        start: int,
        stop: int,
        *,
        dtype: str = "float32",
        device: str = "cpu",
        kv_budget_bytes: int,
        kv_dtype: str = AUTO,
        acceleration: Acceleration | None = None,
    ) -> StageModel:
        """The same slice with made-up weights and no files, to time items on a machine."""

        model, chain = _build(config, start, stop, dtype)
        options: Any = {"dtype": dtype, "device": device, "kv_budget_bytes": kv_budget_bytes, "acceleration": acceleration}
        stage = cls(model, chain, start, stop, kv_dtype=kv_dtype, **options)
        with torch.no_grad():
            for index in range(start, stop):
                fill_synthetic(model, chain, index, device, lambda tensor: tensor.uniform_(-0.02, 0.02))
        stage._finish(None)
        return stage

    @property
    def module(self) -> PreTrainedModel:
        """The model that runs, for hooks; blocks outside the slice pass their input through."""
        return self._cut.model

    @property
    def picks(self) -> torch.Tensor | None:
        """What the last step knows of its logits beside them, for `sample_rows`; None if nothing."""
        return self._accelerated.picks if self._accelerated is not None else None

    @property
    def blocks(self) -> str:
        """Path of the block list inside `module`."""
        return self._chain.blocks

    def items_for(self, fingerprint: str, dtype: str, device: str) -> range:
        """The items that a stage of this model, dtype and device could take over instead of reading them."""
        same = (self.fingerprint, self.dtype_name, self.device) == (fingerprint, dtype, device)
        return range(self.start, self.stop) if same else range(0)

    def bytes_beyond(self, other: StageModel | None) -> int:
        """Bytes of the tensors that `other` does not share with this stage: what had to be read."""
        held = other._held_bytes() if other is not None else {}
        return sum(num_bytes for place, num_bytes in self._held_bytes().items() if place not in held)

    def retire(self) -> None:
        """Give back all but the weights, which another stage may take over: no session goes on here, and no step runs."""
        self._accelerated = None
        self.kv = ContiguousKV({}, 0, dtype=self.dtype)

    def open(self, session_id: str, max_tokens: int) -> None:
        """Reserve KV for `max_tokens` tokens; allocates nothing yet. Raises Exhausted with the numbers."""
        self._check_context(session_id, max_tokens)
        self.kv.open(session_id, max_tokens)

    def take_over(self, session_id: str, max_tokens: int, taken: Taken) -> None:
        """The same for a session that begins with what was kept of another one. Raises NotFound if it cannot."""
        self._check_context(session_id, max_tokens)
        self.kv.take_over(session_id, max_tokens, taken)

    def _check_context(self, session_id: str, max_tokens: int) -> None:
        if max_tokens > self.context_tokens:
            raise InvalidInput(
                f"session {session_id!r}: {max_tokens} tokens exceed the model's context of {self.context_tokens}: "
                f"shorten the prompt or the answer"
            )

    def close(self, session_id: str) -> None:
        """Free the session; an unknown id is fine."""
        self.kv.close(session_id)

    def length(self, session_id: str) -> int:
        """Tokens of the session that this stage has processed. Raises NotFound."""
        return self.kv.length(session_id)

    @torch.inference_mode()
    def forward(self, rows: Rows, hidden: Hidden, num_logits: Sequence[int] | None = None) -> torch.Tensor:
        """Process new tokens: `rows` are (session id, token ids) in packed order, `hidden` [T, D] except on the first stage. What is still
        arriving is waited for once all else is ready.

        Returns hidden states [T, D], or on the last stage the float32 logits [sum(num_logits), V] of each row's last tokens: so many
        as `num_logits` says, or one of each row.
        Raises NotFound, InvalidInput or Exhausted, or what waiting raises; then no session has changed.
        """
        lengths, wanted = self._check(rows, hidden), num_logits or [1] * len(rows)
        if self._accelerated is not None and not self._accelerated.why_not:
            output = self._accelerated.forward(rows, lengths, hidden, wanted)
            for (session_id, token_ids), length in zip(rows, lengths, strict=True):
                self.kv.appended(session_id, length + len(token_ids))
            return output
        run = self._run if self._chain.feeding.is_packed or len(rows) == 1 else self._run_row_by_row
        output = run(rows, lengths, arrived(hidden, self.device), wanted)
        for (session_id, token_ids), length in zip(rows, lengths, strict=True):
            self.kv.commit(session_id, length + len(token_ids))
        return output

    def _check(self, rows: Rows, hidden: Hidden) -> list[int]:
        """The rows' current lengths, once everything is known to fit."""
        if not rows or len({session_id for session_id, _ in rows}) != len(rows):
            raise InvalidInput(f"a step needs 1 or more rows of different sessions, got {[session_id for session_id, _ in rows][:8]}")
        lengths = []
        for session_id, token_ids in rows:
            lengths.append(self.kv.check_new(session_id, len(token_ids)))
            is_one = len(token_ids) == 1  # a decode row, of which a step may have many
            if not (0 <= token_ids[0] < self.vocab_size if is_one else self._are_tokens(token_ids)):
                raise InvalidInput(f"session {session_id!r} needs 1 or more token ids in [0, {self.vocab_size})")
        num_tokens = sum(len(token_ids) for _, token_ids in rows)
        if self.is_first != (hidden is None):
            raise InvalidInput(f"stage [{self.start}, {self.stop}) {'takes no' if self.is_first else 'needs'} hidden states")
        if hidden is not None and (hidden.shape != (num_tokens, self.hidden_size) or hidden.dtype != self.dtype):
            raise InvalidInput(
                f"stage [{self.start}, {self.stop}) needs hidden states ({num_tokens}, {self.hidden_size}) in {self.dtype}, "
                f"got {tuple(hidden.shape)} in {hidden.dtype}"
            )
        return lengths

    def _are_tokens(self, token_ids: Sequence[int]) -> bool:
        return bool(token_ids) and min(token_ids) >= 0 and max(token_ids) < self.vocab_size

    def _run_row_by_row(self, rows: Rows, lengths: list[int], hidden: torch.Tensor | None, num_logits: Sequence[int]) -> torch.Tensor:
        outputs, start = [], 0
        for row, length, wanted in zip(rows, lengths, num_logits, strict=True):
            stop = start + len(row[1])
            outputs.append(self._run([row], [length], None if hidden is None else hidden[start:stop], [wanted]))
            start = stop
        return torch.cat(outputs)

    def _run(self, rows: Rows, lengths: list[int], hidden: torch.Tensor | None, num_logits: Sequence[int]) -> torch.Tensor:
        """One call of the model; writes K/V without committing them."""
        from engine.model.running.cache import StepCache
        from engine.model.running.eight_bit.attending import ExactCache

        sizes = [len(token_ids) for _, token_ids in rows]
        make = ExactCache if self.dtype_name == INT8 and self._chain.feeding.is_packed else StepCache
        cache = make(self.kv, [(row[0], size) for row, size in zip(rows, sizes, strict=True)])
        at = last_positions(sizes, num_logits) if self.is_last else None
        logits_at = None if at is None else torch.tensor(at, device=self.device)
        arguments = self._feeder.arguments(rows, lengths, cache, self.device, logits_at=logits_at)
        output = self._cut.run(hidden, sum(sizes), cache, arguments)
        if not self.is_last:
            return output
        return (output if logits_at is None or len(output) == len(logits_at) else output[logits_at]).float()

    def _held_bytes(self) -> dict[int, int]:
        """Bytes of every weight by where it lies; a shared tensor comes once."""
        model = self._cut.model
        state = [pair for index in range(self.start, self.stop) for pair in item_state(model, self._chain, index)]
        return {place_of(model, name, tensor): bytes_of(model, name, tensor) for name, tensor in state}

    def _finish(self, on_progress: Progress | None) -> None:
        """Everything outside the slice stays on the meta device; make the rest read-only."""
        self.weight_bytes = self.bytes_beyond(None)  # a shared tensor counts once
        self._cut.model.requires_grad_(False)
        shorten_forwards(self._cut.model)
        blocks = self._cut.model.get_submodule(self._chain.blocks)
        if self.device == "cpu" and self.dtype is torch.float32:
            turn_in_one_call(blocks)
        if self.dtype_name == INT8:
            fix_positions(self._cut.model, blocks)
        if self._accelerated is not None:
            self._accelerated.prepare(self._acceleration, on_progress)
            self.running_text = self._accelerated.text
        if on_progress:
            on_progress(1.0, f"loaded items [{self.start}, {self.stop})")


def _build(config: PreTrainedConfig, start: int, stop: int, dtype: str) -> tuple[PreTrainedModel, Chain]:
    """The whole model on the meta device and its chain. Raises NotSupported or InvalidInput."""
    check_supported(config)
    model, chain = build_in(config, dtype)
    chain.check_slice(start, stop)
    return model, chain
