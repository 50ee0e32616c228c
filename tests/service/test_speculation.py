"""Steps that carry guesses: two stages handed good and bad ones, and a cluster that guesses, against decoding one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from engine.commands.cluster.generate import Transcript
from engine.control.moves import Carried
from engine.data.errors import Corrupt, NoodleError, Stale
from engine.data.generation import Segment
from engine.data.model import ModelRef
from engine.data.sampling import LogitBias, Sampling
from engine.folders import cache_folder
from engine.model.sources.card import prepare
from engine.service import wire
from engine.service.errors import from_number
from engine.service.worker.kv_export import export_session
from protos import noodle_pb2 as pb
from tests.service.reference import reference, sampled_reference
from tests.service.running import Running, running
from tests.service.test_stage_runner import MODEL, Stage

PROMPT = (4, 5, 6, 7, 8)
NUM_NEW = 20
DRAWN = Sampling(temperature=0.9, top_p=0.95, seed=11)
SAMPLINGS = {
    "greedy": Sampling(),
    "drawn": DRAWN,
    "penalties": Sampling(temperature=0.7, top_k=40, seed=3, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3),
    "biased": Sampling(temperature=1.1, min_p=0.02, seed=5, logit_bias=(LogitBias(9, 4.0), LogitBias(10, -100.0))),
    "late end": Sampling(temperature=1.0, seed=6, min_tokens=12, stop_token_ids=tuple(range(40))),
    "logprobs": Sampling(logprobs=True, top_logprobs=2),
}
FEW = tuple(LogitBias(token_id, 60.0) for token_id in (65, 66, 67))  # an answer of three tokens repeats itself, but not for long
Guess = Callable[[list[int]], tuple[int, ...]]  # from the tokens that really come next to what is proposed


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Stage, Stage]]:
    num_items = prepare(ModelRef(MODEL, 0), cache_folder()).num_items
    stages = Stage("a", 0, 2), Stage("b", 2, num_items)
    yield stages
    for stage in stages:
        stage.runner.close()


def step(pair: tuple[Stage, Stage], *segments: Segment, plan: int = 3) -> list[pb.SegmentResult]:
    """What the last stage says; each stage gets the step twice, and must say the same twice."""
    message = pb.StepFrame(plan_version=plan, step_id=1, segments=[wire.segment_to_message(s) for s in segments])
    for stage in pair:
        answers = [stage.step(message) for _ in range(2)]
        for answer in answers:
            del answer.timings[:]
        assert answers[0] == answers[1]
        message = answers[0]
        if isinstance(message, pb.StepReport):
            return list(message.results)
    raise AssertionError("no report")


class Session:
    """One session of the pair, as the coordinator knows it."""

    def __init__(self, pair: tuple[Stage, Stage], name: str, sampling: Sampling, prompt: tuple[int, ...] = PROMPT) -> None:
        self.pair, self.name, self.prompt = pair, name, prompt
        first = step(pair, Segment(name, 1, 0, prompt, 0, sampling, len(prompt) + NUM_NEW + 8))
        assert [r.code for r in first] == [0], first
        self.answer, self.results = [first[0].token_id], first
        self.num_steps = 1

    def segment(self, proposed: tuple[int, ...] = ()) -> Segment:
        position = len(self.prompt) + len(self.answer) - 1
        return Segment(self.name, 1, position, (self.answer[-1], *proposed), len(self.answer), num_proposed=len(proposed))

    def take(self, results: list[pb.SegmentResult]) -> None:
        assert [(r.code, r.sample_index) for r in results] == [(0, len(self.answer) + i) for i in range(len(results))]
        self.answer += [r.token_id for r in results]
        self.results += results
        self.num_steps += 1


def refusal(pair: tuple[Stage, Stage], segment: Segment) -> NoodleError:
    (result,) = step(pair, segment)
    return from_number(result.code, result.message)


def expected_of(pair: tuple[Stage, Stage], name: str, sampling: Sampling) -> Session:
    """The session decoded one by one on the same stages."""
    plain = Session(pair, name, sampling)
    while len(plain.answer) < NUM_NEW + 8:
        plain.take(step(pair, plain.segment()))
    return plain


def right(coming: list[int]) -> tuple[int, ...]:
    return tuple(coming[:4])


def wrong(coming: list[int]) -> tuple[int, ...]:
    return tuple((t + 1) % 200 for t in coming[:4])


def half(coming: list[int]) -> tuple[int, ...]:
    return (*coming[:2], (coming[2] + 1) % 200, *coming[3:5])


@pytest.mark.parametrize("kind", SAMPLINGS)
@pytest.mark.parametrize(("guess", "num_held"), [(right, 5), (wrong, 1), (half, 3)])
def test_an_answer_is_the_same_whatever_was_proposed(pair: tuple[Stage, Stage], kind: str, guess: Guess, num_held: int) -> None:
    plain = expected_of(pair, f"plain {kind} {guess.__name__}", SAMPLINGS[kind])
    session = Session(pair, f"{kind} {guess.__name__}", SAMPLINGS[kind])
    while len(session.answer) < NUM_NEW:
        results = step(pair, session.segment(guess(plain.answer[len(session.answer) :])))
        assert len(results) == num_held
        session.take(results)
    assert session.answer == plain.answer[: len(session.answer)]
    for one, other in zip(session.results, plain.results, strict=False):
        assert one.HasField("logprobs") == (kind == "logprobs")
        assert one.logprobs.chosen.logprob == pytest.approx(other.logprobs.chosen.logprob, abs=1e-4)


def test_random_guesses_beside_a_prompt_and_another_session_change_nothing(pair: tuple[Stage, Stage]) -> None:
    choose = random.Random(4)
    names = [f"r{i}" for i in range(6)]
    samplings = {name: Sampling(temperature=choose.choice((0.0, 0.6, 1.2)), top_k=8, seed=i) for i, name in enumerate(names)}
    plain = {name: expected_of(pair, f"plain {name}", samplings[name]).answer for name in names}
    going = {name: Session(pair, name, samplings[name]) for name in names}
    number = 0
    while going:
        some = choose.sample(list(going), min(len(going), choose.randrange(1, 4)))
        parts = []
        for name in some:
            coming = plain[name][len(going[name].answer) :][: choose.randrange(6)]
            parts.append(going[name].segment(tuple(t if choose.random() < 0.7 else choose.randrange(200) for t in coming)))
        number += 1
        prompt = Segment(f"p{number}", 1, 0, PROMPT[: choose.randrange(1, 5)], None, Sampling(), 9)
        results = step(pair, *parts, prompt)
        for name in some:
            going[name].take([r for r in results if r.session_id == name])
            if len(going[name].answer) >= NUM_NEW:
                assert going[name].answer == plain[name][: len(going[name].answer)]
                del going[name]


def test_what_did_not_hold_is_cut_off_and_what_held_is_never(pair: tuple[Stage, Stage]) -> None:
    plain = expected_of(pair, "plain cut", Sampling()).answer
    session = Session(pair, "cut", Sampling())
    session.take(step(pair, session.segment(half(plain[1:]))))  # 3 tokens: places 6 to 10 were taken, 6 to 8 hold
    assert session.answer == plain[:4]
    lengths = {stage.runner.call(lambda stage=stage: stage.runner.owned_model().length("cut")).result(60) for stage in pair}
    assert lengths == {len(PROMPT) + 6}
    early = Segment("cut", 1, len(PROMPT), (plain[0],), 1)
    assert isinstance(refusal(pair, early), Corrupt)  # the same place with other tokens
    session.take(step(pair, session.segment()))
    assert isinstance(refusal(pair, early), Stale)  # long ago
    assert session.answer == plain[:5]
    lengths = {stage.runner.call(lambda stage=stage: stage.runner.owned_model().length("cut")).result(60) for stage in pair}
    assert lengths == {len(PROMPT) + 4}
    for stage in pair:
        stage.runner.call(stage.runner.owned_model().kv.check).result(60)


def test_a_mask_is_of_the_first_place_alone(pair: tuple[Stage, Stage]) -> None:
    plain = expected_of(pair, "plain mask", Sampling()).answer
    session = Session(pair, "mask", Sampling())
    message = wire.segment_to_message(session.segment(right(plain[1:])))
    message.mask = b"\xff" * 100
    frame = pb.StepFrame(plan_version=3, step_id=1, segments=[message])
    middle = pair[0].step(frame)
    assert isinstance(middle, pb.StepFrame)
    report = pair[1].step(middle)
    assert isinstance(report, pb.StepReport) and [r.token_id for r in report.results] == plain[1:2]


def test_a_session_moves_on_without_the_guesses_that_did_not_hold() -> None:
    num_items = prepare(ModelRef(MODEL, 0), cache_folder()).num_items
    pair = Stage("a", 0, 2), Stage("b", 2, num_items)
    try:
        plain = expected_of(pair, "plain", Sampling()).answer
        session = Session(pair, "s", Sampling())
        session.take(step(pair, session.segment(half(plain[1:]))))
        held = len(PROMPT) + len(session.answer) - 1
        carried = (Carried("s", 1, 2, held),)
        kept = pair[0].prepared(plan=4)  # takes over what it holds, where the other is sent a copy
        assert pair[0].runner.call(lambda: pair[0].runner.commit(kept, carried)).result(60) == ()
        request = pb.ExportKvRequest(session_id="s", epoch=1, stop_token=held)
        sent = export_session(pair[1].runner.owned_model(), pair[1].runner.sessions, request)
        prepared = pair[1].prepared(plan=4)
        prepared.take(sent)
        assert pair[1].runner.call(lambda: pair[1].taken_over(prepared, carried)).result(60) == ()
        while len(session.answer) < NUM_NEW:
            following = replace(session.segment(half(plain[len(session.answer) :])), epoch=2)
            session.take(step(pair, following, plan=4))
        assert session.answer == plain[: len(session.answer)]
    finally:
        for stage in pair:
            stage.runner.close()


# --- a cluster ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def guessing() -> Iterator[Running]:
    with running("llama:tiny", 3, speculate="always") as cluster:
        yield cluster


def test_a_cluster_that_guesses_gives_the_answers_of_a_single_process(guessing: Running) -> None:
    prompts = [(5, 6, 7, 8) * 3, (1, 2, 1, 2, 1, 2), (9, 9, 9)]
    for prompt in prompts:
        found = guessing.generate(guessing.request(prompt, 40, ignore_eos=True))
        assert [c.token_id for c in found.chunks if c.index >= 0] == reference("llama:tiny", prompt, 40)
        assert [c.index for c in found.chunks if c.index >= 0] == list(range(40))
    for temperature in (0.0, 0.5):
        drawn = guessing.generate(guessing.request(PROMPT, 60, temperature=temperature, seed=9, logit_bias=FEW, ignore_eos=True))
        expected = sampled_reference("llama:tiny", PROMPT, 60, Sampling(temperature=temperature, seed=9, logit_bias=FEW))
        assert [c.token_id for c in drawn.chunks if c.index >= 0] == expected
        assert 0 < drawn.chunks[-1].num_accepted < drawn.chunks[-1].num_proposed
    status = guessing.wait(guessing.client.status())
    said, ended = status.work.speculation, status.ended.latest
    assert said.mode == "always" and said.num_proposed > said.num_accepted > 20
    assert (
        sum(s.guessed.num_proposed for s in ended) == said.num_proposed and sum(s.guessed.num_accepted for s in ended) == said.num_accepted
    )


def test_a_stop_string_or_the_last_token_in_the_middle_of_what_held_ends_the_answer_there(guessing: Running) -> None:
    def ask(max_new_tokens: int, **changes: Any) -> Transcript:
        return guessing.generate(guessing.request(PROMPT, max_new_tokens, logit_bias=FEW, ignore_eos=True, **changes))

    whole = ask(60)
    ids = [c.token_id for c in whole.chunks if c.index >= 0]
    assert whole.chunks[-1].num_accepted > 0
    for length in range(1, 40, 6):
        found = ask(length)
        assert [c.token_id for c in found.chunks if c.index >= 0] == ids[:length]
    for at in range(2, 40, 6):
        found = ask(60, stop_token_ids=(ids[at],), min_tokens=at)
        assert [c.token_id for c in found.chunks if c.index >= 0] == sampled_reference(
            "llama:tiny", PROMPT, len(found.chunks) - 2, Sampling(logit_bias=FEW, stop_token_ids=(ids[at],), min_tokens=at)
        )
    text = "".join(c.text for c in whole.chunks)
    for start in range(4, 40, 8):
        stop = text[start : start + 5]
        found = ask(60, stop=(stop,))
        assert "".join(c.text for c in found.chunks) == text[: text.index(stop)]
