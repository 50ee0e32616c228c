"""A model as it is asked for and as it is described: its reference, its items, its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.plan import NodeSpec
from engine.data.precision import AUTO, Identity, MemoryChoice, Precision, identity, kept_dtype


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What the user asked for: a hub id, a local folder, or an architecture name with seeded random weights."""

    model: str
    random_weights: int | None = None
    dtype: str = "float32"
    kv_dtype: str = AUTO  # what KV is kept in, if not as it is computed

    @property
    def label(self) -> str:
        """The name shown to people; random weights are always labelled as such."""
        return self.model if self.random_weights is None else f"{self.model} (random weights, seed {self.random_weights})"

    @property
    def kept_dtype(self) -> str:
        """What KV is kept in."""
        return kept_dtype(self.kv_dtype, self.dtype)


@dataclass(frozen=True, slots=True)
class Item:
    """One schedulable unit of the model chain: the embedding, one decoder block, or the final norm with the head."""

    name: str
    weight_bytes: int
    kv_bytes_per_token: int
    output_bytes_per_token: int
    tied_to: int | None = None  # index of the item whose tensor this one shares
    tied_bytes: int = 0  # bytes of the shared tensor, already inside weight_bytes


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the coordinator needs to know of a model without importing torch; written by the model room."""

    ref: ModelRef
    folder: str
    fingerprint: str  # sha-256 over config.json and the safetensors headers: a worker whose folder has another fetches weights instead
    architecture: str
    items: tuple[Item, ...]
    hidden_size: int
    vocab_size: int
    context_tokens: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    num_parameters: int
    stored_dtype: str = ""  # of most bytes of the weights, by its torch name; "" where no weights are stored
    missing: str = ""  # why the folder's weights cannot be loaded, by its headers; empty if they can
    inexact: str = ""  # of int8: why an answer may depend on its company; empty if it does not
    choices: tuple[MemoryChoice, ...] = ()  # what each dtype would take
    tokenizer_source: str = ""  # the files that the tokenizer was read from, set by who reads them
    stand_in_tokenizer: str = ""  # why bytes take the place of the model's own tokenizer, set by who reads it; empty if they do not

    @property
    def num_items(self) -> int:
        return len(self.items)

    def identity_on(self, specs: Sequence[NodeSpec]) -> Identity:
        """How far answers that these workers compute are those of one process."""
        devices, arithmetics = [spec.device_type for spec in specs], [spec.arithmetic for spec in specs]
        return identity(self.ref.dtype, devices, arithmetics, is_exact=not self.inexact, kv_dtype=self.ref.kept_dtype)

    @property
    def precision(self) -> Precision:
        tied_twice = sum(item.tied_bytes for index, item in enumerate(self.items) if item.tied_to is not None and item.tied_to < index)
        return Precision(
            self.stored_dtype,
            self.ref.dtype,
            sum(item.weight_bytes for item in self.items) - tied_twice,
            self.ref.kept_dtype,
            sum(item.kv_bytes_per_token for item in self.items),
            self.choices,
        )
