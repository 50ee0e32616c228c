"""`noodle-engine drill`: many seeded histories of everything that can go wrong, under a virtual clock."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict

from engine.commands.bench import options as commands
from engine.commands.output import note, print_json, say
from engine.commands.progress import ended_like_interrupted, progress_lines
from engine.program import INTERRUPTED
from engine.simulation.drill.drill import Drill
from engine.simulation.drill.result import DrillFailure, DrillResult, too_many_given_up

SUMMED = ("num_sessions", "num_tokens", "num_faults", "num_plans", "num_moves", "num_failed", "num_given_up")
MAX_SHOWN = 10
BLOCK_SEEDS = 50


def drill(options: commands.Drill) -> int:
    """Run the seeds; 0 if nothing that must never happen happened."""
    started_s = time.monotonic()
    totals: Counter[str] = Counter(dict.fromkeys(SUMMED, 0))
    failures: list[str] = []
    end = options.first + options.seeds
    blocks = [range(start, min(start + BLOCK_SEEDS, end)) for start in range(options.first, end, BLOCK_SEEDS)]
    show, num_done, is_stopped = progress_lines("drill"), 0, False
    try:
        with ended_like_interrupted(), closing(_results(blocks, options.jobs)) as results:
            for block, (counted, failed) in zip(blocks, results, strict=False):
                totals.update(counted)
                num_done += len(block)
                for text in failed[: MAX_SHOWN - len(failures)]:
                    failures.append(text)
                    note(text)
                if len(failures) >= MAX_SHOWN:
                    break
                if num_done < options.seeds:
                    show(num_done / options.seeds, f"{num_done} of {options.seeds} histories, {len(failures)} failed")
    except KeyboardInterrupt:
        is_stopped = True
        note(f"stopped: the figures are of the first {num_done} of {options.seeds} seeds")
    if habit := too_many_given_up(totals["num_given_up"], totals["num_sessions"]):
        failures.append(habit)
        note(habit)
    spent_s = time.monotonic() - started_s
    if options.json:
        seeds = {"first_seed": options.first, "seeds": num_done if is_stopped else options.seeds, "stopped": is_stopped}
        print_json({**seeds, "failures": failures, **totals, "spent_s": spent_s})
    else:
        say(_text(num_done if is_stopped else options.seeds, totals, failures, spent_s))
    if is_stopped:
        return INTERRUPTED
    return 1 if failures else 0


def _results(blocks: list[range], num_processes: int) -> Generator[tuple[Counter[str], list[str]], None, None]:
    if num_processes == 1:
        yield from map(run_block, blocks)
        return
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(num_processes, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)) as pool:  # the parent ends them
        yield from pool.imap(run_block, blocks)


def run_block(seeds: range) -> tuple[Counter[str], list[str]]:
    """Sums over the seeds that passed, and what the others say."""
    totals: Counter[str] = Counter()
    failures: list[str] = []
    for seed in seeds:
        try:
            result = drill_seed(seed)
        except DrillFailure as e:
            failures.append(str(e))
            continue
        totals.update({name: value for name, value in asdict(result).items() if name in SUMMED})
    return totals, failures


def drill_seed(seed: int) -> DrillResult:
    """One history. Raises DrillFailure."""
    return Drill(seed, random.Random(seed)).run()


def _text(num_seeds: int, totals: Counter[str], failures: list[str], spent_s: float) -> str:
    what = f"{totals['num_sessions']} sessions, {totals['num_tokens']} tokens, {totals['num_faults']} faults, {totals['num_plans']} plans"
    end = f"{len(failures)} failed" if failures else "no token wrong, missing or repeated, every session came to its end"
    given_up = f"{totals['num_failed']} sessions ended with an error, {totals['num_given_up']} of them given up"
    return f"{num_seeds} seeds in {spent_s:.1f} s: {what}; {end}; {given_up}"
