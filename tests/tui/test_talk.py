"""Conversations: what is sent for a turn, what is kept of an answer, what a model without a chat template changes, what is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot

from engine.data.errors import NotSupported, Refused
from engine.data.generation import FinishReason, PromptMode, TokenChunk, Used
from engine.data.sampling import Sampling, SamplingRequest
from engine.service.coordinator.text.chat.templates import ChatTemplates
from noodle_tui.app import ConsoleApp
from noodle_tui.changes.reducer import reduce
from noodle_tui.cluster.link import NO_TEMPLATE, Link
from noodle_tui.core import messages as m
from noodle_tui.core.generation import AnswerState
from noodle_tui.core.pages import Page
from noodle_tui.core.talk import request_for
from noodle_tui.glyphs import ASCII
from noodle_tui.options import Options
from noodle_tui.screens.prompt import furthest_back, prompt_body
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import Canvas
from noodle_tui.widgets.transcript import NO_TEMPLATE as SAID
from tests.tui import frames
from tests.tui.harness import finished, link_of, live, run, shown
from tests.tui.scenes import page

ASKED = SamplingRequest(temperature=0.0, seed=0)


def used(template: str) -> Used:
    return Used(Sampling(temperature=0.3, top_p=0.9, seed=4), template)


def turn(number: int, prompt: str, *texts: str, template: str | None = "default", end: m.SessionEnded | None = None) -> Iterator[m.Message]:
    """A prompt, the pieces of its answer, and its end."""
    yield m.PromptSent(number, prompt, 64, 0.0, 0)
    for i, text in enumerate(texts):
        told = used(template) if i == 0 and template is not None else None
        yield m.TokenArrived(number, frames.chunk(i, text, used=told))
    if end is None:
        yield m.TokenArrived(number, frames.chunk(-1, "", finish_reason=FinishReason.STOP))
    yield end or m.SessionEnded(number)


def after(*messages: m.Message, state: ConsoleState | None = None) -> ConsoleState:
    state = state or ConsoleState()
    for i, message in enumerate(messages):
        state = reduce(state, message, 1.0 + i / 10)
    return state


def sent(state: ConsoleState, prompt: str) -> list[tuple[str, str]] | str:
    """The messages that would go out as (role, content), or the prompt that goes alone."""
    request, _ = request_for(state.talk, prompt, 64, ASKED)
    if not request.messages:
        assert request.mode is PromptMode.AUTO
        return str(request.prompt)
    return [(message["role"], message["content"]) for message in json.loads(request.messages)]


def test_the_first_turn_is_a_prompt_and_the_next_ones_bring_the_whole_conversation() -> None:
    state = after(*turn(1, "who?", " Ada", " L."))
    assert sent(ConsoleState(), "who?") == "who?"
    assert sent(state, "when?") == [("user", "who?"), ("assistant", " Ada L."), ("user", "when?")]
    request, without_template = request_for(state.talk, "when?", 64, ASKED)
    assert without_template is None and (request.max_new_tokens, request.sampling) == (64, ASKED)


def test_what_came_before_a_stop_is_kept_and_a_turn_without_an_answer_is_not() -> None:
    state = after(*turn(1, "a", "half", end=m.SessionEnded(1, cancelled=True)), *turn(2, "b", end=m.SessionEnded(2, "lost")))
    assert sent(state, "c") == [("user", "a"), ("assistant", "half"), ("user", "c")]
    assert [known.prompt for known in state.talk.current.turns] == ["a", "b"], "it is still to be read"


def test_the_model_gets_back_exactly_what_it_wrote() -> None:
    state = after(*turn(1, "a\n\tb", "if x:\n", "\treturn \x07\u200b"))
    assert sent(state, "c")[1] == ("assistant", "if x:\n\treturn \x07\u200b")
    assert state.generation.text == "if x:\n return ?", "and the screen what is safe to draw"


def test_without_a_template_every_prompt_goes_alone() -> None:
    state = after(*turn(1, "a", "b", template=""))
    assert state.talk.has_template is False and sent(state, "c") == "c"


def test_as_long_as_nothing_was_told_of_a_template_the_prompt_stands_by() -> None:
    state = after(*turn(1, "a", "b", template=None))
    request, without_template = request_for(state.talk, "c", 9, ASKED)
    assert request.messages and without_template is not None
    assert (without_template.prompt, without_template.max_new_tokens, without_template.mode) == ("c", 9, PromptMode.AUTO)


def test_a_late_token_of_another_turn_changes_nothing() -> None:
    state = after(*turn(1, "a", "b"), *list(turn(2, "c", "d"))[:2])
    assert after(m.TokenArrived(1, frames.chunk(5, "late")), state=state).talk == state.talk
    assert state.generation.number == 2 and state.talk.current.turns[0].state is AnswerState.ENDED


def test_sampling_is_what_the_coordinator_made_of_it() -> None:
    answer = after(*turn(1, "a", "b")).generation
    assert (answer.temperature, answer.top_p, answer.seed) == (0.3, 0.9, 4)


def test_at_another_cluster_the_conversation_goes_on_and_its_sessions_are_unknown() -> None:
    talk = after(*turn(1, "a", "b")).talk
    assert talk.newest.session_id and talk.has_template
    moved = talk.elsewhere()
    assert moved.newest.session_id == "" and moved.has_template is None
    assert request_for(moved, "c", 9, ASKED)[1] is not None


# --- the link -----------------------------------------------------------------------------------------------------------
class Refusing:
    """A client whose model has no template."""

    def __init__(self, problem: Exception) -> None:
        self.problem = problem
        self.asked: list[str] = []

    async def generate(self, request: object) -> AsyncIterator[TokenChunk]:
        self.asked.append(str(getattr(request, "messages", "") or getattr(request, "prompt", "")))
        if getattr(request, "messages", ""):
            raise self.problem
        yield TokenChunk("s-1", 0, 7, "x", used=used(""))


def test_the_coordinators_sentence_is_known_here(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match=NO_TEMPLATE):
        ChatTemplates(tmp_path).write([{"role": "user", "content": "a"}], None, {}, True, 100)


@pytest.mark.parametrize(("sentence", "num_asked"), [(f"the model has {NO_TEMPLATE}: send a prompt", 2), ("no worker is there", 1)])
def test_a_conversation_that_no_template_can_write_is_sent_as_its_last_prompt(sentence: str, num_asked: int) -> None:
    posted: list[m.Message] = []
    link, client = Link(Options(connect="127.0.0.1:1"), posted.append), Refusing(Refused(sentence))
    link._client = client  # type: ignore[assignment]
    state = after(*turn(1, "a", "b", template=None))
    whole, alone = request_for(state.talk, "c", 9, ASKED)
    asyncio.run(link.generate(2, whole, alone))
    assert client.asked == [whole.messages, "c"][:num_asked]
    told = after(m.PromptSent(2, "c", 9, 0.0, 0), *posted, state=state)
    assert (told.talk.has_template is False) is (num_asked == 2)
    assert told.generation.error == ("" if num_asked == 2 else sentence) or "finish reason" in told.generation.error


# --- the screen ---------------------------------------------------------------------------------------------------------
def rows(state: ConsoleState, width: int = 80, height: int = 18) -> list[str]:
    return ["".join(span.text for span in row) for row in prompt_body(state, Canvas(width, height, ASCII, 100.0))]


def test_turns_stand_below_each_other_with_what_the_earlier_ones_cost() -> None:
    text = rows(after(*turn(1, "who?", " Ada"), *turn(2, "when?\nexactly", " 1815"), state=page(Page.PROMPT)))
    at = text.index(" > who?")
    assert text[at + 1] == " Ada" and text[at + 2].startswith("   (1/64 tok") and text[at + 2].endswith("stop)") and text[at + 3] == ""
    assert text[at + 4 : at + 7] == [" > when?", "   exactly", " 1815"]
    assert text[0].startswith(" ANSWER  finished: stop  1/64 tok")


def test_a_model_without_a_template_is_said_on_the_screen() -> None:
    assert any(SAID[:60] in row for row in rows(after(*turn(1, "a", "b", template=""), state=page(Page.PROMPT))))
    assert not any(SAID[:60] in row for row in rows(after(*turn(1, "a", "b"), state=page(Page.PROMPT))))


def test_a_book_as_a_prompt_is_shown_by_its_beginning() -> None:
    text = rows(after(*turn(1, "x" * 50_000, "short"), state=page(Page.PROMPT)), height=30)
    assert "   ... 50,000 characters in all" in text and text[-1] == " short"


@pytest.mark.parametrize("height", [7, 18, 30])
def test_every_row_of_a_long_conversation_can_be_reached(height: int) -> None:
    turns = [message for i in range(1, 20) for message in turn(i, f"question {i}", *[f" word{i}"] * 40)]
    state = after(*turns, state=page(Page.PROMPT))
    seen: set[str] = set()
    for scroll in range(furthest_back(state, Canvas(80, height, ASCII, 100.0)) + 1):
        seen |= set(rows(after(m.AnswerScrolled(scroll), state=state), 80, height))
    assert {f" > question {i}" for i in range(1, 20)} <= seen


def test_a_second_question_sends_the_first_with_it_and_pageup_shows_it_again() -> None:
    async def test(app: ConsoleApp, pilot: Pilot[None]) -> None:
        await live(app, pilot)
        await pilot.press("8", *"who", "enter")
        for message in list(turn(1, "who", "\n".join(f"row{i}" for i in range(40))))[1:]:
            app.dispatch(message)
        await finished(app, pilot)
        await pilot.press(*"when", "enter")
        said = json.loads(link_of(app).requests[1].messages)
        assert [message["content"][:4] for message in said] == ["who", "row0", "when"]
        app.paint()
        await pilot.pause()
        assert " > when" in shown(app) and " > who" not in shown(app)
        await pilot.press("pageup", "pageup", "pageup", "pageup", "pageup", "pageup", "pageup", "pageup")
        await pilot.pause()
        assert " > who" in shown(app) and " > when" not in shown(app)
        await pilot.press(*["pagedown"] * 8)
        await pilot.pause()
        assert " > when" in shown(app)

    run(test)
