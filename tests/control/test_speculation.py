"""How much is proposed, what is known of it, and the same tokens from a cluster that proposes and one that does not."""

from __future__ import annotations

import random

import pytest

from engine.control.sessions.guessing.speculation import MOST_PROPOSED, PLAIN_EVERY, Chances, Speculation, why_not
from engine.control.sessions.guessing.step_price import MIN_STEPS, StepPrice
from engine.control.sessions.session import Session, SessionState
from engine.data.errors import InvalidInput
from engine.data.generation import GenerateRequest, Grammar, GrammarKind, Segment, StageTiming
from engine.data.precision import Identity, identity

GRAMMAR = Grammar(GrammarKind.REGEX, "a+")


def timings(*compute_s: float, queue_s: float = 0.0) -> tuple[StageTiming, ...]:
    return tuple(StageTiming(f"w{i}", c, queue_s, 0.0, 0.0) for i, c in enumerate(compute_s))


def session(prompt: tuple[int, ...], generated: list[int], max_new: int = 1000, grammar: Grammar | None = None) -> Session:
    request = GenerateRequest(prompt_ids=prompt, max_new_tokens=max_new, grammar=grammar)
    one = Session("s", prompt, request, 0.0, max_new, state=SessionState.DECODE)
    one.generated, one.num_sent = generated, len(prompt) + len(generated) - 1
    return one


class Run:
    """One session on stages whose step takes `base_s + row_s * rows`, of a model that says what `truth` says."""

    def __init__(self, truth: list[int], prompt: tuple[int, ...], base_s: float, row_s: float, wire_s: float, mode: str = "auto") -> None:
        self.truth, self.costs = truth, (base_s, row_s, wire_s)
        self.speculation = Speculation(mode)
        self.session = session(prompt, [truth[0]])
        self.speculation.came(session(prompt, []), truth[0])
        self.spent_s, self.num_steps = 0.0, 0

    def step(self) -> None:
        one, (base_s, row_s, wire_s) = self.session, self.costs
        proposed = self.speculation.proposals(one, 1)
        segment = one.next_token(proposed)
        compute_s = base_s + row_s * len(segment.token_ids)
        self.speculation.price.observe(len(segment.token_ids), timings(compute_s), compute_s + wire_s)
        self.spent_s += compute_s + wire_s
        self.num_steps += 1
        said, done = self.truth[len(one.generated) :][: len(proposed) + 1], len(one.generated)
        for guess, token_id in zip((*proposed, None), said, strict=False):
            self.speculation.came(one, token_id)
            one.generated.append(token_id)
            if guess != token_id:
                break
        one.landed(segment, len(one.generated) - done)
        self.speculation.answered(one, segment, len(one.generated) - done)

    def all(self) -> float:
        """Seconds until the truth is said."""
        while len(self.session.generated) < len(self.truth):
            self.step()
        assert self.session.generated == self.truth
        return self.spent_s


def plain_s(run: Run) -> float:
    base_s, row_s, wire_s = run.costs
    return (len(run.truth) - 1) * (base_s + row_s + wire_s)


@pytest.mark.parametrize("costs", [(0.02, 0.002, 0.0), (0.02, 0.01, 0.0), (0.0, 0.03, 0.0), (0.01, 0.005, 0.08)])
def test_an_answer_that_repeats_its_prompt_is_faster_and_new_text_is_as_fast(costs: tuple[float, float, float]) -> None:
    generator = random.Random(1)
    prompt = tuple(generator.randrange(5000) for _ in range(300))
    copied = Run([*prompt[40:240]], prompt, *costs)
    assert copied.all() < plain_s(copied) / (2 if costs[1] < costs[0] + costs[2] else 0.98)
    new = Run([generator.randrange(5000) for _ in range(300)], prompt, *costs)
    assert new.all() <= plain_s(new) / 0.98


def test_words_that_come_again_in_new_text_cost_next_to_nothing() -> None:
    """Pairs repeat all the time, what follows them does not."""
    generator = random.Random(2)
    words = [[generator.randrange(1000, 5000) for _ in range(2)] for _ in range(8)]
    truth = [t for _ in range(120) for t in (*generator.choice(words), generator.randrange(1000))]
    run = Run(truth, tuple(truth[:100]), 0.02, 0.01, 0.0)
    assert run.all() <= plain_s(run) / 0.98


def test_a_plain_step_comes_every_now_and_then_however_well_it_goes() -> None:
    run, numbers = Run([7] * 2000, (7, 7, 7), 0.02, 0.0001, 0.0), list[int]()
    for _ in range(100):
        num_before = run.speculation.num_proposed
        run.step()
        numbers.append(run.speculation.num_proposed - num_before)
    assert max(numbers) == MOST_PROPOSED
    late = numbers[10:]
    longest = max(len(part) for part in "".join("p" if n else " " for n in late).split(" "))
    assert PLAIN_EVERY - 1 <= longest <= PLAIN_EVERY


def test_nothing_is_proposed_beyond_the_last_token_that_may_come() -> None:
    speculation = Speculation("always")
    assert len(speculation.proposals(session((5, 5, 5, 5), [5, 5], max_new=5), 1)) == 2
    assert speculation.proposals(session((5, 5, 5, 5), [5, 5, 5, 5], max_new=5), 1) == ()


def test_off_a_grammar_and_a_plan_that_promises_no_tokens_propose_nothing() -> None:
    assert Speculation("always").proposals(session((5, 5, 5), [5, 5]), 1) != ()
    assert Speculation("off").proposals(session((5, 5, 5), [5, 5]), 1) == ()
    assert Speculation("always").proposals(session((5, 5, 5), [5, 5], grammar=GRAMMAR), 1) == ()
    assert why_not(Identity.SAME_TOKENS, "float32", {"cpu"}) == "" == why_not(Identity.EXACT, "int8", {"cpu"})
    cases = (("bfloat16", {"cpu"}), ("float32", {"cpu", "cuda"}), ("float32", {"cuda"}), ("int8", {"cpu"}))  # int8 of unlike builds
    for dtype, kinds in cases:
        careful = Speculation("auto")
        careful.start_plan(why_not(identity(dtype, kinds), dtype, kinds))
        assert careful.why_not and careful.proposals(session((5, 5, 5), [5, 5]), 1) == ()
    with pytest.raises(ValueError, match="sometimes"):
        Speculation("sometimes")


def test_tokens_that_came_under_a_plan_without_proposals_are_known_under_the_next() -> None:
    speculation, one = Speculation("always"), session((1, 2, 3, 4), [1])
    assert speculation.proposals(one, 1) == ()
    one.generated += [2, 3]
    assert speculation.proposals(one, 1)[:2] == (4, 1)


def test_only_what_stands_behind_a_known_token_that_is_sampled_for_can_be_proposed() -> None:
    Segment("s", 1, 4, (1, 2), 1, num_proposed=1)
    for segment in ((None, 1), (1, 2), (1, -1)):
        with pytest.raises(InvalidInput, match="cannot be proposals"):
            Segment("s", 1, 4, (1, 2), segment[0], num_proposed=segment[1])


# --- what it believes ---------------------------------------------------------------------------------------------
def test_chances_follow_what_came_and_long_matches_are_believed_more() -> None:
    chances = Chances()
    assert chances.of(2) < 0.15 and chances.of(3) < chances.of(4) < chances.of(16) and chances.of(16) > 0.85
    for _ in range(40):
        chances.note(2, True)
        chances.note(16, False)
    assert chances.of(2) > 0.9 and chances.of(16) < 0.1
    expected = chances.expected(2, 5)
    assert expected[0] == 0.0 and expected == sorted(expected) and len(expected) == 6


def test_the_price_of_rows_is_a_line_between_those_that_were_seen_and_never_falls() -> None:
    price = StepPrice()
    assert price.periods_s(3, 1) == []
    for _ in range(MIN_STEPS):
        price.observe(1, timings(0.06, 0.04, queue_s=5.0), 10.4)
    assert price.periods_s(3, 1) == pytest.approx([0.4, 0.43, 0.46])  # 0.3 s on the wires; 0.03 s for each row until it is known
    assert price.periods_s(2, 8) == pytest.approx([0.06, 0.078])  # a full pipeline goes at the pace of its slowest stage
    price.observe(5, timings(0.12, 0.08), 0.5)
    assert price.periods_s(6, 1) == pytest.approx([0.4, 0.425, 0.45, 0.475, 0.5, 0.525])
    for _ in range(20):
        price.observe(3, timings(0.03, 0.02), 0.35)
    assert price.periods_s(3, 1) == pytest.approx([0.4, 0.4, 0.4])
    price.forget()
    assert price.periods_s(3, 1) == []
