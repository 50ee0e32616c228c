"""`generate` and `chat` with an instruct model on real workers: from a pipe, from scripts, and at a pseudo-terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.data.errors import InvalidInput, NotFound, Refused
from engine.data.generation import GenerateRequest, PromptMode, Used
from engine.data.sampling import LogitBias, Sampling, SamplingRequest
from tests.service.chat.instruct import END, instruct_folder
from tests.service.running import Running, running
from tests.tui.pty_console import PtyConsole

ENGINE = (sys.executable, "-m", "engine")
OWN = Sampling(temperature=0.7, top_p=0.9, stop_token_ids=(END,))
FROM_MODEL = ("temperature", "top_p")
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return instruct_folder(tmp_path_factory.mktemp("model") / "instruct")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[Running]:
    with running(str(folder), 2, random_weights=None) as started:
        yield started


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def by_transformers(tokenizer: Any, messages: Any) -> tuple[int, ...]:
    return tuple(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def engine(cluster: Running, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ENGINE, *argv, "--connect", cluster.address], input=stdin, capture_output=True, text=True, timeout=120)


def document(cluster: Running, *argv: str) -> Any:
    done = engine(cluster, "generate", "hi", "--max-new-tokens", "4", "--json", *argv)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


# ------------------------------------------------------------------------------------------ requests
def test_a_conversation_has_the_tokens_that_transformers_gives_it(cluster: Running, tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be brief. 🍜"}, *HI, {"role": "assistant", "content": "yes?"}, *HI]
    answer = cluster.generate(GenerateRequest(messages=json.dumps(messages), max_new_tokens=2))
    assert answer.prompt_ids == by_transformers(tokenizer, messages) and answer.used == Used(OWN, "default", FROM_MODEL)


def test_a_text_goes_through_the_template_as_it_is_asked_to(cluster: Running, tokenizer: Any) -> None:
    as_user, as_is = by_transformers(tokenizer, HI), tuple(tokenizer.encode("hi", add_special_tokens=False))
    for mode, prompt_ids in ((PromptMode.RAW, as_is), (PromptMode.AUTO, as_user), (PromptMode.CHAT, as_user)):
        answer = cluster.generate(GenerateRequest("hi", max_new_tokens=2, mode=mode))
        assert answer.prompt_ids == prompt_ids and answer.used is not None
        assert answer.used.template == ("" if mode is PromptMode.RAW else "default")


def test_what_a_request_says_of_sampling_counts_and_the_rest_is_the_models(cluster: Running) -> None:
    answer = cluster.generate(GenerateRequest("hi", max_new_tokens=2, sampling=SamplingRequest(temperature=0.0, min_p=0.5)))
    assert answer.used == Used(Sampling(top_p=0.9, min_p=0.5, stop_token_ids=(END,)), "", ("top_p",))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sampling": SamplingRequest(stop_token_ids=(512,))}, "stop_token_ids: token id 512 is outside the vocabulary of 512 tokens"),
        ({"sampling": SamplingRequest(logit_bias=(LogitBias(600, 1.0),))}, "logit_bias: token id 600 is outside the vocabulary"),
        ({"messages": '[{"content": "x"}]'}, r"messages\[0\].role is missing"),
        ({"messages": '[{"role": "tool", "content": "x"}]'}, "the model's chat template refuses this conversation: no tools here"),
        ({"messages": json.dumps(HI), "chat_template_kwargs": '{"chat_template": "rag"}'}, "'rag' is not a template of this model"),
        ({"messages": json.dumps([{"role": "user", "content": "x" * 2_000_000}])}, "it writes more than .* characters"),
        ({"messages": json.dumps([{"role": "user", "content": "x" * 2000}])}, "the prompt has 20.. tokens, the model's context holds 1024"),
    ],
)
def test_what_the_model_cannot_take_is_the_callers_error(cluster: Running, asked: dict[str, Any], message: str) -> None:
    request = GenerateRequest(**({} if "messages" in asked else {"prompt": "hi"}), **asked)
    with pytest.raises(InvalidInput, match=message):
        cluster.generate(request)


# ------------------------------------------------------------------------------------------ generate
def test_generate_says_what_it_did_on_stderr_and_in_json(cluster: Running, tokenizer: Any) -> None:
    found, said = document(cluster)
    assert tuple(found["prompt_ids"]) == by_transformers(tokenizer, HI) and found["template"] == "default"
    assert found["sampling"]["temperature"] == 0.7 and found["sampling"]["from_model"] == ["temperature", "top_p"]
    assert "went through the model's chat template; --raw sends it as it is" in said
    assert "generation_config.json recommends: temperature 0.7, top-p 0.9; --temperature 0 is greedy" in said
    raw, said = document(cluster, "--raw", "--temperature", "0", "--top-p", "1")
    assert (raw["prompt_ids"], raw["template"], raw["sampling"]["from_model"], said) == ([71, 72], "", [], "")
    told = [{"role": "system", "content": "Be brief."}, *HI]
    assert tuple(document(cluster, "--system", "Be brief.")[0]["prompt_ids"]) == by_transformers(tokenizer, told)


def test_generate_takes_every_sampling_option(cluster: Running) -> None:
    argv = "--min-p 0.1 --presence-penalty 0.5 --frequency-penalty=-0.5 --logit-bias 65=100 --min-tokens 3 --stop-token 65 --logprobs 2"
    found, _ = document(cluster, *argv.split(), "--temperature", "0")
    assert found["token_ids"] == [*[i for i in found["token_ids"] if i != 65][:3], 65] and found["finish_reason"] == "stop"
    assert found["sampling"]["min_p"] == 0.1 and found["sampling"]["stop_token_ids"] == [65, END]
    assert [entry["token_id"] for entry in found["logprobs"]] == found["token_ids"]
    assert all(len(entry["top"]) == 2 and entry["logprob"] <= entry["top"][0]["logprob"] < 0 for entry in found["logprobs"])
    wrong = engine(cluster, "generate", "hi", "--logit-bias", "65")
    assert wrong.returncode == 2 and "'65' is not allowed: give a token id and a number, e.g. 50256=-100" in wrong.stderr
    for argv in ("--raw --chat", "--raw --system x"):
        assert engine(cluster, "generate", "hi", *argv.split()).returncode == 2


def test_a_model_without_a_template_takes_text_as_it_is_unless_a_chat_is_asked_for() -> None:
    with running("llama:tiny", 1) as plain:
        answer = plain.generate(GenerateRequest("hi", max_new_tokens=2, mode=PromptMode.AUTO))
        assert answer.prompt_ids == tuple(b"hi") and answer.used == Used(Sampling())
        with pytest.raises(Refused, match="no chat template: send the prompt in mode auto or raw"):
            plain.generate(GenerateRequest("hi", mode=PromptMode.CHAT))
        done = engine(plain, "chat", stdin="hi\nagain\n")
        assert done.returncode == 2 and done.stderr.count("the model has no chat template") == 1


# ------------------------------------------------------------------------------------------ chat
def test_from_a_pipe_each_line_is_a_turn(cluster: Running, tmp_path: Path) -> None:
    lines = ["hi", "", "/system Be brief.", "//etc is a folder", f"/save {tmp_path}/talk.json", "/reset", "again", "/quit", "never said"]
    done = engine(cluster, "chat", "--max-new-tokens", "3", "--temperature", "0", "--stop-token", "1", stdin="\n".join(lines))
    assert done.returncode == 0, done.stderr
    assert "system: Be brief." in done.stderr and "begins anew" in done.stderr and "tokens/s" not in done.stderr
    saved = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert [m["role"] for m in saved] == ["system", "user", "assistant", "user", "assistant"]
    assert (saved[1]["content"], saved[3]["content"]) == ("hi", "/etc is a folder")
    again = engine(cluster, "chat", stdin=f"/save {tmp_path}/talk.json\nhi\n")
    assert again.returncode == 2 and "exists already: choose another name" in again.stderr and again.stdout == ""


def test_each_turn_is_asked_with_all_that_was_said_before(cluster: Running, tokenizer: Any, tmp_path: Path) -> None:
    argv = ("chat", "--system", "S", "--max-new-tokens", "12", "--temperature", "0")
    assert engine(cluster, *argv, stdin=f"one\ntwo\n/save {tmp_path}/talk.json\n").returncode == 0
    saved = json.loads((tmp_path / "talk.json").read_text())["messages"]
    for number in (2, 4):
        asked = SamplingRequest(temperature=0.0)
        answer = cluster.generate(GenerateRequest(messages=json.dumps(saved[:number]), max_new_tokens=12, sampling=asked))
        assert answer.prompt_ids == by_transformers(tokenizer, saved[:number])
        assert "".join(chunk.text for chunk in answer.chunks) == saved[number]["content"] != ""


def test_a_person_talks_at_a_terminal(cluster: Running, tmp_path: Path) -> None:
    argv = ["chat", "--connect", cluster.address, "--max-new-tokens", "900", "--temperature", "0", "--logit-bias", f"{END}=-100"]
    state = {"XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PROMPT_TOOLKIT_NO_CPR": "1"}
    with PtyConsole(argv, command=ENGINE, env=state, width=160) as chat:
        chat.wait_for("/help lists commands, Ctrl-D ends")
        chat.wait_for(">")
        cluster.wait(cluster.client.set_slowdown("w1", 100.0))
        chat.send("first line\x1b\rsecond line\r")
        cluster.until(lambda s: bool(s.sessions) and s.sessions[0].num_generated > 3, "tokens")
        chat.send("\x03")
        chat.wait_for("tokens, stopped; first after")
        cluster.until(lambda s: not s.sessions, "the session ended")
        cluster.wait(cluster.client.set_slowdown("w1", 1.0))
        chat.send("/nonsense\r")
        chat.wait_for("/nonsense is no command: /help lists them")
        chat.send(f"/save {tmp_path}/talk.json\r")
        chat.wait_for("2 messages are in")
        chat.send("/reset\r")
        chat.wait_for("begins anew")
        chat.wait_for(lambda: chat.screen.display[chat.screen.cursor.y].strip() == ">")
        chat.send("\x1b[A\x1b[A\x1b[A\x1b[A")  # what was typed before comes back
        chat.wait_for("second line")
        chat.send("\x03")
        chat.wait_for("Ctrl-D ends the chat")
        chat.wait_for(lambda: chat.screen.display[chat.screen.cursor.y].strip() == ">")  # keys between two prompts may be lost
        chat.send("\x04")
        assert chat.exit_code() == 0
    user, assistant = json.loads((tmp_path / "talk.json").read_text())["messages"]
    assert user["content"] == "first line\nsecond line" and assistant["role"] == "assistant"
    kept = tmp_path / "noodlecore" / "chat_history"
    assert "second line" in kept.read_text() and kept.stat().st_mode & 0o777 == 0o600


# ------------------------------------------------------------------------------------------ what an operator may read
def test_the_text_of_a_session_is_read_where_the_coordinator_shows_it(folder: Path, cluster: Running) -> None:
    asked = GenerateRequest(prompt="hi, noodle", max_new_tokens=12, sampling=SamplingRequest(temperature=0.0))
    answer = cluster.generate(asked)
    with pytest.raises(Refused, match="start it with --show-text"):
        cluster.wait(cluster.client.text(answer.chunks[0].session_id))
    with running(str(folder), 1, random_weights=None, show_text=True) as open_one:
        found = open_one.wait(open_one.client.text(open_one.generate(asked).chunks[0].session_id))
        assert "hi, noodle" in found.prompt and found.answer == "".join(chunk.text for chunk in answer.chunks) != ""
        with pytest.raises(NotFound, match="session s-nobody is unknown here"):
            open_one.wait(open_one.client.text("s-nobody"))
