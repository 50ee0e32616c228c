"""What a model makes of a request: the tokens of its prompt, and how the next ones are picked. It takes time, so call it off the loop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.control.sessions.scheduler import check_length
from engine.data.errors import InvalidInput, NotSupported
from engine.data.generation import GenerateRequest, PromptMode, Used
from engine.data.model import ModelCard
from engine.data.sampling import Sampling, recommended_sampling, resolved
from engine.model.sources.card import generation_config
from engine.service.coordinator.text.chat.conversation import read_kwargs, read_messages, read_tools, user_says
from engine.service.coordinator.text.chat.templates import ChatTemplates, Written
from engine.service.coordinator.text.codec import TextCodec
from engine.service.coordinator.text.grammars import Constraint, Grammars


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request as the model reads it."""

    prompt_ids: tuple[int, ...]
    used: Used
    constraint: Constraint | None = None


class Prompts:
    """Of one model: its tokenizer, its chat templates, and the sampling that its makers recommend."""

    def __init__(self, card: ModelCard, codec: TextCodec) -> None:
        """Raises Corrupt if files of the model's folder are damaged."""
        folder = Path(card.folder)
        self._card, self.codec = card, codec
        self.templates = ChatTemplates(folder)
        self.grammars = Grammars(codec.tokenizer_json(), card.vocab_size, card.eos_token_ids)
        self._recommended = recommended_sampling(generation_config(folder))

    def prepare(self, request: GenerateRequest) -> Prepared:
        """Raises InvalidInput for what the model cannot take, NotSupported for a conversation with a model that has no template."""
        sampling, from_model = self.sampling(request)
        written = self._written(request)
        if written is not None:
            prompt_ids = self.codec.encode(written.text, frames=False)
        else:
            prompt_ids = request.prompt_ids if request.prompt is None else self.codec.encode(request.prompt)
        used = Used(sampling, written.template if written is not None else "", from_model)
        checked = _checked(prompt_ids, self._card)
        return Prepared(checked, used, None if request.grammar is None else self.grammars.constraint(request.grammar))

    def sampling(self, request: GenerateRequest) -> tuple[Sampling, tuple[str, ...]]:
        """With the names of the settings that the model's makers recommend. Raises InvalidInput for ids outside the vocabulary."""
        size = self._card.vocab_size
        for what, token_id in (
            *(("stop_token_ids", i) for i in request.sampling.stop_token_ids),
            *(("logit_bias", entry.token_id) for entry in request.sampling.logit_bias),
        ):
            if token_id >= size:
                raise InvalidInput(f"{what}: token id {token_id} is outside the vocabulary of {size} tokens: use 0 to {size - 1}")
        return resolved(request.sampling, self._recommended, () if request.ignore_eos else self._card.eos_token_ids)

    def _written(self, request: GenerateRequest) -> Written | None:
        """What the chat template writes; None if the prompt goes to the model as it is."""
        if not request.is_chat or (request.mode is PromptMode.AUTO and not request.messages and not self.templates):
            return None
        if not self.templates and request.prompt is not None:
            raise NotSupported("the model has no chat template: send the prompt in mode auto or raw (`generate` without --chat)")
        messages = read_messages(request.messages) if request.prompt is None else user_says(request.prompt)
        tools, further = read_tools(request.tools), read_kwargs(request.chat_template_kwargs)
        most = self.codec.most_characters(self._card.context_tokens)
        return self.templates.write(messages, tools, further, request.add_generation_prompt, most)


def _checked(prompt_ids: tuple[int, ...], card: ModelCard) -> tuple[int, ...]:
    """The tokens of a prompt; raises InvalidInput for those that the model cannot take."""
    if not prompt_ids and card.bos_token_id is not None:
        prompt_ids = (card.bos_token_id,)  # as in generate() without a prompt
    check_length(len(prompt_ids), card.context_tokens)
    if not prompt_ids:
        raise InvalidInput("the prompt has no tokens, and the model no token that begins a text: give at least one token")
    wrong = next((t for t in prompt_ids if not 0 <= t < card.vocab_size), None)
    if wrong is not None:
        raise InvalidInput(f"prompt token id {wrong} is outside the vocabulary of {card.vocab_size} tokens: use 0 to {card.vocab_size - 1}")
    return prompt_ids
