"""How a token is picked: what a request says of it, what the model's makers recommend, and what follows from both.

A `SamplingRequest` leaves open what it does not say. `resolved` fills that from the model's own recommendation, and what neither says
from the defaults of `Sampling`, which are greedy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from engine.data.errors import InvalidInput, require_range

MAX_BIASES = 1024
MAX_STOP_IDS = 64
MAX_TOP_LOGPROBS = 20
MAX_TOKEN_ID = 2**31 - 1
LEAST_BIAS, MOST_BIAS = -100.0, 100.0
LEAST_PENALTY, MOST_PENALTY = -2.0, 2.0
LEAST_LOGPROB = -9999.0  # stands for all that is less, minus infinity too
_LIMITS = {  # lowest, highest, and the way out
    "temperature": (0.0, 100.0, "0 means greedy"),
    "top_k": (0, MAX_TOKEN_ID, "0 turns it off"),
    "top_p": (1e-6, 1.0, "1 turns it off"),
    "min_p": (0.0, 1.0, "0 turns it off"),
    "repetition_penalty": (1e-3, 100.0, "1 turns it off"),
    "presence_penalty": (LEAST_PENALTY, MOST_PENALTY, "0 turns it off"),
    "frequency_penalty": (LEAST_PENALTY, MOST_PENALTY, "0 turns it off"),
    "min_tokens": (0, 1_000_000, "0 turns it off"),
    "seed": (0, 2**63 - 1, "any whole number in that range"),
    "top_logprobs": (0, MAX_TOP_LOGPROBS, "how many alternatives to report for each token"),
}
RECOMMENDED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # what a generation_config.json may say
_WHOLE = {"top_k", "min_tokens", "seed", "top_logprobs"}


@dataclass(frozen=True, slots=True)
class LogitBias:
    """What is added to the logit of one token before anything else happens to it; -100 bans it, 100 forces it."""

    token_id: int
    bias: float

    def __post_init__(self) -> None:
        require_range("logit_bias: token id", self.token_id, 0, MAX_TOKEN_ID, "a token of the vocabulary")
        require_range(f"logit_bias of token {self.token_id}:", self.bias, LEAST_BIAS, MOST_BIAS, "0 changes nothing")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the last stage picks a token, every setting decided. `temperature == 0` is greedy; the other defaults are off.

    The order in which they act is that of `engine.model.running.sampling`.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0  # of what the prompt and the answer hold already
    seed: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0  # of what the answer holds already, once
    frequency_penalty: float = 0.0  # the same, for each time
    logit_bias: tuple[LogitBias, ...] = ()
    min_tokens: int = 0  # so many tokens come before one of `stop_token_ids` may
    stop_token_ids: tuple[int, ...] = ()  # each ends the answer, and is its last token
    logprobs: bool = False  # report the logarithm of each chosen token's probability
    top_logprobs: int = 0  # and of so many of the likeliest

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """What a request says of it; None is left to the model and to the defaults of `Sampling`."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: tuple[LogitBias, ...] = ()
    min_tokens: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    logprobs: bool | None = None
    top_logprobs: int | None = None

    def __post_init__(self) -> None:
        _check(self)

    def said(self) -> dict[str, Any]:
        """What it does not leave open, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None and value != ()}


def _fits(name: str, value: Any) -> bool:
    low, high, _ = _LIMITS[name]
    return bool(low <= value <= high)


def _check(sampling: Sampling | SamplingRequest) -> None:
    """Raise InvalidInput for the first value that cannot be."""
    for name, (low, high, hint) in _LIMITS.items():
        if (value := getattr(sampling, name)) is not None:
            require_range(name, value, low, high, hint)
    check_counts(len(sampling.logit_bias), len(sampling.stop_token_ids))
    for token_id in sampling.stop_token_ids:
        require_range("stop_token_ids: token id", token_id, 0, MAX_TOKEN_ID, "a token of the vocabulary")
    if twice := [i for i, count in Counter(entry.token_id for entry in sampling.logit_bias).items() if count > 1]:
        raise InvalidInput(f"logit_bias names token {twice[0]} more than once: give it one bias")
    if sampling.top_logprobs and not sampling.logprobs:
        raise InvalidInput(f"top_logprobs {sampling.top_logprobs} is not allowed without logprobs: ask for logprobs too, or leave it out")


def check_counts(num_biases: int, num_stop_ids: int) -> None:
    """Raise InvalidInput for more than are allowed, before anything is made of them."""
    if num_biases > MAX_BIASES:
        raise InvalidInput(f"logit_bias has {num_biases} entries, the limit is {MAX_BIASES}: name fewer tokens")
    if num_stop_ids > MAX_STOP_IDS:
        raise InvalidInput(f"stop_token_ids has {num_stop_ids} ids, the limit is {MAX_STOP_IDS}: name fewer")


GREEDY = Sampling()


def resolved(asked: SamplingRequest, model: SamplingRequest, end_token_ids: Iterable[int] = ()) -> tuple[Sampling, tuple[str, ...]]:
    """The sampling of a request to a model, and the names of the settings that are the model's own.

    `end_token_ids` end an answer of this model too, unless they are ignored: they come behind the `stop_token_ids` of the request.
    """
    said, recommended = asked.said(), model.said()
    from_model = tuple(name for name in recommended if name not in said)
    stop = tuple(dict.fromkeys((*asked.stop_token_ids, *end_token_ids)))
    return Sampling(**{**recommended, **said, "stop_token_ids": stop}), from_model


def recommended_sampling(generation_config: Mapping[str, Any]) -> SamplingRequest:
    """What the content of a `generation_config.json` recommends; a value that cannot be is left out.

    As in transformers' `generate()`, nothing is drawn unless it says `do_sample`, and then at temperature 1 if it names none.
    """
    found: dict[str, Any] = {}
    for name in RECOMMENDED:
        value, kinds = generation_config.get(name), (int,) if name in _WHOLE else (int, float)
        if type(value) in kinds and _fits(name, value):
            found[name] = value
    if generation_config.get("do_sample") is True:
        found.setdefault("temperature", 1.0)
    else:
        found.pop("temperature", None)
    return SamplingRequest(**{name: value for name, value in found.items() if value != getattr(GREEDY, name)})
