"""What is done with the conversations of the Prompt screen: sending, stopping, scrolling, choosing, copying, editing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.data.errors import InvalidInput, NoodleError, Refused, Unavailable
from noodle_tui.background import begin
from noodle_tui.core.messages import (
    AnswerScrolled,
    ConversationBegun,
    ConversationChosen,
    EntryChanged,
    PromptRefused,
    PromptSent,
    Said,
    SessionEnded,
    SystemChanged,
)
from noodle_tui.core.pages import Page
from noodle_tui.core.talk import request_for
from noodle_tui.screens.prompt import furthest_back
from noodle_tui.state import LinkState
from noodle_tui.widgets.prompt_field import PromptField
from noodle_tui.widgets.transcript import NO_TEMPLATE

if TYPE_CHECKING:
    from textual.worker import Worker

    from noodle_tui.app import ConsoleApp

MAX_CLIPBOARD_BYTES = 74_994  # as base64 they make the 100,000 bytes of OSC 52 that xterm and those after it take


class Talking:
    """Belongs to one app."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app
        self._answer: Worker[None] | None = None

    def write(self) -> None:
        """Open the screen with the cursor in its field."""
        self._app.effects.open_page(Page.PROMPT)
        self._app.main.write()

    def enter(self) -> None:
        """Enter: outside the fields into the prompt, from a setting back to it, in it send."""
        main = self._app.main
        if not isinstance(main.field, PromptField):
            main.write()
        elif main.field.value.strip():
            self._send_field()

    def _send_field(self) -> None:
        """Send what stands in the field; a refusal is said and loses nothing."""
        field = self._app.main.prompt
        try:
            self._send(field.value)
        except NoodleError as problem:
            self._app.dispatch(PromptRefused(str(problem)))
        else:
            field.take()
        self._app.paint_soon()

    def _send(self, prompt: str) -> None:
        """Start an answer; raises Refused or Unavailable with the reason when it cannot start, InvalidInput for a wrong setting."""
        state = self._app.state
        max_new_tokens, sampling = self._app.main.settings()
        if state.generation.running:
            raise Refused(state.named("one answer at a time: {nav.out} stops the running one"))
        if state.replay is not None:
            raise Refused("this is a replay: there is no cluster to answer")
        if state.link.state not in (LinkState.LIVE, LinkState.STALE):
            raise Unavailable("not connected to a coordinator yet: the prompt stays in its field")
        request, without_template = request_for(state.talk, prompt, max_new_tokens, sampling)
        number = state.generation.number + 1
        self._app.dispatch(PromptSent(number, prompt, max_new_tokens, sampling.temperature or 0.0, sampling.seed or 0))
        self._answer = begin(self._app, self._app.link.generate, number, request, without_template, group="answer")

    def stop(self) -> bool:
        """Cancel a running answer; False when there is none."""
        if not self._app.state.generation.running or self._answer is None:
            return False
        self._answer.cancel()
        self._app.dispatch(SessionEnded(self._app.state.generation.number, cancelled=True))
        return True

    def scroll(self, pages: int) -> None:
        """Back towards the beginning, or with a negative number towards the end; half a screen each."""
        canvas = self._app.main.body_canvas(self._app.state, 0.0)
        self._app.dispatch(AnswerScrolled(pages * max(1, canvas.height // 2)))
        excess = self._app.state.talk.scroll - furthest_back(self._app.state, canvas)
        self._app.dispatch(AnswerScrolled(-max(0, excess)))

    # --- conversations ----------------------------------------------------------------------------------------------
    def begin_new(self) -> None:
        """Those before are kept."""
        self._app.dispatch(ConversationBegun())
        self.write()

    def choose(self, argument: str) -> None:
        """Raises InvalidInput for a number that none of them has."""
        known = len(self._app.state.talk.conversations)
        if not argument.isdecimal() or not 1 <= int(argument) <= known:
            raise InvalidInput(f"conversation {argument[:20]!r}: there {'is' if known == 1 else 'are'} 1 to {known}; `new` begins another")
        self._app.dispatch(ConversationChosen(int(argument) - 1))
        self.write()

    def step(self, direction: int) -> None:
        """To the conversation before or after."""
        self._app.dispatch(ConversationChosen(self._app.state.talk.index + direction))

    def system(self, argument: str) -> None:
        """With a text sets what the model is told first, with - takes it away, alone says it."""
        if argument:
            self._app.dispatch(SystemChanged("" if argument == "-" else argument))
        said, talk = self._app.state.talk.current.system, self._app.state.talk
        note = f", but {NO_TEMPLATE}" if said and talk.has_template is False else ""
        self._app.dispatch(Said(f"system: {said}{note}" if said else "the system says nothing: `system TEXT` is told to the model first"))

    # --- text, in and out -------------------------------------------------------------------------------------------
    def copy(self) -> None:
        """To the clipboard of the terminal, where it takes OSC 52; as it came, and not as it is drawn."""
        text = self._app.state.talk.current.newest.exact
        if not text:
            self._app.dispatch(Said("there is no answer to copy yet", is_error=True))
            return
        taken = text.encode("utf-8", "replace")[:MAX_CLIPBOARD_BYTES].decode("utf-8", "ignore")
        self._app.copy_to_clipboard(taken)
        part = "" if taken == text else f"the first {len(taken):,} of "
        limit = "" if taken == text else f"; it takes {MAX_CLIPBOARD_BYTES:,} bytes, `export json` writes all to a file"
        self._app.dispatch(Said(f"{part}{len(text):,} characters offered to the terminal's clipboard{limit}"))

    def edit(self, argument: str) -> None:
        """The prompt, or what the system says, in $EDITOR; raises InvalidInput, Refused or what writing a file raises."""
        from noodle_tui.terminal.editor import edited  # not for those who never ask

        if argument not in ("", "system"):
            raise InvalidInput(f"edit {argument[:20]!r}: `edit` alone writes the prompt, `edit system` what the system says")
        prompt, system = self._app.main.prompt, self._app.state.talk.current.system
        text = edited(self._app, system if argument else prompt.value)
        if argument:
            self._app.dispatch(SystemChanged(text.strip()))
        else:
            self.write()
            prompt.fill(text)

    def save(self) -> None:
        """The answer, into a new file."""
        self._app.dispatch(EntryChanged(None))
        self._app.effects.run("export jsonl")
