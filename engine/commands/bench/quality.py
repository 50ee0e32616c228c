"""`noodle-engine bench quality MODEL`: perplexity of the same text in every dtype, computed by a stage as it serves.

The text is what machines have anyway: the licences of Debian or of Python as English, modules of Python's library as code. It is cut
into windows that are read independently, and every token but the first of a window is predicted.
"""

from __future__ import annotations

import itertools
import math
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands.bench.options import Bench
from engine.commands.output import note, print_json, say, table
from engine.data.errors import InvalidInput
from engine.data.model import ModelRef
from engine.data.precision import AUTO, kept_dtype

if TYPE_CHECKING:
    from engine.model.running.stage import StageModel

DEFAULT_DTYPES = ("float32", "bfloat16", "int8")
WINDOW_TOKENS = 512
_CHUNK_TOKENS = 128  # whose logits are in memory at once
_KV_BYTES = 2**32
_LICENCES = Path("/usr/share/common-licenses")


def bench_quality(options: Bench) -> int:
    """Print the figures, or write them as one document."""
    if options.model is None:
        raise InvalidInput("`bench quality` needs a model with real weights: name a folder or a hub id")
    document = measure(ModelRef(options.model), options.dtype or DEFAULT_DTYPES, options.tokens, options.kv_dtype)
    if options.json:
        print_json({"quality": document})
    else:
        say(_text(document))
    return 0


def measure(ref: ModelRef, dtypes: Sequence[str], num_tokens: int, kv_dtypes: Sequence[str] = (AUTO,)) -> dict[str, Any]:
    """Perplexity of `num_tokens` tokens of each text, by text, dtype and dtype of KV; ratios are to the first of these."""
    from engine.folders import cache_folder
    from engine.model.running.stage import StageModel
    from engine.model.sources.card import prepare
    from engine.service.coordinator.text.codec import TextCodec

    card = prepare(ref, cache_folder())
    window = min(WINDOW_TOKENS, card.context_tokens)
    texts = {name: _tokens(TextCodec(Path(card.folder)), text, num_tokens) for name, text in _texts()}
    rows: list[dict[str, Any]] = []
    for dtype, kv_dtype in itertools.product(dtypes, kv_dtypes):
        model = StageModel.load(Path(card.folder), 0, card.num_items, dtype=dtype, kv_dtype=kv_dtype, kv_budget_bytes=_KV_BYTES)
        kept = kept_dtype(kv_dtype, dtype)
        for name, token_ids in texts.items():
            note(f"quality: {name} in {dtype}, KV in {kept}")
            loss, predicted = _loss(model, token_ids, window)
            perplexity = math.exp(loss / predicted)
            rows.append({"text": name, "dtype": dtype, "kv_dtype": kept, "num_tokens": len(token_ids), "perplexity": perplexity})
        del model
    first = {row["text"]: row["perplexity"] for row in reversed(rows)}
    return {"model": ref.label, "window_tokens": window, "rows": [row | {"ratio": row["perplexity"] / first[row["text"]]} for row in rows]}


def _loss(model: StageModel, token_ids: Sequence[int], window: int) -> tuple[float, int]:
    """Sum of the natural logarithms of what the tokens' probabilities were, negated, and the number of predicted tokens."""
    import torch

    total, predicted = 0.0, 0
    for start in range(0, len(token_ids) - 1, window):
        part = list(token_ids[start : start + window])
        model.open("text", len(part))
        for at in range(0, len(part) - 1, _CHUNK_TOKENS):
            chunk, wanted = part[at : at + _CHUNK_TOKENS], part[at + 1 : at + 1 + _CHUNK_TOKENS]
            logits = model.forward([("text", chunk)], None, [len(chunk)])[: len(wanted)]
            total += float(torch.nn.functional.cross_entropy(logits.double(), torch.tensor(wanted), reduction="sum"))
            predicted += len(wanted)
        model.close("text")
    return total, predicted


def _texts() -> Iterator[tuple[str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    licences = sorted(path for path in _LICENCES.glob("*") if path.is_file() and not path.is_symlink())
    english = licences or [path for path in (library / "LICENSE.txt",) if path.is_file()]
    code = sorted(path for path in library.glob("*.py") if path.stat().st_size > 10_000)
    for name, files in (("English", english), ("code", code)):
        if files:
            yield name, "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def _tokens(codec: Any, text: str, num_tokens: int) -> list[int]:
    token_ids = codec.encode(text[: 16 * num_tokens])[:num_tokens]
    if len(token_ids) < 2:
        raise InvalidInput(f"{num_tokens} tokens predict nothing: ask for --tokens 2 or more")
    return list(token_ids)


def _text(document: dict[str, Any]) -> str:
    head = f"quality: {document['model']}, windows of {document['window_tokens']} tokens, Python {sys.version.split()[0]}'s own texts"
    rows = [
        (r["text"], r["dtype"], r["kv_dtype"], str(r["num_tokens"]), f"{r['perplexity']:.4f}", f"{r['ratio']:.4f}")
        for r in document["rows"]
    ]
    return "\n".join((head, table(("TEXT", "DTYPE", "KV", "TOKENS", "PERPLEXITY", "RATIO"), rows)))
