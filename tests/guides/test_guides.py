"""Each guide does what it says: its commands are typed, what they print is compared, its servers end in order."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import httpx
import pytest

from tests.guides.playing import GUIDES, blocks, differs, missing, played

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_what_is_printed_is_compared() -> None:
    assert not differs(("a", "...", "c ... d"), ["a", "b", "b", "c 1 d"]) and not differs(("...",), [])
    assert differs(("a",), ["b"]) and differs((), ["b"]) and differs(("a", "b"), ["a"]) and differs(("a...c",), ["ab"])


def test_each_guide_is_on_the_list() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", (GUIDES / "README.md").read_text()))
    assert listed == {path.name for path in GUIDES.glob("*.md")} - {"README.md"}
    assert all(any(block.typed for block in blocks(guide)) for guide in listed)


@pytest.mark.skipif(bool(missing("bash", "curl")), reason=missing("bash", "curl"))
def test_one_machine(tmp_path: Path) -> None:
    with played("one_machine.md", tmp_path):
        pass


@pytest.mark.skipif(bool(missing("bash")), reason=missing("bash"))
def test_another_machine(tmp_path: Path) -> None:
    pytest.importorskip("zeroconf", reason="zeroconf is not installed: pip install 'noodlecore[discovery]'")
    with played("another_machine.md", tmp_path):
        assert (tmp_path / "laptop" / "laptop.key").exists() and not (tmp_path / "certs" / "laptop.key").exists()


@pytest.mark.skipif(bool(missing("bash")), reason=missing("bash"))
def test_troubleshooting(tmp_path: Path) -> None:
    with played("troubleshooting.md", tmp_path):
        pass


@pytest.mark.skipif(bool(missing("bash", "curl", "openssl", "nginx")), reason=missing("bash", "curl", "openssl", "nginx"))
def test_a_reverse_proxy_lets_tokens_through_as_they_come(tmp_path: Path) -> None:
    """The first event is here while the server still counts the request among those that run."""
    with played("reverse_proxy.md", tmp_path) as player:
        key = {"authorization": "Bearer a-long-key-that-nobody-guesses"}
        body = {"model": "gpt2:tiny", "prompt": [1, 2, 3], "max_tokens": 900, "ignore_eos": True, "stream": True}
        base, inside = f"https://localhost:{player.ports['8443']}", f"http://127.0.0.1:{player.ports['8000']}"
        with httpx.Client(verify=ssl.create_default_context(cafile=tmp_path / "cert.pem"), timeout=60, headers=key) as client:
            with client.stream("POST", f"{base}/v1/completions", json=body) as answer:
                lines = answer.iter_lines()  # held: one that nobody holds closes the answer
                assert next(lines).startswith("data: ")
                figures = httpx.get(f"{inside}/metrics", headers=key).text
                assert "noodle_api_requests_running 2.0" in figures  # it, and this look
            too_much = client.post(f"{base}/v1/completions", content=b" " * (4 * 2**20 + 1))
            assert too_much.status_code == 413
