"""`python -m tests.api.fuzz [--requests 100000] [--seed 1] [--first 0]`: bodies that went wrong, sent to the API of a real cluster.

A body begins as one that a client could send; then values are changed, or its bytes are. Whatever comes, the answer must be 200 for what is
still a request, else 4xx with OpenAI's error document. It ends with 1 if one was anything else, if a connection broke or an answer took
more than `HUNG_S`, if the cluster no longer answers a good request as before, or if memory, threads or descriptors grew.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.api.conftest import NAME, Served, started
from tests.service.process_figures import figures_of, growth
from tests.service.small_chat import small_chat

AT_ONCE = 16
HUNG_S = 120.0
WARM_UP = 0.2  # of the requests, before figures count
MOST_SAID = 20
MOST_DEEP = 12  # levels down, values are changed
Json = Any

TURN = {"role": "user", "content": "What is the capital of France?"}
FUNCTION = {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
CHAT: dict[str, Json] = {
    "messages": [{"role": "system", "content": "Be short."}, TURN],
    "stream": False,
    "n": 1,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "repetition_penalty": 1.1,
    "logit_bias": {"5": 1},
    "seed": 3,
    "stop": ["x"],
    "stop_token_ids": [4],
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": "none",
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}},
    "stream_options": {"include_usage": True},
    "chat_template_kwargs": {"a": 1},
    "user": "ann",
}
BODIES: dict[str, dict[str, Json]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "a", "echo": True, "logprobs": 1, "stop": "b", "seed": 1, "n": 1, "temperature": 0, "stream": False},
    "/v1/responses": {"input": [TURN], "instructions": "Be short.", "temperature": 0, "tools": [{"type": "function", **FUNCTION}]},
    "/v1/embeddings": {"input": "a"},
}
MEAN: tuple[Json, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "a",
        " ",
        "\x00",
        "\x1b[31m",
        "\ud800",
        "ü",
        "\u202e",
        "a" * 5000,
        "9" * 5000,
        "{{ 1 }}",
        "{% for %}",
        "null",
        "NaN",
        "-1",
        "user",
    ),
    *([], {}, [[]], [{}], [None], {"": ""}, {"type": "object"}, {"$ref": "#"}, {"type": ["string", 5]}, {"enum": []}, {"pattern": "("}),
    *([1] * 500, ["a"] * 500, {str(i): i for i in range(500)}, {"role": "user"}, {"role": "nobody", "content": []}, {"type": "function"}),
)


def deep(depth: int) -> Json:
    made: Json = 1
    for _ in range(depth):
        made = [made]
    return made


def places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value of the document stands: keys and indices from the top."""
    if len(path) > MOST_DEEP:
        return []
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, held in inside for found in [(*path, key), *places(held, (*path, key))]]


def changed(body: dict[str, Json], rng: random.Random) -> dict[str, Json]:
    made = json.loads(json.dumps(body))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        *above, last = rng.choice(places(made) or [("model",)])
        holder = made
        for key in above:
            holder = holder[key]
        draw = rng.random()
        if draw < 0.15 and not isinstance(holder, list):
            holder.pop(last, None)
        elif draw < 0.3 and isinstance(holder, dict):
            holder[rng.choice(("temprature", "", "\x1b", "a" * 300, "stream", "n", last))] = copy.deepcopy(rng.choice(MEAN))
        elif draw < 0.33:
            holder[last] = deep(rng.choice((5, 90, 300)))
        else:
            holder[last] = copy.deepcopy(rng.choice(MEAN))
    return made


def as_bytes(body: Json) -> bytes:
    return json.dumps(body).encode("utf-8", "surrogatepass")


RAW: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda fine, rng: fine[: rng.randrange(len(fine))],
    lambda fine, rng: fine + fine[rng.randrange(len(fine)) :],
    lambda fine, rng: bytes(byte ^ (rng.random() < 0.01) << rng.randrange(8) for byte in fine),
    lambda fine, rng: rng.randbytes(rng.choice((0, 1, 10, 1000))),
    lambda fine, rng: fine.decode().encode(rng.choice(("utf-16", "utf-32", "utf-8-sig"))),
    lambda fine, rng: b"[" * rng.choice((10, 10_000, 1_000_000)),
    lambda fine, rng: b'{"a":' * rng.choice((10, 10_000)),
    lambda fine, rng: fine.replace(b'"', b"'"),
    lambda fine, rng: fine[:-1] + b"," + fine[1:],  # each key twice
    lambda fine, rng: fine.replace(b":", b"::", 1),
    lambda fine, rng: b"9" * rng.choice((1, 5000, 100_000)),
    lambda fine, rng: b'"' + b"a" * rng.choice((10, 5_000_000)) + b'"',
)


def request(number: int, seed: int) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, bytes and headers of one request: the same for the same number and seed."""
    rng = random.Random(f"{seed}/{number}")
    path = rng.choice(tuple(BODIES))
    fine = {"model": NAME} | {k: v for k, v in BODIES[path].items() if rng.random() < 0.6 or k in ("messages", "prompt", "input")}
    few = {"max_output_tokens": 1} if path == "/v1/responses" else {"max_tokens": 1}
    made = as_bytes(changed(fine, rng) | few) if rng.random() < 0.7 else rng.choice(RAW)(as_bytes(fine | few), rng)
    method = "POST" if rng.random() < 0.98 else rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"))
    headers = {"content-type": "application/json"} if rng.random() < 0.95 else {"content-type": rng.choice(("", "text/plain", "a" * 500))}
    return method, path, made, headers


def objection(method: str, answer: httpx.Response) -> str:
    """What is wrong with it, if anything is."""
    if answer.status_code == 501 and answer.request.url.path == "/v1/embeddings":
        return ""
    if not (answer.status_code == 200 or 400 <= answer.status_code < 500):
        return f"status {answer.status_code}"
    if answer.status_code == 200 or method == "HEAD":
        return ""
    try:
        error = answer.json()["error"]
        return "" if isinstance(error["message"], str) and error["message"] and "Traceback" not in error["message"] else f"error {error}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} without an error document: {answer.text[:200]!r}"


class Sender:
    def __init__(self, client: httpx.AsyncClient, seed: int) -> None:
        self._client, self._seed = client, seed
        self.statuses: Counter[int] = Counter()
        self.wrong: list[str] = []

    async def send(self, number: int) -> None:
        method, path, body, headers = request(number, self._seed)
        try:
            async with asyncio.timeout(HUNG_S):
                answer = await self._client.request(method, path, content=body, headers=headers)
        except (httpx.HTTPError, TimeoutError) as e:
            self.wrong.append(f"{number}: {method} {path}: {type(e).__name__}: {e}")
            return
        self.statuses[answer.status_code] += 1
        if found := objection(method, answer):
            self.wrong.append(f"{number}: {method} {path}: {found}; {body[:200]!r}")

    async def send_all(self, numbers: range) -> None:
        waiting = iter(numbers)

        async def some() -> None:
            for number in waiting:
                await self.send(number)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def fuzz(served: Served, numbers: range, seed: int) -> tuple[Sender, list[str]]:
    headers = {"authorization": f"Bearer {served.key}"}
    async with httpx.AsyncClient(base_url=served.http, headers=headers, timeout=HUNG_S) as client:
        good = {"model": NAME, "messages": [TURN], "max_tokens": 24, "temperature": 0}

        async def said() -> str:
            return str((await client.post("/v1/chat/completions", json=good)).json()["choices"][0]["message"]["content"])

        before, sender = await said(), Sender(client, seed)
        warm = numbers[: int(len(numbers) * WARM_UP)]
        await sender.send_all(warm)
        figures = figures_of(served.pids)
        await sender.send_all(numbers[len(warm) :])
        return sender, growth(figures, figures_of(served.pids)) + ([] if await said() == before else ["a good request has another answer"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        process, served = started(small_chat(Path(folder) / NAME))
        try:
            began_s = time.monotonic()
            numbers = range(asked.first, asked.first + asked.requests)
            sender, worse = asyncio.run(fuzz(served, numbers, asked.seed))
        finally:
            process.terminate()
            process.wait(60)
    wrong = sender.wrong + worse
    print(
        json.dumps({"statuses": dict(sorted(sender.statuses.items())), "wrong": len(wrong), "took_s": round(time.monotonic() - began_s, 1)})
    )
    for line in wrong[:MOST_SAID]:
        print(line, file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
