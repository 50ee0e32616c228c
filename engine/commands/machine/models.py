"""`noodle-engine models`: what is here to run, and what one model is made of."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, replace
from pathlib import Path

from engine.commands.machine.options import Models
from engine.commands.output import note, print_json, say, table
from engine.data.binary_size import binary_size
from engine.data.errors import InvalidInput, NoodleError
from engine.data.model import ModelCard, ModelRef
from engine.model.sources.automatic import decided
from engine.model.sources.card import prepare, prepare_choices
from engine.service.coordinator.text.codec import TextCodec
from engine.service.errors import status_number


def models(options: Models) -> int:
    """List models, or describe the one that was named."""
    named, cache_dir = options.named, options.named.cache.folder
    if options.action == "list":
        if named.model is not None:
            raise InvalidInput(f"`models list` takes no model: use `models describe {named.model}`")
        return _list(cache_dir, options.json)
    return _describe_lines(named.ref(), cache_dir) if options.json_lines else _describe(named.ref(), cache_dir, options.json)


def _describe(ref: ModelRef, cache_dir: Path, as_json: bool) -> int:
    narrator = _Narrator()
    card = prepare(decided(ref, cache_dir, on_progress=narrator), cache_dir, narrator, to_load=False)
    codec = TextCodec(Path(card.folder))
    card = replace(card, tokenizer_source=codec.source, stand_in_tokenizer=codec.stand_in)
    if card.missing:
        note(f"noodle-engine: {card.folder} cannot be loaded: {card.missing}")
    if as_json:
        precision = asdict(card.precision) | {"text": card.precision.sentence, "memory_text": card.precision.memory_sentence}
        print_json(asdict(card) | {"precision": precision})
    else:
        say(_text(card))
    return 0


def _describe_lines(ref: ModelRef, cache_dir: Path) -> int:
    """The same for the coordinator: progress, then the card or the error, each as one JSON line."""

    def tell(done: float, detail: str) -> None:
        print_json({"detail": detail, "progress": done})

    try:
        cards = prepare_choices(ref, cache_dir, tell)
    except NoodleError as e:
        print_json({"error": str(e), "code": status_number(e)})
        return e.exit_code
    print_json({"cards": [asdict(card) for card in cards]})
    return 0


class _Narrator:
    """Says each new sentence once, not each step of it."""

    def __init__(self) -> None:
        self._said = ""

    def __call__(self, done: float, detail: str) -> None:
        if detail != self._said:
            self._said = detail
            note(f"noodle-engine: {detail}")


def _text(card: ModelCard) -> str:
    rows = [(i.name, f"{i.weight_bytes / 1e6:.1f}", str(i.kv_bytes_per_token), str(i.output_bytes_per_token)) for i in card.items]
    sizes = f"{card.num_parameters / 1e6:.1f} M parameters, context {card.context_tokens}, vocabulary {card.vocab_size}"
    part = ", the text part alone" if card.architecture.endswith("ForConditionalGeneration") else ""
    tokenizer = f"its own, from {card.tokenizer_source}" if card.tokenizer_source else f"bytes stand in, for {card.stand_in_tokenizer}"
    lines = (
        f"{card.ref.label}: {card.architecture}{part}, {sizes}",
        card.folder,
        f"tokenizer: {tokenizer}",
        f"weights: {card.precision.sentence}",
    )
    choices = [(c.dtype, f"{c.weight_bytes / 1e6:.1f}", str(c.kv_bytes_per_token)) for c in card.choices]
    memory = table(("DTYPE", "WEIGHTS MB (--dtype)", "KV B/TOKEN (--kv-dtype)"), choices)
    return "\n".join(lines) + f"\n\n{memory}\n\n" + table(("ITEM", "WEIGHTS MB", "KV B/TOKEN", "OUT B/TOKEN"), rows)


def _list(cache_dir: Path, as_json: bool) -> int:
    from engine.model.sources.inventory import list_architectures, list_models

    entries, architectures = list_models(cache_dir), list_architectures()
    if as_json:
        print_json({"models": [asdict(e) for e in entries], "architectures": architectures})
        return 0
    rows = [
        (e.model, "-" if e.random_weights is None else str(e.random_weights), e.dtype, binary_size(e.size_bytes), e.reason or "yes")
        for e in entries
    ]
    say(table(("MODEL", "SEED", "DTYPE", "SIZE", "RUNS HERE"), rows) if rows else "no model is stored on this machine yet")
    say("\narchitectures for --random-weights SEED (add :tiny for a small one):")
    say(textwrap.fill(", ".join(architectures), width=100, initial_indent="  ", subsequent_indent="  "))
    return 0
