"""`noodle-engine serve`: its start, its keys, its certificate, its end; what it says of itself."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from engine.api.application import public_name
from engine.client import LocalCluster
from tests.api.conftest import NAME, Served

SERVE = (sys.executable, "-m", "engine", "serve", "--json")
CHAT = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}


@contextmanager
def serving(address: str, *words: str) -> Iterator[str]:
    process = subprocess.Popen(
        [*SERVE, "--connect", address, "--http", "0", "--model-name", NAME, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["http"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def failed(*words: str) -> tuple[int, str]:
    done = subprocess.run([*SERVE, *words], capture_output=True, text=True, timeout=60)
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_several_servers_stand_in_front_of_one_cluster(served: Served) -> None:
    with serving(served.address) as one, serving(served.address) as two:
        for http in (one, two):
            answer = httpx.post(f"{http}/v1/chat/completions", json=CHAT, headers={"authorization": f"Bearer {served.key}"}, timeout=60)
            assert answer.status_code == 200
    with served.client() as client:  # their end is not the cluster's
        assert client.get("/health").json() == {"status": "ok", "detail": ""}


def test_a_server_with_keys_of_its_own_knows_their_roles(served: Served, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("viewer only-looks-and-changes-nothing\noperator asks-and-gets-an-answer\n")
    with serving(served.address, "--keys", str(keys)) as http:

        def status(key: str, path: str = "/v1/chat/completions") -> int:
            headers = {"authorization": f"Bearer {key}"}
            done = httpx.get(http + path, headers=headers) if path == "/v1/models" else httpx.post(http + path, json=CHAT, headers=headers)
            return done.status_code

        assert status("asks-and-gets-an-answer") == 200
        assert status("only-looks-and-changes-nothing") == 403
        assert status("only-looks-and-changes-nothing", "/v1/models") == 200
        assert status(served.key) == status("x" * 20) == 401


def test_pages_of_others_may_call_only_if_allowed(served: Served) -> None:
    asks = {"origin": "https://chat.example", "access-control-request-method": "POST"}
    with serving(served.address, "--cors", "https://chat.example") as http:
        allowed = httpx.options(f"{http}/v1/chat/completions", headers=asks)
        assert allowed.headers["access-control-allow-origin"] == "https://chat.example"
        assert (
            "access-control-allow-origin"
            not in httpx.options(f"{http}/v1/models", headers={**asks, "origin": "https://evil.example"}).headers
        )
    with served.client() as client:
        assert "access-control-allow-origin" not in client.options("/v1/chat/completions", headers=asks).headers


def test_with_a_certificate_it_speaks_https(served: Served, tmp_path: Path) -> None:
    certs = [sys.executable, "-m", "engine", "certs"]
    subprocess.run([*certs, "init", "--dir", str(tmp_path)], check=True, capture_output=True)
    subprocess.run([*certs, "node", "api", "--dir", str(tmp_path), "--host", "127.0.0.1"], check=True, capture_output=True)
    with serving(served.address, "--http-cert", str(tmp_path / "api.pem"), "--http-key", str(tmp_path / "api.key")) as http:
        assert http.startswith("https://")
        import ssl

        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        assert httpx.get(f"{http}/health", verify=context).status_code == 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--http", "0.0.0.0:0"], "is not a loopback address"),
        (["--http", "nowhere"], "--http: address 'nowhere' is not allowed"),
        (["--http", "127.0.0.1:99999"], "--http: address"),
        (["--http", "0", "--http-cert", "x"], "--http-cert and --http-key go together"),
        (["--http", "0", "--http-cert", "x", "--http-key", "y"], "x"),
        (["--http", "0", "--keys", "missing"], "missing"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--connect", "::"], "address"),
    ],
)
def test_mistakes_at_the_start_have_a_sentence(words: list[str], said: str) -> None:
    code, text = failed(*words)
    assert (code, said in text) == (2, True), text


def test_a_certificate_of_its_own_needs_keys(tmp_path: Path) -> None:
    certs = [sys.executable, "-m", "engine", "certs"]
    subprocess.run([*certs, "init", "--dir", str(tmp_path)], check=True, capture_output=True)
    subprocess.run([*certs, "node", "ann", "--role", "operator", "--dir", str(tmp_path)], check=True, capture_output=True)
    pair = ["--tls-ca", str(tmp_path / "ca.pem"), "--tls-cert", str(tmp_path / "ann.pem"), "--tls-key", str(tmp_path / "ann.key")]
    code, text = failed("--http", "0", *pair)
    assert code == 2 and "act for everybody" in text and "--keys" in text


def test_a_port_that_is_taken_is_named(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = failed("--connect", served.address, "--http", str(taken.getsockname()[1]))
    assert code == 1 and "choose another --http address" in text


def test_a_cluster_that_is_not_there_is_a_state_and_no_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with serving(address) as http:
        health = httpx.get(f"{http}/health", timeout=60)
        assert (health.status_code, health.json()["status"]) == (503, "unavailable")
        answer = httpx.post(f"{http}/v1/chat/completions", json=CHAT, timeout=60)
        assert answer.status_code == 503 and "cannot reach" in answer.json()["error"]["message"]


def test_a_cluster_without_workers_says_what_it_waits_for(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine", "coordinator", "--model", "gpt2:tiny", "--random-weights", "0", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen([*command, "--state-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with serving(json.loads(process.stdout.readline())["address"]) as http:
            answer = httpx.post(f"{http}/v1/chat/completions", json=CHAT, timeout=60)
        assert answer.status_code == 503 and "worker" in answer.json()["error"]["message"], answer.text
    finally:
        process.terminate()
        process.wait(30)


def test_what_it_says_of_itself(served: Served) -> None:
    with served.client() as client:
        assert client.get("/version").json()["version"]
        client.post("/v1/chat/completions", json=CHAT)
        figures = client.get("/metrics").text
        assert 'noodle_api_requests_total{path="/v1/chat/completions",status="200"}' in figures
        document = client.get("/openapi.json").json()
        assert set(document["paths"]) >= {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/models", "/health"}
        page = client.get("/docs").text
        assert "max_completion_tokens" in page and "http://" not in page and "https://" not in page


def test_a_model_without_a_template_says_so() -> None:
    with (
        LocalCluster(model="gpt2:tiny", random_weights=0, num_workers=1) as cluster,
        serving(
            cluster.address,
        ) as http,
    ):
        from engine.service.trust.local_tokens import find_token

        answer = httpx.post(
            f"{http}/v1/chat/completions", json=CHAT, headers={"authorization": f"Bearer {find_token(cluster.address)}"}, timeout=60
        )
    assert answer.status_code == 400 and "chat template" in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt2", "gpt2"),
        ("org/model", "org/model"),
        ("./some/Model-1", "Model-1"),
        ("/home/ann/Model-1/", "Model-1"),
        ("~/Model-1", "Model-1"),
    ],
)
def test_callers_do_not_learn_where_a_model_lies(model: str, name: str) -> None:
    assert public_name(model) == name
