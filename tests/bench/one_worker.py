"""What a cluster of one worker takes beside its stage: tokens per second, and CPU time of both processes for each token.

    python -m tests.bench.one_worker [--model llama:tiny] [--sessions 1,8,32] [--tokens 128] [--rounds 3]

Every session generates exactly so many tokens, all at once. To compare two versions run it in turns with each, for CPU time says more than
time does on a machine that others use. The clients run in a process of their own, and are not counted.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import psutil

from tests.service.running import Running, running


def cpu_s(cluster: Running) -> dict[str, float]:
    """CPU seconds of each process so far."""
    times = {name: psutil.Process(pid).cpu_times() for name, pid in cluster.cluster.pids().items()}
    return {name: t.user + t.system for name, t in times.items()}


def measure(cluster: Running, num_sessions: int, num_tokens: int) -> tuple[float, dict[str, float]]:
    """(tokens per second, CPU milliseconds per token of each process)."""
    requests = [cluster.request((1 + i % 200, 2, 3), num_tokens, ignore_eos=True) for i in range(num_sessions)]
    before, started_s = cpu_s(cluster), time.perf_counter()
    cluster.generate_all(requests)
    spent_s, after, count = time.perf_counter() - started_s, cpu_s(cluster), num_sessions * num_tokens
    return count / spent_s, {name: 1e3 * (after[name] - before[name]) / count for name in before}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="llama:tiny")
    parser.add_argument("--sessions", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with running(options.model, 1, speculate="off", prefix_cache="off") as cluster:
        measure(cluster, 8, 32)
        for num_sessions in map(int, options.sessions.split(",")):
            found = [measure(cluster, num_sessions, options.tokens) for _ in range(options.rounds)]
            names = sorted(found[0][1])
            cpu = ", ".join(f"{name} {median(spent[name] for _, spent in found):.3f}" for name in names)
            print(f"{num_sessions:3d} sessions: {median(rate for rate, _ in found):7.1f} tokens/s; CPU ms per token: {cpu}", flush=True)


if __name__ == "__main__":
    main()
