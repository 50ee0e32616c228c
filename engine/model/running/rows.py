"""Cheaper forwards for modules that every decode row passes through; the arithmetic stays the same.

At one row per step a small model spends much of its time between kernels; norms and rotary positions are one call each where row kernels
with the same bits are compiled. For some rows at once oneDNN is faster than the product that torch takes, if the weight lies as [out,
in]: GPT-2's 3072 x 768 takes 0.47 instead of 0.63 ms for eight rows on two cores, Llama's 5632 x 2048 on one core 5.5 instead of 9.7 ms.
For fewer than four, and for weights that lie as [in, out], it is slower where torch's product uses all threads. On AMD's CPUs that product
uses one thread for one row, and hardly gains by a second one for eight: a trial tells. Last bits depend on who multiplies, as they depend
on the number of rows anyway: nothing that is promised about float32 does.

Modules are matched by their exact class, so a subclass that does something else keeps its own forward.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, linear

from engine.model.row_kernels import plain
from engine.model.row_kernels.kernels import row_kernels
from engine.model.running.pieces import find_norm, tried, with_rotary

FEWEST_ROWS, MOST_ROWS = 4, 64  # for which oneDNN is the faster one
MOST_ROWS_ALONG = 8  # the same where it is faster for one row too and the weight lies as [in, out]
LEAST_WORK = 2**20  # rows x numbers of the weight; less is done before a second thread has begun
_TRIED, _NUM_TRIALS = (2048, 8192), 10  # a weight that no cache holds


def _same(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def _conv1d(weight: torch.Tensor, bias: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """`transformers.pytorch_utils.Conv1D`: a linear layer whose weight is [in, out]."""
    if hidden.dim() != 3:
        return torch.addmm(bias, hidden.reshape(-1, weight.shape[0]), weight).view(*hidden.shape[:-1], weight.shape[1])
    return torch.addmm(bias, hidden[0], weight).unsqueeze(0) if hidden.shape[0] == 1 else hidden @ weight + bias


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, counts: range, hidden: torch.Tensor) -> torch.Tensor:
    """A linear layer with a weight [out, in], by oneDNN for so many rows as `counts` has."""
    return _by_onednn(hidden, weight, bias) if hidden.numel() // weight.shape[1] in counts else linear(hidden, weight, bias)


def _row_or_rows(weight: torch.Tensor, bias: torch.Tensor, counts: range, hidden: torch.Tensor) -> torch.Tensor:
    """The same for Conv1D, whose weight is [in, out]."""
    is_onednns = hidden.dim() == 3 and hidden.shape[0] * hidden.shape[1] in counts
    return _by_onednn(hidden, weight.t(), bias) if is_onednns else _conv1d(weight, bias, hidden)


def _by_onednn(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(hidden, weight, bias, "none", [], "")
    return product


def _row_norm(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The forward of a root-mean-square norm as one call, if its bits are the same."""
    weight, own = module.weight, module.forward
    if weight.dim() != 1 or weight.device.type != "cpu" or weight.dtype is not torch.float32:
        return None
    kernel = row_kernels().rms_norm
    found = None if kernel is plain.rms_norm else find_norm(module, kernel, 0.0)
    if found is None:
        return None
    eps, one_plus = found

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        return kernel(hidden, weight, eps, one_plus) if hidden.dtype is torch.float32 else own(hidden)

    return forward


def _rotary(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    turn = row_kernels().rotary
    return turn(query, cos, sin), turn(key, cos, sin)


def shorten_forwards(model: nn.Module) -> None:
    """Replace the forwards of filled modules in place. Call it once the weights are there: the forwards hold them."""
    for module in model.modules():
        forward = _shorter(module)
        if forward is not None:
            module.forward = forward


def turn_in_one_call(blocks: nn.Module) -> None:
    """Have blocks that compute in float32 on the CPU turn heads by their positions in one call, where its bits are the same."""
    if row_kernels().rotary is plain.rotary:
        return
    for module in blocks.modules():
        forward = tried(lambda module: with_rotary(module, _rotary, torch.zeros(0), 0.0), module)
        if forward is not None:
            module.forward = forward


def _shorter(module: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    name = type(module).__name__
    if (norm := tried(_row_norm, module)) is not None:
        return norm
    if type(module) is nn.Dropout:
        return _same  # a stage never trains
    if type(module) is nn.Linear and (counts := _onednns_counts(module.weight)):
        return partial(_linear, module.weight, module.bias, counts)
    if name == "Conv1D" and not module.weight.is_meta:
        counts = _onednns_counts(module.weight.t())
        return partial(_row_or_rows, module.weight, module.bias, counts) if counts else partial(_conv1d, module.weight, module.bias)
    if name == "NewGELUActivation":
        return partial(gelu, approximate="tanh")
    return None


def _onednns_counts(weight: torch.Tensor) -> range:
    """For how many rows oneDNN is the faster one with a filled weight [out, in]."""
    if not _has_onednn() or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return range(0)
    fewest, most = (FEWEST_ROWS, MOST_ROWS) if weight.is_contiguous() else (MOST_ROWS + 1, MOST_ROWS_ALONG)
    enough = -(-LEAST_WORK // weight.numel())
    if enough < fewest and enough <= most and leaves_threads_idle(torch.get_num_threads()):
        fewest = enough
    return range(fewest, most + 1)


def _has_onednn() -> bool:
    """On a machine where its products were found to be faster."""
    return platform.machine() in ("x86_64", "AMD64") and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def leaves_threads_idle(num_threads: int) -> bool:
    """Whether torch computes a product of one row in the calling thread alone; tried once in a process.

    oneDNN with all threads takes less time then. That time is not asked for: whoever else uses the machine changes it, and all processes
    of a machine should decide alike. CPU time says the same on a busy machine.
    """
    if num_threads == 1:
        return False
    weight, row = torch.ones(_TRIED).t(), torch.ones(1, 1, _TRIED[0])
    linear(row, weight)  # meanwhile threads that filled the weight stop waiting for more
    before_s = time.thread_time(), time.process_time()
    for _ in range(_NUM_TRIALS):
        linear(row, weight)
    thread_s, process_s = time.thread_time() - before_s[0], time.process_time() - before_s[1]
    return process_s < 1.5 * thread_s
