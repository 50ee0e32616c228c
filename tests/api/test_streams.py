"""Streams while things go wrong: callers that leave, callers that read slowly, a worker that is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from engine.client import Client
from engine.data.status import NodeState
from tests.api.conftest import NAME, Served, started
from tests.api.expected import expected
from tests.api.killing import DEADLINE_S, texts_through_a_kill
from tests.api.test_server import serving

MESSAGES = [{"role": "user", "content": "Tell me a long story"}]
LONG = {"model": NAME, "messages": MESSAGES, "max_tokens": 400, "temperature": 0, "stream": True, "ignore_eos": True}


def until(condition: Callable[[], bool], what: str) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end_s, f"waited {DEADLINE_S:.0f} s for: {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_caller_that_leaves_ends_its_session(served: Served, is_streamed: bool) -> None:
    body = json.dumps({**LONG, "stream": is_streamed}).encode()
    host, port = served.http.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    with Client(served.address) as client:
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body)
            until(lambda: bool(client.status().sessions), "the session")
            session_id = client.status().sessions[0].session_id
        until(lambda: not client.status().sessions, "its end")
        ended = next(s for s in client.status().ended.latest if s.session_id == session_id)
    assert ended.num_generated < 400
    assert str(ended.finish_reason) == "cancelled"


def test_a_caller_that_does_not_read_delays_nobody(served: Served) -> None:
    with served.client() as slow, slow.stream("POST", "/v1/chat/completions", json=LONG) as unread:
        assert unread.status_code == 200  # and now nobody reads
        got = served.openai().chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=20, temperature=0)
        assert got.choices[0].message.content == expected(served.folder, MESSAGES, 20).text


@pytest.fixture
def own(folder: Path) -> Iterator[Served]:
    """A cluster that may be hurt."""
    process, found = started(folder)
    yield found
    process.terminate()
    process.wait(60)


def test_a_worker_that_is_killed_in_the_middle_changes_no_answer(own: Served) -> None:
    wanted = expected(own.folder, MESSAGES, 300, eos_token_id=-1)
    asked = {"model": NAME, "messages": MESSAGES, "max_tokens": 300, "temperature": 0, "logprobs": True, "extra_body": {"ignore_eos": True}}
    assert texts_through_a_kill(own, [asked] * 3) == [wanted.text] * 3
    with Client(own.address) as client:
        assert [n.worker_id for n in client.status().nodes if n.state is NodeState.LOST] == ["w2"]


def test_without_workers_it_says_that_nothing_is_served(own: Served) -> None:
    for name in ("w1", "w2"):
        os.kill(own.pids[name], signal.SIGKILL)
    with own.client() as client:
        until(lambda: client.get("/health").status_code == 503, "the loss to be noticed")
        assert client.get("/health").json()["status"] != "ok"
        answer = client.post("/v1/chat/completions", json={**LONG, "stream": False})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "not_serving"


def test_without_a_coordinator_a_server_in_front_of_it_says_so_and_goes_on(own: Served) -> None:
    with serving(own.address) as http:
        os.kill(own.pids["coordinator"], signal.SIGKILL)
        until(lambda: httpx.get(f"{http}/health", timeout=60).json()["status"] == "unavailable", "the loss to be noticed")
        headers = {"authorization": f"Bearer {own.key}"}
        answer = httpx.post(f"{http}/v1/chat/completions", json={**LONG, "stream": False}, headers=headers, timeout=60)
        assert answer.status_code == 503 and "cannot reach" in answer.json()["error"]["message"]
