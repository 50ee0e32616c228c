"""In which dtype a model is stored and computed, what another would save, and which identity its answers have.

What the grades promise, and how that was tested, is in engine/model/README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

INT8 = "int8"
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, INT8: 1}  # those that a stage computes in, with the bytes of one number
AUTO = "auto"
DTYPE_CHOICES = (AUTO, *DTYPE_BYTES)
KV_SCALE_BYTES = 4  # what a head's 8-bit key or value of one token has beside its numbers
_FACTOR_WORDS = {2: "halves", 4: "quarters"}


class Identity(StrEnum):
    """How far the answers of a cluster are those of one process that generates alone."""

    UNKNOWN = ""  # nothing is planned yet
    SAME_TOKENS = "1"
    EXACT = "1b"
    WITHIN_TOLERANCE = "2"

    @classmethod
    def _missing_(cls, value: object) -> Identity:
        return cls.UNKNOWN  # a grade of a later version

    @property
    def sentence(self) -> str:
        """What an operator may rely on; empty while it is not known."""
        return _SENTENCES[self]


_SENTENCES = {
    Identity.UNKNOWN: "",
    Identity.SAME_TOKENS: "greedy answers have the tokens of a single process, on any plan, but for ties within rounding",
    Identity.EXACT: "the same tokens alone, in any company, on any plan and after any loss, in 8 bits",
    Identity.WITHIN_TOLERANCE: "logits agree within a tolerance; the plan, company or a loss may change tokens",
}


def identity(
    dtype: str, device_types: Iterable[str], arithmetics: Iterable[str] = (), *, is_exact: bool = True, kv_dtype: str = ""
) -> Identity:
    """The grade of a cluster that computes in `dtype` on these kinds of devices and keeps KV in `kv_dtype`, or as it computes.

    `arithmetics` are what the last bits depend on, and `is_exact` whether the model's own parts allow the same bits in any company:
    both matter to int8 alone. There KV may be rounded further: the same numbers are rounded alike. In float32 it may not, for a
    single process does not do it.
    """
    kinds = set(device_types)
    if not dtype or not kinds:
        return Identity.UNKNOWN
    if dtype == INT8:
        return Identity.EXACT if is_exact and kinds == {"cpu"} and len(set(arithmetics)) == 1 else Identity.WITHIN_TOLERANCE
    is_plain = dtype == "float32" == (kv_dtype or dtype)
    return Identity.SAME_TOKENS if is_plain and len(kinds) == 1 else Identity.WITHIN_TOLERANCE


def float_dtype(dtype: str) -> str:
    """What everything is in that is no product of weights: hidden states, attention, and KV if nothing else is said."""
    return "float32" if dtype == INT8 else dtype


def kept_dtype(kv_dtype: str, dtype: str) -> str:
    """What KV is kept in; nothing, or `auto`, follows what is computed in."""
    return float_dtype(dtype) if kv_dtype in ("", AUTO) else kv_dtype


def kv_bytes(num_elements: int, num_heads: int, kv_dtype: str) -> int:
    """Bytes of one token's keys and values in one layer; `num_heads` counts those of the keys and those of the values."""
    return num_elements * DTYPE_BYTES[kv_dtype] + (num_heads * KV_SCALE_BYTES if kv_dtype == INT8 else 0)


def offered_to_auto(stored_dtype: str) -> tuple[str, ...]:
    """The dtypes that `auto` chooses from."""
    return ("float32", "bfloat16", *(("float16",) if stored_dtype == "float16" else ()))


def automatic_dtype(
    stored_dtype: str, device_types: Collection[str], computes: Callable[[str], bool], fits: Callable[[str], bool]
) -> tuple[str, str]:
    """The dtype that `auto` stands for on these kinds of devices, and why.

    `computes` says whether all of them compute in a dtype, `fits` whether their memory holds the weights in it. int8 is never
    chosen, for it changes answers by more than rounding.
    """
    only_cpus, smaller = set(device_types) <= {"cpu"}, stored_dtype if stored_dtype in ("bfloat16", "float16") else "bfloat16"
    if only_cpus and fits("float32"):
        return "float32", "its weights fit into the memory of these CPUs"
    if only_cpus:
        return ("bfloat16", "float32 does not fit") if computes("bfloat16") else ("float32", "a worker does not compute in bfloat16")
    if stored_dtype == "float32" and fits("float32"):
        return "float32", "it is stored so"
    if computes(smaller):
        return smaller, "it is stored so" if smaller == stored_dtype else f"it is stored as {stored_dtype or 'nothing'}"
    return "float32", f"a worker does not compute in {smaller}"


@dataclass(frozen=True, slots=True)
class MemoryChoice:
    """What a dtype costs: the weights of the whole model if it computes in it, and each token of KV if that is kept in it."""

    dtype: str
    weight_bytes: int
    kv_bytes_per_token: int


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtypes of a model, by their torch names; empty where it is not known."""

    stored_dtype: str = ""  # of most bytes of the stored weights
    computed_dtype: str = ""
    weight_bytes: int = 0  # of the whole model in the computed dtype
    kv_dtype: str = ""
    kv_bytes_per_token: int = 0  # of all layers
    choices: tuple[MemoryChoice, ...] = ()

    @property
    def smaller_dtype(self) -> str:
        """The dtype that would keep the weights in fewer bytes, the stored one if it does; empty if none would."""
        used = DTYPE_BYTES.get(self.computed_dtype, 0)
        offered = (self.stored_dtype, "bfloat16")
        return next((dtype for dtype in offered if DTYPE_BYTES.get(dtype, used) < used), "")

    @property
    def sentence(self) -> str:
        """Such as "stored as bfloat16, computed as float32: `--dtype bfloat16` halves 29.0 GB"; empty if nothing is known."""
        if not self.computed_dtype:
            return ""
        kept = f"computed as {self.computed_dtype}"
        if self.stored_dtype:
            kept = f"stored and {kept}" if self.stored_dtype == self.computed_dtype else f"stored as {self.stored_dtype}, {kept}"
        if self.kv_dtype not in ("", float_dtype(self.computed_dtype)):
            kept += f", KV kept in {self.kv_dtype}"
        return f"{kept}: {self._offer}" if self.smaller_dtype else kept

    @property
    def memory_sentence(self) -> str:
        """What weights and KV take in each dtype; empty if it is not known."""
        if not self.choices:
            return ""
        weights = ", ".join(f"{_decimal_size(c.weight_bytes)} in {c.dtype}" for c in self.choices)
        kv = ", ".join(f"{_decimal_size(1000 * c.kv_bytes_per_token)} in {c.dtype}" for c in self.choices)
        return f"weights {weights} (--dtype); KV of 1,000 tokens {kv} (--kv-dtype)"

    @property
    def _offer(self) -> str:
        factor = DTYPE_BYTES[self.computed_dtype] // DTYPE_BYTES[self.smaller_dtype]
        return f"`--dtype {self.smaller_dtype}` {_FACTOR_WORDS[factor]} {_decimal_size(self.weight_bytes)}"


def _decimal_size(num_bytes: int) -> str:
    """Weights as model cards give them, in powers of ten."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
