"""In which dtype a model is stored and computed, what another would save, and which identity its answers have.

What the grades promise, and how that was tested, is in engine/model/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

INT8 = "int8"
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, INT8: 1}  # those that a stage computes in, with the bytes of one number
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


def identity(dtype: str, device_types: Iterable[str], arithmetics: Iterable[str] = (), *, is_exact: bool = True) -> Identity:
    """The grade of a cluster that computes in `dtype` on these kinds of devices.

    `arithmetics` are what the last bits depend on, and `is_exact` whether the model's own parts allow the same bits in any company:
    both matter to int8 alone.
    """
    kinds = set(device_types)
    if not dtype or not kinds:
        return Identity.UNKNOWN
    if dtype == INT8:
        return Identity.EXACT if is_exact and kinds == {"cpu"} and len(set(arithmetics)) == 1 else Identity.WITHIN_TOLERANCE
    return Identity.SAME_TOKENS if dtype == "float32" and len(kinds) == 1 else Identity.WITHIN_TOLERANCE


@dataclass(frozen=True, slots=True)
class Precision:
    """The dtypes of a model, by their torch names; empty where it is not known."""

    stored_dtype: str = ""  # of most bytes of the stored weights
    computed_dtype: str = ""
    weight_bytes: int = 0  # of the whole model in the computed dtype

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
        return f"{kept}: {self._offer}" if self.smaller_dtype else kept

    @property
    def _offer(self) -> str:
        factor = DTYPE_BYTES[self.computed_dtype] // DTYPE_BYTES[self.smaller_dtype]
        return f"`--dtype {self.smaller_dtype}` {_FACTOR_WORDS[factor]} {_decimal_size(self.weight_bytes)}"


def _decimal_size(num_bytes: int) -> str:
    """Weights as model cards give them, in powers of ten."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
