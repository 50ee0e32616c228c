"""Tokens per second beside llama.cpp, in turns on one machine: float32 against F32, int8 against Q8_0.

    npm install --prefix DIR --ignore-scripts node-llama-cpp
    python -m tests.bench.llama_cpp FOLDER --node DIR [--sessions 1,8] [--threads 1,2] [--tokens 100] [--rounds 3]

`FOLDER` is a Llama as Hugging Face stores it; its GGUF files are written to a temporary folder. node-llama-cpp brings prebuilt binaries of
llama.cpp. Each engine answers the same short prompts greedily, so many tokens each, all sessions at once, from warm: the prompt counts.
llama.cpp keeps its best number of threads, this engine runs one worker with as many threads as cores. The first line says how many ids of
the float32 answer both have in common: two programs that compute the same model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from functools import partial
from itertools import takewhile
from pathlib import Path
from statistics import median

import gguf
import torch
from transformers import AutoModelForCausalLM

from tests.model.published import write_gguf
from tests.service.running import Running, running

SCRIPT = Path(__file__).with_name("llama_cpp.mjs")
MAIN = "node_modules/node-llama-cpp/dist/index.js"
PROMPT = (504, 3575, 282, 4649, 314)  # behind a first token of its own for each session
PLAIN = {"speculate": "off", "prefix_cache": "off"}  # the prompts are alike
KINDS = {"float32": "F32", "int8": "Q8_0"}


def theirs(main: Path, file: Path, num_threads: int, num_sessions: int, num_tokens: int) -> tuple[float, list[int]]:
    """(tokens per second, the first session's ids)."""
    words = ["node", str(SCRIPT), str(main), str(file), str(num_threads), str(num_sessions), str(num_tokens), json.dumps(PROMPT)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["tokens_per_s"], found["ids"]


def ours(cluster: Running, num_sessions: int, num_tokens: int) -> tuple[float, list[int]]:
    """The same of this engine."""
    requests = [cluster.request((1 + k, *PROMPT), num_tokens, ignore_eos=True) for k in range(num_sessions)]
    began_s = time.perf_counter()
    answers = cluster.generate_all(requests)
    spent_s = time.perf_counter() - began_s
    return num_sessions * num_tokens / spent_s, list(answers[0].document()["token_ids"])


def _add_vocabulary(writer: gguf.GGUFWriter, folder: Path) -> None:
    """llama.cpp loads no model without one; it is not used, for ids come in and go out."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(model["vocab"].get("<|endoftext|>", 0))


def main() -> None:
    """Print one line for each dtype and number of sessions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--node", type=Path, required=True, metavar="DIR", help="where npm installed node-llama-cpp")
    parser.add_argument("--sessions", default="1,8")
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}", help="that llama.cpp tries")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    module = (options.node / MAIN).resolve()
    if not module.is_file():
        parser.error(f"{module} is not there: npm install --prefix {options.node} --ignore-scripts node-llama-cpp")
    counts = [int(number) for number in options.sessions.split(",")]
    threads = [int(number) for number in options.threads.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        files = {dtype: Path(scratch) / f"{kind}.gguf" for dtype, kind in KINDS.items()}
        model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
        for dtype, file in files.items():
            write_gguf(model, file, (KINDS[dtype],), partial(_add_vocabulary, folder=options.folder))
        del model
        rates: dict[tuple[str, int, str], list[float]] = defaultdict(list)
        ids: dict[str, list[int]] = {}
        for _ in range(options.rounds):
            for dtype, file in files.items():
                with running(str(options.folder), 1, dtype=dtype, random_weights=None, num_threads=os.cpu_count(), **PLAIN) as cluster:
                    ours(cluster, max(counts), 8)
                    for count in counts:
                        rate, found = ours(cluster, count, options.tokens)
                        rates[dtype, count, "ours"].append(rate)
                        ids.setdefault(f"{dtype} ours", found)
                for count in counts:
                    for number in threads:
                        rate, found = theirs(module, file, number, count, options.tokens)
                        rates[dtype, count, f"{number} threads"].append(rate)
                        ids.setdefault(f"{dtype} theirs", found)
    pairs = zip(ids["float32 ours"], ids["float32 theirs"], strict=True)
    print(f"the first {sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))} of {options.tokens} float32 ids are the same")
    for dtype, kind in KINDS.items():
        for count in counts:
            here = median(rates[dtype, count, "ours"])
            by_threads = {f"{number} threads": median(rates[dtype, count, f"{number} threads"]) for number in threads}
            there = max(by_threads.values())
            listed = ", ".join(f"{rate:.1f} with {name}" for name, rate in by_threads.items())
            print(f"{dtype:<8} {count} sessions: {here:.1f} tokens/s; llama.cpp {kind} {listed}: {here / there:.2f}x", flush=True)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
