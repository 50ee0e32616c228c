"""`serve --on ray`: the HTTP API in several replicas under a real Ray Serve, asked by a real client through its proxy."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from engine.service.options import Role
from engine.service.trust.certificates import issue, make_authority
from tests.service.on_ray.machines import DEADLINE_S, MODEL, Machines, Up, noodle, seen, until, up
from tests.service.reference import reference

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install 'noodlecore[ray]'", exc_type=ImportError)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROMPT = (1, 2, 3)
NUM_TOKENS = 300
KEY, VIEWER = "operator-key-of-the-test", "viewer-key-of-the-test"


@dataclass
class Door:
    """The command, and the API that it announced."""

    process: subprocess.Popen[str]
    http: str
    port: int
    told: list[str] = field(default_factory=list)

    def openai(self, key: str = KEY, authority: Path | None = None) -> openai.OpenAI:
        trusted = httpx.Client(verify=ssl.create_default_context(cafile=authority)) if authority else None
        return openai.OpenAI(base_url=f"{self.http}/v1", api_key=key, max_retries=0, timeout=DEADLINE_S, http_client=trusted)


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """A folder with a certificate for this machine, its key, and the authority that signed it."""
    make_authority(tmp_path / "papers", "of the test")
    issue(tmp_path / "papers", "api", Role.VIEWER, ["127.0.0.1"])
    return tmp_path / "papers"


def with_tls(papers: Path) -> tuple[str, ...]:
    return "--http-cert", str(papers / "api.pem"), "--http-key", str(papers / "api.key")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(machines: Machines, folder: Path, *words: str, port: int | None = None) -> subprocess.Popen[str]:
    (keys := folder / "keys").write_text(f"operator {KEY}\nviewer {VIEWER}\n")
    on = ("--on", "ray", "--address", machines.address, "--http", str(port or free_port()), "--keys", str(keys), "--json")
    return noodle("serve", *on, *words)


def opened(machines: Machines, folder: Path, *words: str, port: int | None = None) -> Door:
    port = port or free_port()
    process = serve(machines, folder, *words, port=port)
    assert process.stdout is not None
    timer = threading.Timer(DEADLINE_S, process.terminate)
    timer.start()
    line = process.stdout.readline()
    timer.cancel()
    assert line, process.communicate(timeout=120)[1]
    return Door(process, str(json.loads(line)["http"]), port)


@pytest.fixture(scope="module")
def cluster(machines: Machines) -> Iterator[Up]:
    with up(machines, "--workers", "2") as found:
        yield found


@pytest.fixture(scope="module")
def door(machines: Machines, cluster: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    found = opened(machines, tmp_path_factory.mktemp("door"), "--replicas", "2")
    yield found
    if found.process.poll() is None:
        found.process.terminate()
    assert found.process.wait(120) == 0
    nothing_is_left(found)


def nothing_is_left(door: Door) -> None:
    until(lambda: not serve_actors(), "no actor of Ray Serve to be left")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{door.http}/-/routes")


def serve_actors() -> list[psutil.Process]:
    return [found for found in psutil.process_iter() if is_of_serve(found)]


def is_of_serve(found: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return found.name().startswith(("ray::Serve", "ray::Proxy", "ray::HTTPProxy"))
    return False


def replicas() -> dict[int, psutil.Process]:
    return {found.pid: found for found in serve_actors() if found.name().startswith("ray::ServeRep")}


def ask(client: openai.OpenAI, num_tokens: int = NUM_TOKENS) -> Any:
    more = {"ignore_eos": True}
    return client.completions.create(model="gpt2:tiny", prompt=list(PROMPT), max_tokens=num_tokens, temperature=0, extra_body=more)


def test_replicas_answer_as_the_cluster_itself(cluster: Up, door: Door) -> None:
    found = ask(door.openai()).choices[0]
    direct = subprocess_answer(cluster)
    assert direct["token_ids"] == reference(MODEL, PROMPT, NUM_TOKENS) and found.text == direct["text"]
    assert found.finish_reason == "length"
    assert len(replicas()) == 2
    until(lambda: len(who_answered(door)) == 2, "answers of both replicas")


def subprocess_answer(cluster: Up, num_tokens: int = NUM_TOKENS) -> dict[str, Any]:
    words = ("--prompt-ids", "1,2,3", "--max-new-tokens", str(num_tokens), "--ignore-eos", "--temperature", "0", "--json")
    said, errors = noodle("generate", *words, "--connect", cluster.address).communicate(timeout=120)
    assert said, errors
    found: dict[str, Any] = json.loads(said)
    return found


def who_answered(door: Door) -> set[str]:
    """Replicas by the time at which they began to count what they are asked here."""
    pages = [httpx.get(f"{door.http}/metrics", headers={"authorization": f"Bearer {KEY}"}).text for _ in range(8)]
    mark = 'noodle_api_request_seconds_created{path="/metrics"}'
    return {line for page in pages for line in page.splitlines() if line.startswith(mark)}


def test_a_stream_arrives_as_it_comes(cluster: Up, door: Door) -> None:
    """The first words are here while the cluster still computes."""
    whole = ask(door.openai()).choices[0].text
    more = {"ignore_eos": True}
    stream = door.openai().completions.create(
        model="gpt2:tiny", prompt=list(PROMPT), max_tokens=NUM_TOKENS, temperature=0, stream=True, extra_body=more
    )
    pieces, was_running = [], 0
    for part in stream:
        pieces.append(part.choices[0].text)
        if len(pieces) == 3:
            status = cluster.run(lambda client: client.status())
            was_running = [s.num_generated for s in status.sessions if s.num_generated < NUM_TOKENS]
    assert was_running and "".join(pieces) == whole and len(pieces) > NUM_TOKENS / 4


def test_a_caller_that_goes_ends_its_session(cluster: Up, door: Door) -> None:
    body = {"model": "gpt2:tiny", "prompt": list(PROMPT), "max_tokens": 900, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{door.http}/v1/completions", json=body, headers={"authorization": f"Bearer {KEY}"}) as answer:
        lines = answer.iter_lines()
        next(lines)
        cluster.run(lambda client: seen(client, lambda status: bool(status.sessions), "the session"))
    cluster.run(lambda client: seen(client, lambda status: not status.sessions, "its end"))


def test_keys_and_errors_are_those_of_the_api(door: Door) -> None:
    with pytest.raises(openai.AuthenticationError, match="this key is unknown here"):
        ask(door.openai("another-key-of-nobody"))
    with pytest.raises(openai.PermissionDeniedError, match="viewer"):
        ask(door.openai(VIEWER))
    assert [model.id for model in door.openai(VIEWER).models.list()] == ["gpt2:tiny"]
    with pytest.raises(openai.NotFoundError, match="'gpt2:tiny' is"):
        door.openai().completions.create(model="other", prompt="x")
    assert httpx.get(f"{door.http}/health").json() == {"status": "ok", "detail": ""}


def test_a_replica_that_is_killed_is_made_again(door: Door) -> None:
    expected = ask(door.openai(), 20).choices[0].text
    victim = next(iter(replicas().values()))
    victim.kill()
    until(lambda: len(found := replicas()) == 2 and victim.pid not in found, "two replicas again")
    until(lambda: answers(door) == expected, "an answer")
    assert [answers(door) for _ in range(6)] == [expected] * 6


def answers(door: Door) -> str | None:
    with contextlib.suppress(openai.APIError):
        return str(ask(door.openai(), 20).choices[0].text)
    return None


def test_a_second_one_is_refused_and_tells_the_way(machines: Machines, door: Door, tmp_path: Path) -> None:
    said = serve(machines, tmp_path).communicate(timeout=120)[1]
    assert said.count("\n") == 1 and "noodle-engine down --on ray --name noodle --api" in said
    said = serve(machines, tmp_path, "--name", "nobody").communicate(timeout=120)[1]
    assert said.count("\n") == 1 and "no cluster called nobody runs on this Ray" in said
    assert door.process.poll() is None and answers(door), "who was refused ended nothing"


def test_ctrl_c_leaves_nothing_and_down_ends_what_runs_on_its_own(machines: Machines, cluster: Up, door: Door, tmp_path: Path) -> None:
    door.process.terminate()
    assert door.process.wait(120) == 0
    nothing_is_left(door)
    alone = opened(machines, tmp_path, "--replicas", "1", "--detach", port=door.port)
    assert alone.process.wait(60) == 0
    assert ask(alone.openai(), 5).usage.completion_tokens == 5
    down = noodle("down", "--on", "ray", "--address", machines.address, "--api")
    assert (down.communicate(timeout=120)[0], down.returncode) == ("the API of noodle on Ray is down\n", 0)
    nothing_is_left(alone)
    assert cluster.worker_pids()


def test_callers_reach_it_by_tls(machines: Machines, cluster: Up, papers: Path, tmp_path: Path) -> None:
    """Nothing of it is served in clear text, and the certificate is the one that was given."""
    door = opened(machines, tmp_path, "--replicas", "1", *with_tls(papers))
    try:
        assert door.http == f"https://127.0.0.1:{door.port}"
        client = door.openai(authority=papers / "ca.pem")
        assert ask(client, 20).choices[0].text == subprocess_answer(cluster, 20)["text"]
        more = {"ignore_eos": True}
        stream = client.completions.create(
            model="gpt2:tiny", prompt=list(PROMPT), max_tokens=20, temperature=0, stream=True, extra_body=more
        )
        assert len("".join(part.choices[0].text for part in stream)) > 0
        with pytest.raises(openai.APIConnectionError):
            ask(door.openai(), 5)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{door.port}/health")
    finally:
        door.process.terminate()
        assert door.process.wait(120) == 0
    nothing_is_left(door)


OTHERS = """
import sys, ray
from ray import serve

class Other:
    async def __call__(self, request):
        return "other"

ray.init(address=sys.argv[1], log_to_driver=False)
if sys.argv[2] == "start":
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[3])})
    serve.run(serve.deployment(Other, ray_actor_options={"num_cpus": 0}).bind(), name="other", route_prefix="/other")
else:
    serve.shutdown()
"""


def test_a_proxy_of_others_without_tls_is_not_taken_for_one_with(machines: Machines, cluster: Up, papers: Path, tmp_path: Path) -> None:
    def others(*words: str) -> None:
        subprocess.run([sys.executable, "-c", OTHERS, machines.address, *words], check=True, timeout=300, capture_output=True)

    others("start", str(port := free_port()))
    try:
        said = serve(machines, tmp_path, *with_tls(papers), port=port).communicate(timeout=300)[1]
        assert said.count("\n") == 1 and "already, without TLS" in said and "reverse_proxy.md" in said, said
        assert httpx.get(f"http://127.0.0.1:{port}/other").text == "other", "who was refused ended nothing of others"
        door = opened(machines, tmp_path, "--replicas", "1", port=port)
        assert door.http == f"http://127.0.0.1:{port}" and answers(door)
        door.process.terminate()
        assert door.process.wait(120) == 0 and httpx.get(f"http://127.0.0.1:{port}/other").text == "other"
    finally:
        others("end")
