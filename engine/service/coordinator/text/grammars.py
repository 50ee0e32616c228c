"""Which tokens may come next so that the text of an answer stays within a grammar: llguidance, over the model's own tokenizer.

The state of a grammar follows from the tokens alone, so that it lives with the coordinator, which has them all, and no kill, move or
restart can lose it. Workers get a bit for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.data.errors import InvalidInput, NotSupported
from engine.data.generation import Grammar, GrammarKind

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


class Constraint:
    """The grammar of one session."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._num_consumed = 0

    def mask(self, token_ids: Sequence[int]) -> bytes:
        """Which tokens may follow these, all that the session has generated: bit i of byte j, from the low end, is token 8 * j + i.

        Raises InvalidInput where nothing may follow, or where the grammar's limits do not let it go on.
        """
        if len(token_ids) < self._num_consumed:
            self._matcher.rollback(self._num_consumed - len(token_ids))
        else:
            self._matcher.consume_tokens([*token_ids[self._num_consumed :]])
        self._num_consumed = len(token_ids)
        mask = bytes(self._matcher.compute_bitmask())
        if self._matcher.is_error() or not any(mask):
            raise InvalidInput(f"the grammar lets nothing follow here: {_reason(self._matcher)}")
        return mask


class Grammars:
    """Of one model. Making the first constraint takes a moment for the vocabulary, so call it off the loop."""

    def __init__(self, tokenizer_json: str, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """`tokenizer_json` is a tokenizer.json; empty if the model has none that can be read."""
        self._tokenizer_json, self._vocab_size, self._eos_token_ids = tokenizer_json, vocab_size, [*eos_token_ids]
        self._tokenizer: LLTokenizer | None = None

    def constraint(self, grammar: Grammar) -> Constraint:
        """Raises InvalidInput for what is no grammar, NotSupported for a model without a tokenizer or without a token that ends answers."""
        if not self._tokenizer_json or not self._eos_token_ids:
            lacks = "tokenizer" if not self._tokenizer_json else "token that ends an answer"
            raise NotSupported(f"a grammar needs the model's own {lacks}, and this model has none: leave the grammar out")
        try:
            from llguidance import LLMatcher, LLTokenizer
        except ModuleNotFoundError as e:
            raise NotSupported("grammars need llguidance, which the coordinator does not have: pip install 'noodlecore[api]'") from e
        if self._tokenizer is None:
            try:
                self._tokenizer = LLTokenizer(self._tokenizer_json, n_vocab=self._vocab_size, eos_token=self._eos_token_ids)
            except Exception as e:  # what its makers raise is not declared
                raise NotSupported(f"grammars do not work with this model's tokenizer: {str(e)[:300]}") from e
        matcher = LLMatcher(self._tokenizer, _compiled(grammar), log_level=0)
        if matcher.is_error():
            raise InvalidInput(f"{grammar.kind}: {_reason(matcher)}")
        constraint = Constraint(matcher)
        try:
            constraint.mask(())
        except InvalidInput as e:
            raise InvalidInput(f"{grammar.kind}: no answer can have this form: {e}") from e
        return constraint


def _reason(matcher: LLMatcher) -> str:
    """Without the state that is behind it, which is for its makers."""
    reason = str(matcher.get_error()).partition("\n<state>")[0][:500]
    return reason if " " in reason else "no token is allowed"  # a single word is a name of its makers


def _compiled(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    if grammar.kind is GrammarKind.REGEX:
        return LLMatcher.grammar_from_regex(grammar.text)
    if grammar.kind is GrammarKind.LARK:
        return LLMatcher.grammar_from_lark(grammar.text)
    try:
        # Where spaces are free, a model that may write one may write nothing else for ever. They stand where models are used to them.
        spaces: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        return LLMatcher.grammar_from_json_schema(grammar.text, defaults=spaces)
    except (ValueError, RecursionError) as e:
        raise InvalidInput(f"json_schema: {str(e)[:300]}") from e
