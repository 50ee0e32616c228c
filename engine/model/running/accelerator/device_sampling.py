"""Tokens of a whole step chosen where its logits are: only ids and flags come back, by one copy.

The choices are those of `sampling.sample`, bit for bit. Sums in another order round differently, so each choice that hangs on a
sum is made only if it cannot depend on rounding; the few rows where it could are chosen by `sample` itself, and so are rows with
parameters that are not known here.

Shapes: n rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from engine.data.errors import Corrupt
from engine.data.sampling import Sampling
from engine.model.running.sampling import allowed, sample

_COLDEST = 1e-6  # as in `sampling`
_SOFTMAX_ERROR = 2e-5  # relative, of a float32 softmax and its sum over some 100,000 entries
_SUM_ERROR = 2e-11  # the same of sums in float64
_CHOSEN, _UNSURE, _UNSOUND = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Draw:
    """One row's token: `history` and `index` as `sample` takes them, `mask` as `allowed` does."""

    params: Sampling
    history: Sequence[int]
    index: int
    mask: bytes = b""

    @property
    def is_known(self) -> bool:
        """Whether nothing is asked for but what this file does."""
        return not self.mask and _is_known(self.params)


def sample_rows(logits: torch.Tensor, draws: Sequence[Draw], where: str, picks: torch.Tensor | None = None) -> list[int | Exception]:
    """The token of each row of [n, V] float32 logits, or why it has none. Raises Corrupt, naming `where`, if a logit is not finite.

    `picks` [2, n] are `greedy_picks` of the same logits, where a step has them already.
    """
    if picks is not None and all(not draw.mask and _is_greedy(draw.params) for draw in draws):
        ids, finite = picks.tolist()
        _check_finite(all(finite), where)
        return list(ids)
    if logits.device.type == "cpu":
        _check_finite(bool(torch.isfinite(logits).all()), where)
        return [_alone(row, draw) for row, draw in zip(logits, draws, strict=True)]
    return sample_together(logits, draws, where)


def sample_together(logits: torch.Tensor, draws: Sequence[Draw], where: str) -> list[int | Exception]:
    """The same on any device, in batch."""
    known = [draw.is_known for draw in draws]
    params = [draw.params if is_known else Sampling() for draw, is_known in zip(draws, known, strict=True)]
    finite = torch.isfinite(logits).all().long().view(1)
    scores = _penalised(logits, params, draws)
    ids = scores.argmax(-1)  # the lowest id among equals, NaN above all
    status = torch.where(scores.gather(-1, ids[:, None])[:, 0].isfinite(), _CHOSEN, _UNSOUND)
    drawn = [row for row, p in enumerate(params) if p.temperature >= _COLDEST]
    if drawn:
        chosen, is_sure = _drawn(
            scores[drawn] if len(drawn) < len(draws) else scores, [params[r] for r in drawn], [draws[r] for r in drawn]
        )
        at = torch.tensor(drawn, device=logits.device)
        status[at] = torch.where((status[at] == _CHOSEN) & ~is_sure, _UNSURE, status[at])
        ids[at] = chosen
    numbers = torch.cat((finite, ids, status)).tolist()
    _check_finite(bool(numbers[0]), where)
    count = len(draws)
    pairs = zip(numbers[1 : 1 + count], numbers[1 + count :], strict=True)
    return [
        token_id if state == _CHOSEN and is_known else _alone(logits[row], draws[row])
        for row, ((token_id, state), is_known) in enumerate(zip(pairs, known, strict=True))
    ]


def needs_history(params: Sampling) -> bool:
    """Whether the choice depends on earlier tokens, or may."""
    return not _is_known(params) or params.repetition_penalty != 1.0


@lru_cache(1024)
def _is_greedy(params: Sampling) -> bool:
    """Whether the largest logit is the choice."""
    return _is_known(params) and params.temperature < _COLDEST and params.repetition_penalty == 1.0


@lru_cache(1024)
def _is_known(params: Sampling) -> bool:
    """Whether no setting but those that this file knows has a say in the choice; ends have none without `min_tokens`, nor log
    probabilities."""
    free = replace(params, stop_token_ids=(), logprobs=False, top_logprobs=0) if params.min_tokens == 0 else params
    return free == Sampling(params.temperature, params.top_k, params.top_p, params.repetition_penalty, params.seed)


def _alone(row: torch.Tensor, draw: Draw) -> int | Exception:
    try:
        return sample(allowed(row, draw.mask), draw.params, draw.history, draw.index)
    except Exception as error:  # this session's alone: the others of the step have their tokens
        return error


def _check_finite(is_finite: bool, where: str) -> None:
    if not is_finite:
        raise Corrupt(f"{where} produced non-finite values: the weights or this dtype's range are at fault; try --dtype float32")


def _penalised(logits: torch.Tensor, params: Sequence[Sampling], draws: Sequence[Draw]) -> torch.Tensor:
    """As `sampling.penalised`, row by row in one go; [n, V]."""
    rows: list[int] = []
    seen: list[npt.NDArray[np.int64]] = []
    for row, (p, draw) in enumerate(zip(params, draws, strict=True)):
        if p.repetition_penalty != 1.0 and draw.history:
            ids = np.unique(np.asarray(draw.history, dtype=np.int64))
            seen.append(ids[ids < logits.shape[1]])
            rows += [row] * len(seen[-1])
    if not rows:
        return logits
    places = torch.from_numpy(np.stack((np.asarray(rows), np.concatenate(seen)))).to(logits.device)
    penalties = torch.tensor([params[row].repetition_penalty for row in rows], dtype=torch.float32).to(logits.device)
    score = logits[places[0], places[1]]
    scores = logits.clone()
    scores[places[0], places[1]] = torch.where(score < 0, score * penalties, score / penalties)
    return scores


def _drawn(scores: torch.Tensor, params: Sequence[Sampling], draws: Sequence[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids [n], whether each is beyond doubt [n]) of rows with a temperature."""
    u = uniforms([p.seed for p in params], [draw.index for draw in draws])
    columns = ([p.temperature for p in params], [p.top_k for p in params], u)
    temperature, top_k, target = torch.tensor(np.asarray(columns)).to(scores.device)[..., None]
    scores = scores / temperature.float()  # by a tensor: dividing by a number multiplies by its inverse
    is_sure = torch.ones(len(params), dtype=torch.bool, device=scores.device)
    if any(0 < p.top_k < scores.shape[1] for p in params):
        scores = _top_k(scores, top_k.long(), max(p.top_k for p in params if p.top_k < scores.shape[1]))
    if any(p.top_p < 1.0 for p in params):
        scores, is_sure = _nucleus(scores, [p.top_p for p in params])
    values = scores.double()
    weights = torch.exp(values - values.amax(-1, keepdim=True))
    cdf = weights.cumsum(-1)
    cdf /= cdf[:, -1:].clone()
    ids = (cdf <= target).sum(-1).clamp(max=scores.shape[1] - 1)
    upper = cdf.gather(-1, ids[:, None])
    lower = torch.where(ids[:, None] > 0, cdf.gather(-1, (ids[:, None] - 1).clamp(min=0)), -1.0)
    is_clear = (upper - target > _SUM_ERROR) & ((target - lower > _SUM_ERROR) | (lower <= 0))
    return ids, is_sure & is_clear[:, 0]


def _top_k(scores: torch.Tensor, top_k: torch.Tensor, most: int) -> torch.Tensor:
    """Mask what is below the k-th largest of each row; `top_k` [n, 1], 0 is off, `most` is the largest in use."""
    largest = scores.topk(most, -1).values
    kth = largest.gather(-1, (top_k - 1).clamp(0, most - 1))
    is_on = (top_k > 0) & (top_k < scores.shape[1])
    return scores.masked_fill(is_on & (scores < kth), -torch.inf)


def _nucleus(scores: torch.Tensor, top_p: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """As `sampling._nucleus`; also whether no rounding could keep another number of tokens in a row."""
    limits = torch.from_numpy(np.float32(1.0) * np.asarray([np.float32(1 - p) for p in top_p])).to(scores.device).double()[:, None]
    descending = scores.sort(-1, descending=True).values
    weights = torch.exp(descending.double() - descending[:, :1].double())
    before = weights.cumsum(-1)
    rest = (before[:, -1:] - before + weights) / before[:, -1:]  # of each and all below it: the cumulative sum from the smallest on
    num_kept, most_kept = ((rest > limits * (1 + sign * _SOFTMAX_ERROR)).sum(-1, keepdim=True).clamp(min=1) for sign in (1, -1))
    is_off = torch.tensor([p >= 1.0 for p in top_p]).to(scores.device)[:, None]
    boundary = descending.gather(-1, num_kept - 1)
    is_equal = scores == boundary
    num_dropped = is_equal.sum(-1, keepdim=True) - (num_kept - (scores > boundary).sum(-1, keepdim=True))
    drop = (scores < boundary) | (is_equal & (is_equal.cumsum(-1) <= num_dropped))
    return scores.masked_fill(drop & ~is_off, -torch.inf), ((num_kept == most_kept) | is_off)[:, 0]


_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def uniforms(seeds: Sequence[int], indices: Sequence[int]) -> npt.NDArray[np.float64]:
    """`sampling.uniform` of many (seed, index) pairs at once: Philox4x32-10 on arrays."""
    key, counter = np.asarray(seeds, dtype=np.uint64), np.asarray(indices, dtype=np.uint64)
    k0, k1 = key & _LOW, key >> _HALF
    c0, c1 = counter & _LOW, counter >> _HALF
    c2 = c3 = np.zeros_like(c0)
    for _ in range(10):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    numbers: npt.NDArray[np.float64] = ((c0 << _HALF | c1) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
