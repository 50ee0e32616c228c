"""Beginnings of prompts that an operator lets all callers share: as files hold them, and as the model reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from engine.data.errors import InvalidInput, NoodleError
from engine.data.generation import GenerateRequest
from engine.data.json_text import json_text
from engine.files import read_document
from engine.service.coordinator.text.prompts import Prompts

_USERS = ("a", "\n\nb")  # two beginnings of what follows: tokens that depend on it are not shared


def read_shared(paths: Iterable[Path]) -> tuple[str, ...]:
    """The texts of --shared-prefix. Raises InvalidInput naming the file."""
    texts = []
    for path in paths:
        try:
            texts.append(read_document(path, "a shared prefix"))
        except NoodleError as e:
            raise InvalidInput(f"--shared-prefix: {e}") from e
    return tuple(texts)


def shared_prefixes(texts: Sequence[str], prompts: Prompts) -> tuple[tuple[int, ...], ...]:
    """The tokens of each: ids between commas as they are, else those of a system prompt, or of how prompts begin without a chat template.

    Raises InvalidInput for what this model cannot take.
    """
    return tuple(_tokens(text, prompts) for text in texts)


def _tokens(text: str, prompts: Prompts) -> tuple[int, ...]:
    if re.fullmatch(r"[\[\s]*\d+(\s*,\s*\d+)*[\]\s]*", text):
        requests = [GenerateRequest(prompt_ids=tuple(int(found) for found in re.findall(r"\d+", text)))]
    elif prompts.templates:
        turns = [[{"role": "system", "content": text}, {"role": "user", "content": user}] for user in _USERS]
        requests = [GenerateRequest(messages=json_text(one)) for one in turns]
    else:
        requests = [GenerateRequest(prompt=text + following) for following in _USERS]
    try:
        found = [prompts.prepare(request).prompt_ids for request in requests]
    except NoodleError as e:
        raise InvalidInput(f"--shared-prefix: {e}") from e
    common = 0
    while all(common < len(ids) and ids[common] == found[0][common] for ids in found):
        common += 1
    return found[0][:common]
