"""Conversations with the model: what was said in each, which one is shown, and what is sent for the next turn. Pure.

A turn is a `Generation`: the prompt, its answer and what that cost. Only one answer runs at a time, in whichever conversation it was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.data.generation import GenerateRequest, PromptMode
from engine.data.sampling import SamplingRequest
from noodle_tui.core.generation import Generation

MAX_CONVERSATIONS = 100  # the oldest one goes
_NOTHING = Generation()


@dataclass(frozen=True, slots=True)
class Conversation:
    """`system` is what the model is told before the first turn; empty: nothing."""

    number: int = 1
    system: str = ""
    turns: tuple[Generation, ...] = ()

    @property
    def newest(self) -> Generation:
        """The last turn; idle if there is none yet."""
        return self.turns[-1] if self.turns else _NOTHING

    def messages(self, prompt: str) -> list[dict[str, str]]:
        """For the chat template, `prompt` last. A turn that nothing was answered to is left out."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for turn in (turn for turn in self.turns if turn.exact):
            found += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.exact}]
        return [*found, {"role": "user", "content": prompt}]


@dataclass(frozen=True, slots=True)
class Talk:
    """All conversations of this console; never none."""

    conversations: tuple[Conversation, ...] = (Conversation(),)
    index: int = 0  # of the one that is shown
    scroll: int = 0  # rows back from its end
    has_template: bool | None = None  # whether the model has a chat template; None until an answer told

    @property
    def current(self) -> Conversation:
        return self.conversations[self.index]

    @property
    def newest(self) -> Generation:
        """What was asked last, in whichever conversation."""
        return max((conversation.newest for conversation in self.conversations), key=lambda turn: turn.number)

    def elsewhere(self) -> Talk:
        """At another cluster: what was said can be gone on with, its sessions are unknown there, and the model may be another."""
        moved = (replace(known, turns=tuple(replace(turn, session_id="") for turn in known.turns)) for known in self.conversations)
        return replace(self, conversations=tuple(moved), has_template=None)

    def with_current(self, conversation: Conversation) -> Talk:
        """Another value in the place of the one that is shown."""
        at = self.index
        return replace(self, conversations=(*self.conversations[:at], conversation, *self.conversations[at + 1 :]))

    def begun(self) -> Talk:
        """A new conversation is shown, with what the model is told in this one; one that nothing was said in is new already."""
        if not self.current.turns:
            return self
        new = Conversation(max(known.number for known in self.conversations) + 1, self.current.system)
        kept = self.conversations[-MAX_CONVERSATIONS + 1 :]
        return replace(self, conversations=(*kept, new), index=len(kept), scroll=0)

    def chosen(self, index: int) -> Talk:
        """Another one is shown; the first and the last are the furthest."""
        return replace(self, index=max(0, min(index, len(self.conversations) - 1)), scroll=0)

    def asked(self, turn: Generation) -> Talk:
        """One more turn."""
        return replace(self.with_current(replace(self.current, turns=(*self.current.turns, turn))), scroll=0)

    def changed(self, number: int, change: Callable[[Generation], Generation]) -> Talk:
        """The turn of this number, which is the newest of its conversation, is what `change` makes of it."""
        return replace(self, conversations=tuple(_changed(known, number, change) for known in self.conversations))


def _changed(known: Conversation, number: int, change: Callable[[Generation], Generation]) -> Conversation:
    if not known.turns or known.newest.number != number:
        return known
    return replace(known, turns=(*known.turns[:-1], change(known.newest)))


def request_for(talk: Talk, prompt: str, max_new_tokens: int, sampling: SamplingRequest) -> tuple[GenerateRequest, GenerateRequest | None]:
    """What is sent for the next turn, and what if the model turns out to have no chat template.

    A conversation goes whole. Its first turn is a prompt in mode auto: the coordinator knows whether there is a template. Without one
    every prompt goes alone. Raises InvalidInput.
    """
    alone = GenerateRequest(prompt, max_new_tokens=max_new_tokens, sampling=sampling, mode=PromptMode.AUTO)
    messages = talk.current.messages(prompt)
    if talk.has_template is False or len(messages) == 1:
        return alone, None
    from engine.data.json_text import json_text  # not for the first paint

    whole = GenerateRequest(messages=json_text(messages), max_new_tokens=max_new_tokens, sampling=sampling)
    return whole, alone if talk.has_template is None else None
