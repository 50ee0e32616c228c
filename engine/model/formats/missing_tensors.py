"""Why a folder lacks tensors of the model that its config.json describes, told by the names of those it has. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

# What wrapped a model while it was trained or compiled, and stayed in the names of its tensors.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_LEADING = ("module.", "base_model.model.")
# What the names of other tensors tell, and how it is said.
_SIGNS = (
    (re.compile(r"\.lora_(A|B|embedding)|\.(ia3|oft|hada|lokr)_"), "PEFT"),
    (re.compile(r"\.(qweight|qzeros|g_idx)$"), "GPTQ or AWQ"),
    (re.compile(r"\.(absmax|quant_map|quant_state\..*|SCB)$"), "bitsandbytes"),
    (re.compile(r"\.weight_(packed|shape|scale|zero_point)$"), "compressed-tensors"),
    (re.compile(r"\.(scales|biases)$"), "MLX"),
)
_SCORES = re.compile(r"(^|\.)(score|classifier|classification_head|qa_outputs|v_head|value_head|reward_head)\.")


def unwrapped(name: str) -> str:
    """The tensor's name without what torch.compile, FSDP, DDP, activation checkpoints or PEFT put into it."""
    name = _WRAPPERS.sub("", name)
    for prefix in _LEADING:
        name = name.removeprefix(prefix)
    return name


def explain(missing: Sequence[str], num_wanted: int, stored: Collection[str], head: Collection[str]) -> str:
    """One sentence on the model's `missing` tensors; `stored` are the folder's, `head` the model's names of its output table."""
    shown = ", ".join(repr(name[:100]) for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
    lack = f"it lacks {len(missing)} of the model's {num_wanted} tensors ({shown})"
    method = next((method for pattern, method in _SIGNS if any(map(pattern.search, stored))), "")
    if method == "PEFT":
        return f"{lack}, and has those of a PEFT adapter: load both with peft, call merge_and_unload() and save_pretrained()"
    if method:
        return f"{lack}, and has tensors quantised with {method}, which is not read: use the model without it"
    if set(missing) <= set(head):
        what = "a head that scores or classifies text instead" if any(map(_SCORES.search, stored)) else "no language-model head"
        return f"{lack}: it has {what}, so it cannot continue a text; use the model that generates"
    if len(missing) == num_wanted:
        example = f", only others such as {min(stored)[:100]!r}" if stored else ""
        return f"it holds none of the model's {num_wanted} tensors{example}: config.json and weights are not of one model; fetch both again"
    return f"{lack}: it is incomplete, or config.json describes another model; fetch it again"
