"""Profiles made up for the reports: a chain of blocks with plausible figures, as many layers as wanted, with any names."""

from __future__ import annotations

import random
from collections.abc import Sequence

from engine.profile.point import DECODE, FORWARD, PREFILL, Point
from engine.profile.profile import (
    Bound,
    Environment,
    Honesty,
    ItemFigures,
    ItemProfile,
    LayerFigures,
    LayerProfile,
    Profile,
    Role,
    Roofline,
    StepFigures,
    TensorInfo,
)

POINTS = tuple([Point(PREFILL, n, 0, 1) for n in (16, 64, 256)] + [Point(DECODE, 1, c, b) for b in (1, 4) for c in (16, 64, 256)])
ENCODER_POINTS = tuple(Point(FORWARD, n, 0, 1) for n in (16, 64, 256))
HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "layer[/foo][bold red]markup",
    "\x1b]0;owned\x07\x1b[31mred\x1b[0m",
    '=HYPERLINK("http://example.invalid","x")',
    "+1+cmd|'/c calc'!A0",
    "-2+3",
    "@SUM(1,1)",
    "\t=1+1",
    "<!--<script>",
    'a"b\\c\nd\re',
    "<b>bold</b><a href='https://example.invalid/'>link</a>%{x}&amp;&lt;",
    "$\\unsafe{x}$",
    "line\u2028sep\u2029end",
    "\u202egnp.exe",
    "\ud800 lone surrogate",
    "\x00 nul",
    "__proto__",
    "{{policy}}{{data}}",
    "n" * 10_240,
    "",
)


def make_profile(num_blocks: int = 12, names: Sequence[str] = (), points: tuple[Point, ...] = POINTS, seed: int = 0) -> Profile:
    """embedding, blocks of attention and MLP, norm, head: 3 * num_blocks + 4 layers; `names` replaces the first names."""
    rng = random.Random(seed)
    rows = [("wte", Role.EMBEDDING, None), ("wpe", Role.EMBEDDING, None)]
    for block in range(num_blocks):
        rows += [(f"h.{block}", Role.BLOCK, None), (f"h.{block}.attn", Role.ATTENTION, block), (f"h.{block}.mlp", Role.MLP, block)]
    rows += [("ln_f", Role.NORM, None), ("lm_head", Role.HEAD, None)]
    names = [*names, *(name for name, _, _ in rows[len(names) :])][: len(rows)]
    paths = [f"transformer.{name}" for name in names]
    layers = []
    for index, (_, role, block) in enumerate(rows):
        parent = paths[2 + 3 * block] if block is not None else None
        item = 0 if index < 2 else min(num_blocks + 1, 1 + (index - 2) // 3)
        layers.append(_layer(rng, index, names[index], paths[index], role, parent, item, points))
    steps = tuple(_step(layers, p, rng) for p in points)
    return Profile(
        "gpt2 (random weights, seed 0)", "gpt2", "ab" * 32, True, 124_439_808, "layer", 1.7e9, _environment(),
        Honesty(0.012, 0.003, 0.991, 0.97, 0.03, 4321, 33.3), steps, tuple(layers), _items(num_blocks, points),
    )  # fmt: skip


_SIZES = {
    Role.EMBEDDING: 3e6,
    Role.ATTENTION: 9.4e6,
    Role.MLP: 18.9e6,
    Role.BLOCK: 28.4e6,
    Role.NORM: 6e3,
    Role.HEAD: 154e6,
    Role.OTHER: 1.0,
}


def _layer(
    rng: random.Random, index: int, name: str, path: str, role: Role, parent: str | None, item: int, points: tuple[Point, ...]
) -> LayerProfile:
    figures = tuple(_figures(rng, role, p) for p in points)
    size = int(_SIZES[role])
    kv = 6144 if role in (Role.ATTENTION, Role.BLOCK) else 0
    depth = 0 if parent is None else 1
    return LayerProfile(index, name, path, role, "GPT2" + str(role).title(), depth, parent, item, "cpu", size, 1024, kv, figures)


def _figures(rng: random.Random, role: Role, p: Point) -> LayerFigures:
    tokens = p.tokens * p.batch
    own_s = _SIZES[role] / 25e9 * (1 + 0.02 * tokens) * rng.uniform(0.9, 1.2) * (0.02 if role is Role.BLOCK else 1.0)
    all_s = (_SIZES[role] / 25e9) * (1 + 0.02 * tokens) * rng.uniform(1.25, 1.3) if role is Role.BLOCK else own_s
    flops = 0 if role in (Role.EMBEDDING, Role.NORM) else int(_SIZES[role] / 2 * tokens)
    moved = int(_SIZES[role] + 4096 * tokens)
    samples = tuple(all_s * rng.lognormvariate(0, 0.05) for _ in range(64))
    bound = Bound.COMPUTE if tokens > 64 else Bound.MEMORY
    why = f"{flops / 1e6:.1f} MFLOP over {moved / 1e6:.1f} MB at {moved / all_s / 1e9:.1f} GB/s, 81 % of what this machine reads"
    shape = (TensorInfo((p.batch, p.tokens, 768), "float32"),)
    return LayerFigures(
        p, all_s, 1.2 * all_s, own_s, 64 * all_s, 64, 0.05, 3072 * tokens, 4096 * tokens, flops, moved, flops / all_s, moved / all_s,
        bound, why, shape, shape, samples,
    )  # fmt: skip


def _step(layers: list[LayerProfile], p: Point, rng: random.Random) -> StepFigures:
    whole_s = 1.03 * sum(f.self_s for layer in layers if (f := layer.at(p)))
    samples = tuple(whole_s * rng.lognormvariate(0, 0.03) for _ in range(64))
    return StepFigures(p, whole_s, 1.012 * whole_s, 0.99 * whole_s, 64, 0.03, samples)


def _items(num_blocks: int, points: tuple[Point, ...]) -> tuple[ItemProfile, ...]:
    names = ["embedding", *(f"h.{i}" for i in range(num_blocks)), "head"]
    return tuple(
        ItemProfile(i, name, 28_000_000, 6144, 3072, figures=tuple(_item_figures(p) for p in points)) for i, name in enumerate(names)
    )


def _item_figures(p: Point) -> ItemFigures:
    return ItemFigures(point=p, time_s=1.1e-3 * p.tokens, p50_s=1.1e-3 * p.tokens, p95_s=1.3e-3 * p.tokens, cv=0.04, num_samples=64)


def _environment() -> Environment:
    roof = Roofline(1.2e11, 2.6e10)
    libraries = {"python": "3.11", "torch": "2.13.0", "transformers": "5.23.0"}
    return Environment("cpu", "Some CPU @ 2.1 GHz", "Some CPU @ 2.1 GHz", 2, 2, "float32", "host", "Linux-6.1", roof, libraries)
