"""Pick the next token from one row of logits, so that any worker and any replay picks the same one.

The random number is a pure function of (seed, index): Philox4x32-10, a counter-based generator from J. Salmon,
M. Moraes, R. Dror and D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11. There is no generator state
to move when a stage moves. What acts on a row does so in the order of transformers' `generate()`, and equals its logits processors:
logit bias, repetition penalty, frequency and presence penalty (which it lacks: those of OpenAI and vLLM), the ban of ends before
`min_tokens`, temperature, top-k, top-p, min-p. A greedy choice is made before the last four, which never change the best token.
This file knows nothing of sessions, models or devices.

V = vocabulary size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from engine.data.errors import Corrupt, InvalidInput
from engine.data.generation import Logprobs, TokenLogprob
from engine.data.sampling import LEAST_LOGPROB, Sampling

Row = npt.NDArray[np.float32]  # [V]

_MASK32 = 0xFFFFFFFF
_PHILOX_M0, _PHILOX_M1 = 0xD2511F53, 0xCD9E8D57
_PHILOX_W0, _PHILOX_W1 = 0x9E3779B9, 0xBB67AE85
_COLDEST = 1e-6  # below it, dividing fp32 logits may overflow, and nothing but the best token has any weight left


def sample(logits: torch.Tensor, params: Sampling, history: Sequence[int], index: int) -> int:
    """Return the id of the token with number `index` among a session's generated tokens.

    `logits` is [V] fp32; `history` holds the prompt ids and the `index` generated ones so far, which only the penalties read.
    Greedy takes the lowest id among equals. Raises InvalidInput for a wrong shape, type or index, and Corrupt when
    the logits hold NaN or +inf, or nothing but -inf.
    """
    _check(logits, index)
    # Element by element this works in numpy: torch splits rows this long over threads, and on a busy machine waiting
    # for the second thread costs 8 to 16 ms, a hundred times the work itself.
    scores = adjusted(logits.cpu().numpy(), params, history, index)
    best = int(torch.from_numpy(scores).argmax())
    # torch ranks NaN above +inf above the rest, so the winner alone shows whether the row is sound.
    if not math.isfinite(value := float(scores[best])):
        raise Corrupt(f"the largest logit is {value}: the model produced NaN or infinity; check its weights, or use float32")
    if params.temperature < _COLDEST:
        return best
    return _draw(filtered(scores, params), uniform(params.seed, index))


def allowed(logits: torch.Tensor, mask: bytes) -> torch.Tensor:
    """[V] logits in which tokens that `mask` does not name are -inf: bit i of byte j, from the low end, is token 8 * j + i. An empty mask
    names all. Raises Corrupt for one that names none."""
    if not mask:
        return logits
    named = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")[: len(logits)].astype(bool)  # [V] or less
    if not named.any():
        raise Corrupt("the grammar allows no token here: the answer cannot go on")
    scores = np.full(len(logits), -np.inf, np.float32)
    scores[: len(named)][named] = logits.cpu().numpy()[: len(named)][named]
    return torch.from_numpy(scores)


def logprobs(logits: torch.Tensor, token_id: int, num_top: int) -> Logprobs:
    """The log probabilities of a token and of the `num_top` likeliest by the model's own [V] fp32 logits, natural logarithms.

    Among equals the lowest ids come first. What lies below `LEAST_LOGPROB` is reported as that.
    """
    row = logits.cpu().numpy()
    best = float(row.max())
    total = best + math.log(float(np.exp(row.astype(np.float64) - best).sum()))
    num_top = min(num_top, len(row))
    likeliest = np.flatnonzero(row >= np.partition(row, -num_top)[-num_top]) if num_top else np.empty(0, np.int64)
    top = likeliest[np.argsort(-row[likeliest], kind="stable")][:num_top]

    def entry(i: int) -> TokenLogprob:
        return TokenLogprob(i, max(LEAST_LOGPROB, float(row[i]) - total))

    return Logprobs(entry(token_id), tuple(entry(int(i)) for i in top))


def adjusted(logits: Row, params: Sampling, history: Sequence[int], index: int) -> Row:
    """Everything that a greedy choice depends on; [V] in, [V] out, and `logits` itself is never changed."""
    scores = penalised(_biased(logits, params), params.repetition_penalty, history)
    scores = _counted(scores, params, history[len(history) - index :] if index else ())
    if index >= params.min_tokens or not params.stop_token_ids:
        return scores
    scores = scores.copy()
    scores[_present(params.stop_token_ids, scores)] = -np.inf
    return scores


def _biased(logits: Row, params: Sampling) -> Row:
    """Add to each token's logit its bias, once."""
    if not params.logit_bias:
        return logits
    scores = logits.copy()
    for entry in params.logit_bias:
        if entry.token_id < len(scores):  # an embedding may be larger than the head
            scores[entry.token_id] += np.float32(entry.bias)
    return scores


def _counted(scores: Row, params: Sampling, generated: Sequence[int]) -> Row:
    """Subtract the frequency penalty for each time that a token was generated, and the presence penalty if it was at all."""
    if not len(generated) or (params.frequency_penalty == 0 and params.presence_penalty == 0):
        return scores
    seen, counts = np.unique(np.asarray(generated), return_counts=True)
    inside = seen < len(scores)
    seen, counts = seen[inside], counts[inside].astype(np.float32)
    scores = scores.copy()
    scores[seen] -= np.float32(params.frequency_penalty) * counts
    scores[seen] -= np.float32(params.presence_penalty)
    return scores


def _present(token_ids: Sequence[int], scores: Row) -> npt.NDArray[np.int64]:
    ids = np.asarray(token_ids, np.int64)
    return ids[ids < len(scores)]


def penalised(logits: Row, penalty: float, history: Sequence[int]) -> Row:
    """Weaken every token of `history` once; [V] in, [V] out, and `logits` itself is never changed.

    N. Keskar et al., "CTRL", 2019, with the sign rule of transformers' RepetitionPenaltyLogitsProcessor.
    """
    if penalty == 1.0 or not history:
        return logits
    seen = np.unique(_present(history, logits))
    score = logits[seen]
    scores = logits.copy()
    scores[seen] = np.where(score < 0, score * np.float32(penalty), score / np.float32(penalty))
    return scores


def filtered(scores: Row, params: Sampling) -> Row:
    """Apply temperature, top-k, top-p and min-p to [V] scores; masked tokens are -inf in the new [V]."""
    scores = scores / np.float32(params.temperature)
    if 0 < params.top_k < len(scores):
        kth = np.partition(scores, -params.top_k)[-params.top_k]
        scores[scores < kth] = -np.inf
    if params.top_p < 1.0:
        scores = _nucleus(scores, params.top_p)
    return _near_the_best(scores, params.min_p) if params.min_p > 0.0 else scores


def _near_the_best(scores: Row, min_p: float) -> Row:
    """Mask what is less than `min_p` times as likely as the best token; the best stays."""
    probabilities = torch.from_numpy(scores).softmax(0)
    scores[(probabilities < min_p * probabilities.max()).numpy()] = -np.inf
    return scores


def _nucleus(scores: Row, top_p: float) -> Row:
    # transformers sorts values with their indices (5 ms for V = 50k). Values alone are enough, and a fifth of the
    # time. Which equals fall at the boundary is left to an unstable sort there, so it depends on the CPU; here the
    # lowest ids fall first, as under a stable sort, because every worker must mask the same tokens.
    ascending = np.sort(scores)
    cumulative = torch.from_numpy(ascending).softmax(0).cumsum(0).numpy()  # torch's own, for the same last bits
    num_removed = min(int(np.count_nonzero(cumulative <= np.float32(1 - top_p))), len(scores) - 1)
    boundary = ascending[num_removed]
    drop = scores < boundary
    num_equal_removed = num_removed - int(np.count_nonzero(drop))
    drop[np.flatnonzero(scores == boundary)[:num_equal_removed]] = True
    scores[drop] = -np.inf
    return scores


def _draw(scores: Row, u: float) -> int:
    """Inverse-CDF draw over the tokens of [V] that are not masked, in float64; `u` lies in [0, 1)."""
    kept = np.flatnonzero(scores > -np.inf)  # [tokens kept]
    values = scores[kept].astype(np.float64)
    cdf = np.cumsum(np.exp(values - values.max()))
    # Dividing makes the last entry exactly 1.0, and 1.0 > u: the first entry above u exists and has width.
    return int(kept[np.searchsorted(cdf / cdf[-1], u, side="right")])


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
