"""Masks of a grammar: what they allow can be completed, what they forbid cannot; and they follow from the tokens alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.data.generation import GenerateRequest, Grammar, GrammarKind, Segment, Used
from engine.data.sampling import GREEDY, SamplingRequest
from engine.model.running.sampling import allowed
from engine.service.coordinator.journal.journal import Journal, written
from engine.service.coordinator.outputs.session_outputs import SessionOutputs
from engine.service.coordinator.text.codec import TextCodec
from engine.service.coordinator.text.grammars import Constraint, Grammars
from tests.service.small_chat import small_chat

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}, "s": {"enum": ["a", "bc"]}},
    "required": ["n", "s"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    return TextCodec(small_chat(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def grammars(codec: TextCodec) -> Grammars:
    return Grammars(codec.tokenizer_json(), 259, [258])


def schema(grammars: Grammars) -> Constraint:
    return grammars.constraint(Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMA)))


def named(mask: bytes) -> list[int]:
    return [i for i in range(8 * len(mask)) if mask[i // 8] >> (i % 8) & 1]


def test_a_regex_allows_what_it_matches_letter_by_letter(grammars: Grammars, codec: TextCodec) -> None:
    """Against a slow reference: every word of the language, and every letter behind each of its beginnings."""
    pattern, words = "ab?(c|dd)", ["abc", "abdd", "ac", "add"]
    assert all(re.fullmatch(pattern, word) for word in words)
    for beginning in {word[:i] for word in words for i in range(len(word) + 1)}:
        constraint = grammars.constraint(Grammar(GrammarKind.REGEX, pattern))
        found = named(constraint.mask(codec.encode(beginning)))
        letters = {word[len(beginning)] for word in words if word.startswith(beginning) and word != beginning}
        assert {codec.decode([i]) for i in found if i < 256} == letters, beginning
        assert (258 in found) == (beginning in words)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 0.999), min_size=1, max_size=60))
def test_whatever_is_allowed_leads_to_an_answer_of_the_schema(grammars: Grammars, codec: TextCodec, draws: list[float]) -> None:
    constraint, tokens = schema(grammars), []
    for i in range(200):
        found = named(constraint.mask(tokens))
        digits = [t for t in found if t < 256 and codec.decode([t]).isdigit()]
        others = [t for t in found if t not in digits]
        found = others if others and i > 30 else found  # numbers have an end
        token = found[int(draws[i % len(draws)] * len(found))]
        if token == 258:
            break
        tokens.append(token)
    answer = json.loads(codec.decode(tokens))
    assert set(answer) == {"n", "s"} and isinstance(answer["n"], int) and answer["s"] in ("a", "bc")


def test_the_mask_follows_from_the_tokens_and_not_from_what_was_asked_before(grammars: Grammars, codec: TextCodec) -> None:
    tokens = codec.encode('{"n": 12, "s": "bc"}')
    fresh = [schema(grammars).mask(tokens[:i]) for i in range(len(tokens) + 1)]
    kept = schema(grammars)
    for i in (0, 5, 5, 2, len(tokens), 7, 0, 3):
        assert kept.mask(tokens[:i]) == fresh[i]


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (GrammarKind.JSON_SCHEMA, '{"type": "objekt"}', "objekt"),
        (GrammarKind.JSON_SCHEMA, "{", "json_schema"),
        (GrammarKind.REGEX, "(", "regex"),
        (GrammarKind.LARK, "start: nothing", "lark"),
    ],
)
def test_what_is_no_grammar_is_refused_with_a_reason(grammars: Grammars, kind: GrammarKind, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        grammars.constraint(Grammar(kind, text))


def test_a_model_that_cannot_says_what_it_lacks() -> None:
    grammar = Grammar(GrammarKind.REGEX, "a")
    with pytest.raises(NotSupported, match="tokenizer"):
        Grammars("", 259, [258]).constraint(grammar)
    with pytest.raises(NotSupported, match="ends an answer"):
        Grammars("{}", 259, []).constraint(grammar)
    with pytest.raises(NotSupported, match="this model's tokenizer"):
        Grammars("{}", 259, [258]).constraint(grammar)


def test_a_grammar_and_what_forbids_its_end_do_not_go_together() -> None:
    grammar = Grammar(GrammarKind.REGEX, "a")
    for more in ({"ignore_eos": True}, {"sampling": SamplingRequest(min_tokens=2)}):
        with pytest.raises(InvalidInput, match="where an answer ends"):
            GenerateRequest("x", grammar=grammar, **more)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="0 characters"):
        Grammar(GrammarKind.REGEX, "")


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 40))
def test_only_named_tokens_keep_their_logits(bits: list[bool], size: int) -> None:
    logits = torch.arange(size, dtype=torch.float32) - 20
    mask = np.packbits(bits, bitorder="little").tobytes()
    wanted = [float(logits[i]) if i < len(bits) and bits[i] else -np.inf for i in range(size)]
    if not any(bits[:size]):
        with pytest.raises(Corrupt, match="no token"):
            allowed(logits, mask)
    else:
        assert allowed(logits, mask).tolist() == wanted
    assert allowed(logits, b"") is logits


def test_a_coordinator_that_starts_again_goes_on_within_the_grammar(codec: TextCodec, grammars: Grammars, tmp_path: Path) -> None:
    journal, used = Journal(tmp_path / "journal.sqlite3"), Used(GREEDY)
    request = GenerateRequest(prompt_ids=(1, 2), grammar=Grammar(GrammarKind.REGEX, "ab?(c|dd)"))
    (letter,) = codec.encode("a")
    journal.open_session(written("s-1", (1, 2), request, used))
    journal.append_token("s-1", 0, letter, None)
    outputs = SessionOutputs(journal, lambda _: None, lambda _: None, lambda waiting: waiting.close())
    outputs.speak(codec, grammars)
    outputs.restore()
    mask = outputs.mask(Segment("s-1", 1, 2, (letter,), sample_index=1), [letter])
    assert {codec.decode([i]) for i in named(mask)} == {"b", "c", "d"}
    journal.close()
