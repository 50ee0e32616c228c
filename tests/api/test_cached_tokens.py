"""What usage tells of a prompt that begins as an earlier one did, through each way in; keys of a server's own list do not share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.api.conftest import NAME, Served
from tests.api.test_server import serving

LONG = "Say again what you were told about the river, the mill, the miller's daughter and the three grey geese. "


def messages(word: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{word}: {LONG}"}]


def test_usage_tells_what_was_not_computed_again(served: Served) -> None:
    client = served.openai()

    def chat() -> int:
        usage = client.chat.completions.create(model=NAME, messages=messages("chat"), max_tokens=4, temperature=0).usage  # type: ignore[arg-type]
        assert usage is not None and usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    def completion() -> int:
        usage = client.completions.create(model=NAME, prompt=f"text: {LONG}", max_tokens=4, temperature=0).usage
        assert usage is not None and usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens or 0

    def response() -> int:
        usage = client.responses.create(model=NAME, input=f"response: {LONG}", max_output_tokens=4, temperature=0).usage
        assert usage is not None
        return usage.input_tokens_details.cached_tokens

    for ask in (chat, completion, response):
        first, second = ask(), ask()
        assert first < 16 * 3 <= second, ask.__name__


def test_keys_of_a_list_do_not_share(served: Served, tmp_path: Path) -> None:
    keys = ["one-caller-and-nobody-else", "two-callers-are-not-the-same"]
    (tmp_path / "keys").write_text("".join(f"operator {key}\n" for key in keys))
    body: dict[str, Any] = {"model": NAME, "messages": messages("keys"), "max_tokens": 2, "temperature": 0}
    with serving(served.address, "--keys", str(tmp_path / "keys")) as http:

        def cached(key: str) -> int:
            done = httpx.post(f"{http}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=120)
            return int(done.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        assert [cached(keys[0]), cached(keys[1])] == [0, 0]
        assert min(cached(keys[0]), cached(keys[1])) > 0
