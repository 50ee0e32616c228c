"""Pick the next token from one row of logits, so that any worker and any replay picks the same one.

The random number is a pure function of (seed, index): Philox4x32-10, a counter-based generator from J. Salmon,
M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. There is no generator state
to move when a stage moves. The penalty and the masks are those of transformers' logits processors, in its order:
repetition penalty, temperature, top-k, top-p. This file knows nothing of sessions, models or devices.

V = vocabulary size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from engine.data import Corrupt, InvalidInput, Sampling

_MASK32 = 0xFFFFFFFF
_PHILOX_M0, _PHILOX_M1 = 0xD2511F53, 0xCD9E8D57
_PHILOX_W0, _PHILOX_W1 = 0x9E3779B9, 0xBB67AE85
_COLDEST = 1e-6  # below it, dividing fp32 logits may overflow, and nothing but the best token has any weight left


def sample(logits: torch.Tensor, params: Sampling, history: Sequence[int], index: int) -> int:
    """Return the id of the token with number `index` among a session's generated tokens.

    `logits` is [V] fp32; `history` holds the prompt and generated ids so far, which only the repetition penalty reads.
    Greedy takes the lowest id among equals. Raises InvalidInput for a wrong shape, type or index, and Corrupt when
    the logits hold NaN or +inf, or nothing but -inf.
    """
    _check(logits, index)
    scores = penalised(logits, params.repetition_penalty, history)
    best = int(scores.argmax())
    # torch ranks NaN above +inf above the rest, so the winner alone shows whether the row is sound.
    if not math.isfinite(value := float(scores[best])):
        raise Corrupt(f"the largest logit is {value}: the model produced NaN or infinity; check its weights, or use float32")
    if params.temperature < _COLDEST:
        return best
    return _draw(filtered(scores, params), uniform(params.seed, index))


def penalised(logits: torch.Tensor, penalty: float, history: Sequence[int]) -> torch.Tensor:
    """Weaken every token of `history` once; [V] in, [V] out, and `logits` itself is never changed.

    N. Keskar et al., "CTRL", 2019, with the sign rule of transformers' RepetitionPenaltyLogitsProcessor.
    """
    if penalty == 1.0 or not history:
        return logits
    seen = torch.tensor(history, dtype=torch.int64, device=logits.device)
    seen = seen[seen < logits.shape[0]].unique()  # [unique ids]; an embedding may be larger than the head
    score = logits[seen]
    return logits.index_copy(0, seen, torch.where(score < 0, score * penalty, score / penalty))


def filtered(scores: torch.Tensor, params: Sampling) -> torch.Tensor:
    """Apply temperature, top-k and top-p to [V] fp32 scores; masked tokens are -inf in the [V] CPU result."""
    scores = scores.cpu() / params.temperature
    if params.top_k > 0:
        kth = torch.topk(scores, min(params.top_k, scores.shape[0]))[0][-1]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if params.top_p < 1.0:
        scores = _nucleus(scores, params.top_p)
    return scores


def _nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    # transformers sorts values with their indices (5 ms for V = 50k). Values alone are enough, and a fifth of the
    # time. Which equals fall at the boundary is left to an unstable sort there, so it depends on the CPU; here the
    # lowest ids fall first, as under a stable sort, because every worker must mask the same tokens.
    ascending = torch.from_numpy(np.sort(scores.numpy()))  # [V]
    removed = ascending.softmax(0).cumsum(0) <= 1 - top_p  # [V]
    num_removed = min(int(removed.sum()), len(removed) - 1)
    boundary = ascending[num_removed]
    drop = scores < boundary
    num_equal_removed = num_removed - int(drop.sum())
    if num_equal_removed:
        drop[(scores == boundary).nonzero()[:num_equal_removed, 0]] = True
    return scores.masked_fill(drop, -torch.inf)


def _draw(scores: torch.Tensor, u: float) -> int:
    """Inverse-CDF draw over the tokens of [V] that are not masked, in float64; `u` lies in [0, 1)."""
    kept = (scores > -torch.inf).nonzero()[:, 0] if bool(scores.isneginf().any()) else None
    values = (scores if kept is None else scores[kept]).numpy().astype(np.float64)  # [V] or [tokens kept]
    cdf = np.cumsum(np.exp(values - values.max()))
    # Dividing makes the last entry exactly 1.0, and 1.0 > u: the first entry above u exists and has width.
    place = int(np.searchsorted(cdf / cdf[-1], u, side="right"))
    return place if kept is None else int(kept[place])


def _check(logits: torch.Tensor, index: int) -> None:
    if logits.ndim != 1 or logits.shape[0] == 0 or logits.dtype != torch.float32:
        raise InvalidInput(f"logits are {logits.dtype} of shape {tuple(logits.shape)}: one row [V] of float32 is needed")
    if not 0 <= index < 2**64:
        raise InvalidInput(f"token index {index} is not allowed: it must lie in [0, 2**64)")


def uniform(seed: int, index: int) -> float:
    """The random number of token `index` under `seed`: a multiple of 2**-53 in [0, 1)."""
    counter = (index & _MASK32, index >> 32, 0, 0)
    high, low, _, _ = philox4x32(counter, (seed & _MASK32, seed >> 32))
    return ((high << 32 | low) >> 11) * 2.0**-53


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10: four 32-bit counter words and two 32-bit key words in, four random 32-bit words out."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _PHILOX_M0 * c0, _PHILOX_M1 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK32, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK32
        k0, k1 = (k0 + _PHILOX_W0) & _MASK32, (k1 + _PHILOX_W1) & _MASK32
    return c0, c1, c2, c3
