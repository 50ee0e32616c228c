"""Encoders and other models that keep no KV: profiled forward only, by their own code.

They cannot be cut into stages by this engine, but their layers can be measured all the same. The chain is found as
for decoders: one list of blocks, what stands before it and what behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.data.errors import InvalidInput, NotSupported
from engine.data.model import Item, ModelCard, ModelRef
from engine.data.precision import INT8
from engine.model.profiling.served import Served
from engine.model.progress import Progress
from engine.model.running.chain import find_blocks, stations
from engine.model.running.slicing import torch_dtype
from engine.model.sources.architectures import architecture_of
from engine.model.sources.random_config import tiny_arguments
from engine.profile.point import FORWARD, Point
from engine.profile.points import PointPlan, encoder_points

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_DEFAULT_CONTEXT_TOKENS = 512


class EncoderWorkload:
    """A whole model as transformers builds it; every step reads texts from their beginning."""

    def __init__(self, model: Any, ref: ModelRef, *, folder: str, fingerprint: str, device: str) -> None:
        """Raises NotSupported if the model does not read token ids or has no list of blocks."""
        if model.main_input_name != "input_ids" or model.config.is_encoder_decoder:
            raise NotSupported(f"model family {model.config.model_type!r} reads more than one sequence of token ids: it cannot be profiled")
        self.device, self.dtype, self.model = device, model.dtype, model.eval().to(device)
        text = model.config.get_text_config()
        self.blocks = find_blocks(model, int(text.num_hidden_layers))
        self._context_tokens = int(getattr(text, "max_position_embeddings", None) or _DEFAULT_CONTEXT_TOKENS)
        self._vocab_size = int(text.vocab_size)
        self.card = _card(model, self.blocks, ref, folder, fingerprint, self._context_tokens)

    @classmethod
    def load(cls, folder: Path, ref: ModelRef, *, device: str) -> EncoderWorkload:
        """Read the model of a local folder."""
        from transformers import AutoModel

        from engine.model.weights.weight_folder import WeightFolder

        weights = WeightFolder(folder)
        try:
            model = AutoModel.from_pretrained(folder, dtype=_float_dtype(ref), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever a family objects to, such as a package that is not installed
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise NotSupported(f"model family {weights.config.model_type!r} cannot be loaded by transformers: {first_line}") from error
        return cls(model, ref, folder=str(folder), fingerprint=weights.fingerprint, device=device)

    @classmethod
    def random(cls, ref: ModelRef, *, device: str) -> EncoderWorkload:
        """An architecture with seeded random weights, in memory only."""
        from transformers import AutoModel

        config = encoder_config(ref.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ref.random_weights or 0)
            model = AutoModel.from_config(config, dtype=_float_dtype(ref))
        return cls(model, ref, folder="", fingerprint="", device=device)

    def points(self, most_prefill_tokens: int, *, quick: bool) -> PointPlan:
        return encoder_points(self._context_tokens - 2, most_prefill_tokens=most_prefill_tokens, quick=quick)

    def probe_point(self, tokens: int) -> Point:
        return Point(FORWARD, min(tokens, self._context_tokens), 0, 1)

    def reserve(self, points: Iterable[Point]) -> None:
        pass  # nothing is kept from step to step

    def served(self, most_prefill_tokens: int, *, quick: bool, on_progress: Progress | None) -> Served:
        return Served()

    def step_at(self, point: Point) -> Any:
        token_ids = torch.randint(self._vocab_size, (point.batch, point.tokens), device=self.device)  # [B, T]

        @torch.inference_mode()
        def step() -> Any:
            return self.model(input_ids=token_ids)

        return step


def _float_dtype(ref: ModelRef) -> torch.dtype:
    if ref.dtype == INT8:
        raise NotSupported(f"{ref.model!r} is no decoder that can be served, and only those run in int8: use --dtype float32 or bfloat16")
    return torch_dtype(ref.dtype)


def encoder_config(name: str) -> PreTrainedConfig:
    """The default config of an architecture, tiny on request. Raises InvalidInput for an unknown name."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    model_type, tiny = architecture_of(name)
    if model_type not in CONFIG_MAPPING or model_type not in MODEL_MAPPING_NAMES:
        raise InvalidInput(f"{model_type!r} is not an architecture of transformers: `noodle-engine models` lists those that generate text")
    config_class: Any = CONFIG_MAPPING[model_type]
    return config_class(**tiny_arguments(config_class())) if tiny else config_class()


def _card(model: Any, blocks: str, ref: ModelRef, folder: str, fingerprint: str, context_tokens: int) -> ModelCard:
    text = model.config.get_text_config()
    return ModelCard(
        ref=ref,
        folder=folder,
        fingerprint=fingerprint,
        architecture=type(model).__name__,
        items=_items(model, blocks, int(text.hidden_size)),
        hidden_size=int(text.hidden_size),
        vocab_size=int(text.vocab_size),
        context_tokens=context_tokens,
        eos_token_ids=(),
        bos_token_id=None,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _items(model: nn.Module, blocks: str, hidden_size: int) -> tuple[Item, ...]:
    """Embedding, blocks and head; what is declared before the blocks runs before them."""
    order = [path for path, _ in model.named_modules()]
    beside = stations(model, blocks)
    before = [module for path, module in beside.items() if order.index(path) < order.index(blocks)]
    behind = [module for path, module in beside.items() if order.index(path) > order.index(blocks)]
    held: Any = model.get_submodule(blocks)
    names = ["embed", *(f"{blocks.rpartition('.')[2]}.{index}" for index in range(len(held))), "head"]
    output_bytes = hidden_size * next(model.parameters()).itemsize
    return tuple(
        Item(name, _bytes(part), 0, output_bytes) for name, part in zip(names, [before, *([b] for b in held), behind], strict=True)
    )


def _bytes(modules: Iterable[nn.Module]) -> int:
    return sum(tensor.nbytes for module in modules for tensor in module.state_dict().values())
